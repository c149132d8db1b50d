//! The packages on a fresh Debian 12, in a directory and in namespaces of its own. What is tried is in `tests/src/packaged/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::{Release, architecture::Architecture, deb, empty, program, rpm};
use crate::{
    command::{cargo, is_root, succeed, target_dir},
    machine::Purpose,
    setup,
    vm::place,
};

/// The oldest Debian whose kernel can run the filter.
const SUITE: &str = "bookworm";

/// Tries what was made.
pub fn run(release: &Release, out: &Path) -> Result<()> {
    ensure!(is_root(), "a Debian in a directory takes root: become root");
    setup::ready(Purpose::DistTrial)?;
    let here = program::build(Architecture::Amd64, &release.directory)?;
    let newer = Release { version: format!("{}.1", release.version), ..release.clone() };
    let higher = &empty(&release.directory.join("newer"))?;
    newer.pack(Architecture::Amd64, &here, &here, higher)?;
    succeed(&mut cargo(&[
        "build",
        "--locked",
        "--package",
        "sipguard",
        "--package",
        "sipguard-tests",
        "--bins",
    ]))?;
    let debian = copy(&release.directory)?;
    let mut trial = Command::new(target_dir().join("debug/packaged"));
    trial.arg(&debian);
    for name in [deb::name, rpm::name] {
        trial.args(
            [(out, release), (higher.as_path(), &newer)]
                .map(|(at, of)| at.join(name(of, Architecture::Amd64))),
        );
    }
    trial.arg(&here);
    succeed(&mut trial)?;
    fs::remove_dir_all(&debian)?;
    println!("dist: tried on Debian 12: good");
    Ok(())
}

/// A copy of a Debian that was never started, made the first time.
fn copy(directory: &Path) -> Result<PathBuf> {
    let fresh = directory.join("debian");
    if !fresh.join("done").exists() {
        println!("dist: making a Debian 12 in {}", fresh.display());
        empty(&fresh)?;
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", SUITE]).arg(fresh.join("root")).arg(place("Debian")?);
        succeed(debootstrap.stdout(std::process::Stdio::null()))?;
        fs::write(fresh.join("done"), "")?;
    }
    let copy = directory.join("trial");
    let _none = fs::remove_dir_all(&copy);
    succeed(Command::new("cp").arg("--archive").arg(fresh.join("root")).arg(&copy))?;
    Ok(copy)
}
