//! Rust's standard library for another processor: Debian's package of the compiler that is installed, unpacked beside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::architecture::Architecture;
use crate::{
    command::{printed, succeed},
    vm::Apt,
};

const LIBRARY: &str = "libstd-rust-web-dev";

/// A sysroot of rustc for arm64, and for this processor, on which build scripts run.
pub fn ready(directory: &Path) -> Result<PathBuf> {
    let version = printed("dpkg-query", &["--show", "--showformat=${Version}", LIBRARY]);
    let version = version.with_context(|| format!("the package {LIBRARY} is not installed"))?;
    let sysroot = directory.join(format!("sysroot-{}", version.replace(['+', '~', ':'], "-")));
    let done = sysroot.join("done");
    if done.exists() {
        return Ok(sysroot.join("usr"));
    }
    let architecture = Architecture::Arm64;
    let apt = Apt::new(directory, architecture.debian_name())?;
    let package = apt.download(LIBRARY, &version)?;
    succeed(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&sysroot))?;
    fs::write(&done, "").with_context(|| format!("writing {}", done.display()))?;
    Ok(sysroot.join("usr"))
}
