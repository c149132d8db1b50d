//! `vm`: the filter on the kernels of Debian, on every kind of interface, in virtual machines; and the units under systemd.
//!
//! 1. `choice.rs` knows what is tried;
//! 2. `apt.rs` is an apt of its own, for the packages of other suites;
//! 3. `kernel.rs` finds, downloads and unpacks kernels with it, and `modules.rs` which modules a machine takes;
//! 4. `initramfs.rs` packs sipguard, the programs it is tried with and the modules;
//! 5. `system.rs` is a small Debian with systemd, for the units;
//! 6. `machine.rs` runs a virtual machine within its time, and reads what the guest reports;
//! 7. `table.rs` is what comes of it.
//!
//! What is tried in a cell, or in a step with systemd, is written in `tests/src/guest/`.

mod apt;
mod choice;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod system;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

pub use self::apt::{Apt, place};
use self::{
    choice::Asked,
    initramfs::Initramfs,
    kernel::Kernel,
    machine::Spec,
    table::{Outcome, Table},
};
use crate::{
    command::{cargo, printed, root, succeed, target_dir},
    machine::Purpose,
    setup,
};

/// Modules of the interfaces.
const MODULES: [&str; 9] =
    ["virtio_pci", "virtio_net", "veth", "8021q", "bridge", "bonding", "af_packet", "sch_ingress", "cls_bpf"];
/// The kernel of the machine with systemd, Debian 12's own, and its modules.
const SYSTEM_KERNEL: &str = "6.1";
const SYSTEM_MODULES: [&str; 6] =
    ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "virtio_net", "veth"];
/// Programs that the trial calls, beside sipguard.
const PROGRAMS: [&str; 4] = ["ip", "nsenter", "ethtool", "timeout"];
/// Where the guest looks for tests.
const SUITES: &str = "usr/lib/sipguard-tests";

/// With what it is tried, and where.
struct Bench {
    apt: Apt,
    sipguard: PathBuf,
    guest: PathBuf,
    /// Tests that run in the machines as they do outside: tiers of them, by name.
    suites: Vec<(String, PathBuf)>,
    directory: PathBuf,
}

/// `vm [--kernel 6.1|6.12|newest]... [--mode NAME]... [--systemd] [--short] [--sipguard FILE]`.
pub fn run(args: &[String]) -> Result<()> {
    let asked = Asked::read(args)?;
    setup::ready(Purpose::Vm)?;
    let build = ["build", "--locked", "--package", "sipguard", "--package", "sipguard-tests", "--bins"];
    succeed(&mut cargo(&build))?;
    let programs = target_dir().join("debug");
    let guest = programs.join("guest");
    let choice = asked.choose(&listed(&guest, "cells")?)?;
    let sipguard = asked.sipguard.unwrap_or_else(|| programs.join("sipguard"));
    ensure!(sipguard.is_file(), "there is no {}: name a program that was built", sipguard.display());
    let directory = target_dir().join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let suites = suites(&listed(&guest, "suites")?)?;
    let bench = Bench { apt: Apt::new(&directory, "amd64")?, sipguard, guest, suites, directory };

    let mut kernels = Table::new("kernel", &choice.cells);
    for name in &choice.kernels {
        let kernel = Kernel::get(name, &bench.apt, &bench.directory)?;
        println!("vm: Linux {} ({name})", kernel.version);
        kernels.add(&kernel.version, bench.try_cells(&kernel, &choice.cells)?);
    }
    let steps = listed(&bench.guest, "steps")?;
    let mut systemd = Table::new("systemd on", &steps);
    if choice.systemd {
        let kernel = Kernel::get(SYSTEM_KERNEL, &bench.apt, &bench.directory)?;
        println!("vm: systemd on Linux {}", kernel.version);
        systemd.add(&kernel.version, bench.try_steps(&kernel, &steps)?);
    }
    print!("{kernels}{systemd}");
    if !choice.left_out.is_empty() {
        println!("not tried: {}", choice.left_out.join(", "));
    }
    let consoles = bench.directory.display();
    ensure!(kernels.is_good() && systemd.is_good(), "something failed; the consoles are in {consoles}");
    Ok(())
}

impl Bench {
    /// Runs machines until each cell has an outcome: a kernel that dies in one cell is started again for the rest.
    fn try_cells(&self, kernel: &Kernel, cells: &[String]) -> Result<Vec<Outcome>> {
        let mut initramfs = Initramfs::new();
        initramfs.program(&self.guest, "init")?;
        initramfs.program(&self.sipguard, "usr/sbin/sipguard")?;
        for (test, program) in &self.suites {
            initramfs.program(program, &format!("{SUITES}/{test}"))?;
        }
        for program in PROGRAMS {
            initramfs.program_of_path(program)?;
        }
        modules::add(&mut initramfs, kernel, &MODULES)?;
        let image = self.directory.join("initramfs");
        initramfs.write(&image)?;
        let mut row: Vec<Outcome> = Vec::new();
        while let cells @ [first, ..] = &cells[row.len()..] {
            let console = self.directory.join(format!("console-{}-{first}.log", kernel.version));
            let spec = Spec { kernel, image: &image, disk: None, cells, console: &console };
            row.extend(machine::run(&spec)?);
        }
        Ok(row)
    }

    /// Runs a machine with systemd, which reboots in the middle.
    fn try_steps(&self, kernel: &Kernel, steps: &[String]) -> Result<Vec<Outcome>> {
        let mut initramfs = Initramfs::new();
        initramfs.program(&self.guest, "init")?;
        modules::add(&mut initramfs, kernel, &SYSTEM_MODULES)?;
        let image = self.directory.join("initramfs");
        initramfs.write(&image)?;
        let disk = system::disk(&self.apt, &self.directory, &self.sipguard, &self.guest)?;
        let console = self.directory.join("console-systemd.log");
        machine::run(&Spec { kernel, image: &image, disk: Some(&disk), cells: steps, console: &console })
    }
}

/// The programs of tests, built.
fn suites(names: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut build = cargo(&["test", "--locked", "--package", "sipguard-tests", "--no-run"]);
    for name in names {
        build.args(["--test", name]);
    }
    let output = build.output().context("building the tests")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "building the tests failed: {said}");
    // `Executable tests/NAME/main.rs (target/debug/deps/NAME-0123456789abcdef)`
    let programs =
        said.lines().filter_map(|line| line.trim().strip_prefix("Executable ")?.split(['(', ')']).nth(1));
    let programs: Vec<&str> = programs.collect();
    let found = |name: &String| {
        let of = |program: &&&str| {
            program.rsplit('/').next().is_some_and(|file| file.starts_with(&format!("{name}-")))
        };
        let program =
            programs.iter().find(of).with_context(|| format!("cargo did not say where {name} is"))?;
        Ok((name.clone(), root().join(program)))
    };
    names.iter().map(found).collect()
}

/// What the guest lists.
fn listed(guest: &Path, what: &str) -> Result<Vec<String>> {
    let listed = printed(&guest.to_string_lossy(), &[what]);
    let listed = listed.with_context(|| format!("{} does not list its {what}", guest.display()))?;
    Ok(listed.lines().map(str::to_owned).collect())
}
