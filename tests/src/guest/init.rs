//! The first process: a machine with file systems, modules and `lo`, and its power off.

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    kmod::init_module,
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
    unistd::chroot,
};

use crate::{application::wait_until, process::output};

/// Directory of the modules, beside a file with their names in the order in which they can be loaded.
const MODULES: &str = "/modules";

/// The disk of a machine with systemd.
const DISK: &str = "/dev/vda";
/// Where it is mounted before it is everything.
const ROOT: &str = "/root";

/// Hands over to systemd on the disk; returns only when that failed.
///
/// # Errors
/// Why it failed.
pub fn hand_over() -> Result<()> {
    mount_new("devtmpfs", "/dev")?;
    load_modules()?;
    wait_until("the disk is there", || Ok(Path::new(DISK).exists()))?;
    fs::create_dir_all(ROOT).with_context(|| format!("making {ROOT}"))?;
    let nothing = None::<&str>;
    mount(Some(DISK), ROOT, Some("ext4"), MsFlags::empty(), nothing).context("mounting the disk")?;
    std::env::set_current_dir(ROOT).with_context(|| format!("entering {ROOT}"))?;
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing).context("moving the disk to /")?;
    chroot(".").context("making the disk everything")?;
    std::env::set_current_dir("/").context("entering the disk")?;
    Err(Command::new("/lib/systemd/systemd").exec()).context("starting systemd")
}

/// Makes the bare kernel, which has a /proc, a machine.
///
/// # Errors
/// When something of it can't be had.
pub fn start() -> Result<()> {
    for (kind, place) in [("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")] {
        mount_new(kind, place)?;
    }
    mount_new("bpf", "/sys/fs/bpf")?;
    if !Path::new("/dev/fd").exists() {
        symlink("/proc/self/fd", "/dev/fd").context("linking /dev/fd")?;
    }
    load_modules()?;
    output(Command::new("ip").args(["link", "set", "lo", "up"])).map(drop)
}

/// Mounts a new file system of this kind.
///
/// # Errors
/// Those of mount(2), with the place.
pub fn mount_new(kind: &str, place: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
    mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting {place}"))
}

/// Loads every module that the initramfs brings.
///
/// # Errors
/// When the kernel refuses one that it does not have.
pub fn load_modules() -> Result<()> {
    let order = fs::read_to_string(format!("{MODULES}/order")).context("reading the order of modules")?;
    for name in order.lines() {
        let module = fs::read(format!("{MODULES}/{name}")).with_context(|| format!("reading {name}"))?;
        match init_module(&module, c"") {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("loading the module {name}")),
        }
    }
    Ok(())
}

/// What follows `key=` on the kernel's command line, at its commas.
///
/// # Errors
/// When the command line can't be read.
pub fn words(key: &str) -> Result<Vec<String>> {
    let line = fs::read_to_string("/proc/cmdline").context("reading the kernel's command line")?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    Ok(value.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default())
}

/// Ends the machine; returns only when that failed.
pub fn power_off() {
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("guest: the machine does not power off: {error}");
}
