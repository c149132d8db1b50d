//! `vm`: the filter on the kernels of Debian, on every kind of interface, in virtual machines.
//!
//! 1. `apt.rs` is an apt of its own, for the packages of other suites;
//! 2. `kernel.rs` finds, downloads and unpacks kernels with it, and `modules.rs` which modules a machine takes;
//! 3. `initramfs.rs` packs sipguard, the programs it is tried with and the modules;
//! 4. `machine.rs` runs a virtual machine within its time, and reads what the guest reports;
//! 5. `table.rs` is what comes of it.
//!
//! What is tried in a cell is written in `tests/src/guest/`.

mod apt;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod table;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    apt::Apt,
    initramfs::Initramfs,
    kernel::Kernel,
    table::{Outcome, Table},
};
use crate::{
    Usage,
    command::{cargo, printed, succeed, target_dir},
    machine::Purpose,
    setup,
};

/// Kernels that are tried when none is named: of Debian 12, of its backports, and the newest that Debian has.
const KERNELS: [&str; 3] = ["6.1", "6.12", "newest"];
/// What `--short` tries: where frames of several pages come, in either mode, and where frames are small.
const SHORT: [&str; 3] = ["veth", "veth-9000", "generic"];
const SHORT_KERNEL: &str = "6.12";
/// Modules of the interfaces.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_net", "veth", "8021q", "bridge", "bonding"];
/// Programs that the trial calls, beside sipguard.
const PROGRAMS: [&str; 4] = ["ip", "nsenter", "ethtool", "timeout"];

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    kernels: Vec<String>,
    cells: Vec<String>,
    sipguard: Option<PathBuf>,
    short: bool,
}

/// `vm [--kernel 6.1|6.12|newest]... [--mode NAME]... [--short] [--sipguard FILE]`.
pub fn run(args: &[String]) -> Result<()> {
    let mut asked = read(args)?;
    setup::ready(Purpose::Vm)?;
    let build = ["build", "--locked", "--package", "sipguard", "--package", "sipguard-tests", "--bins"];
    succeed(&mut cargo(&build))?;
    let programs = target_dir().join("debug");
    let guest = programs.join("guest");
    let all = cells(&guest)?;
    if asked.kernels.is_empty() {
        let kernels = if asked.short { &[SHORT_KERNEL][..] } else { &KERNELS };
        asked.kernels = kernels.iter().map(|&name| name.to_owned()).collect();
    }
    if asked.cells.is_empty() {
        asked.cells = if asked.short { SHORT.map(str::to_owned).to_vec() } else { all.clone() };
    }
    if let Some(unknown) = asked.cells.iter().find(|name| !all.contains(name)) {
        return Err(Usage(format!("there is no mode `{unknown}`; there are {}", all.join(", "))).into());
    }
    let sipguard = asked.sipguard.unwrap_or_else(|| programs.join("sipguard"));
    ensure!(sipguard.is_file(), "there is no {}: name a program that was built", sipguard.display());

    let directory = target_dir().join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let mut apt = Apt::new(&directory)?;
    let mut table = Table::new(&asked.cells);
    for name in &asked.kernels {
        let kernel = Kernel::get(name, &mut apt, &directory)?;
        println!("vm: Linux {} ({name})", kernel.version);
        let mut initramfs = Initramfs::new();
        initramfs.program(&guest, "init")?;
        initramfs.program(&sipguard, "usr/sbin/sipguard")?;
        for program in PROGRAMS {
            initramfs.program_of_path(program)?;
        }
        modules::add(&mut initramfs, &kernel, &MODULES)?;
        let image = directory.join(format!("initramfs-{}", kernel.version));
        initramfs.write(&image)?;
        let row = try_all(&kernel, &image, &asked.cells, &directory)?;
        fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
        table.add(&kernel.version, row);
    }
    print!("{table}");
    let skipped: Vec<&str> =
        all.iter().filter(|name| !asked.cells.contains(name)).map(String::as_str).collect();
    if !skipped.is_empty() {
        println!("not tried: {}", skipped.join(", "));
    }
    let left: Vec<&str> =
        KERNELS.into_iter().filter(|name| !asked.kernels.iter().any(|one| one == name)).collect();
    if !left.is_empty() {
        println!("kernels not tried: {}", left.join(", "));
    }
    ensure!(table.is_good(), "the filter fails in a cell; the consoles are in {}", directory.display());
    Ok(())
}

/// Runs machines until each cell has an outcome: a kernel that dies in one cell is started again for the rest.
fn try_all(
    kernel: &Kernel,
    image: &std::path::Path,
    cells: &[String],
    directory: &std::path::Path,
) -> Result<Vec<Outcome>> {
    let mut row: Vec<Outcome> = Vec::new();
    while row.len() < cells.len() {
        let left = &cells[row.len()..];
        let console = directory.join(format!("console-{}-{}.log", kernel.version, left[0]));
        let more = machine::run(kernel, image, left, &console)?;
        if more.is_empty() {
            bail!("Linux {} does not even begin: see {}", kernel.version, console.display());
        }
        row.extend(more);
    }
    Ok(row)
}

/// The cells that the guest knows.
fn cells(guest: &std::path::Path) -> Result<Vec<String>> {
    let listed = printed(&guest.to_string_lossy(), &["cells"]);
    let listed = listed.with_context(|| format!("{} does not say its cells", guest.display()))?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn read(args: &[String]) -> Result<Asked> {
    let mut asked = Asked::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| Usage(format!("`vm {word}` takes a value")));
        match word.as_str() {
            "--kernel" => asked.kernels.push(value()?),
            "--mode" => asked.cells.push(value()?),
            "--sipguard" => asked.sipguard = Some(value()?.into()),
            "--short" => asked.short = true,
            _ => return Err(Usage::arguments("vm", args)),
        }
    }
    Ok(asked)
}
