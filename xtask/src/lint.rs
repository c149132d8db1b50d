//! `lint`: formatting, clippy on both targets (the XDP program is checked on the host too), and the documentation. All of it runs, whatever fails.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Usage,
    command::{cargo, search_path, succeed, target_dir},
    ebpf_toolchain::Toolchain,
    machine::Purpose,
    setup,
};

/// `lint`.
pub fn run(args: &[String]) -> Result<()> {
    if !args.is_empty() {
        return Err(Usage::arguments("lint", args));
    }
    setup::ready(Purpose::Lint)?;

    let mut clippy = cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--keep-going"]);
    // The fuzz targets as well, which nothing else compiles without their engine.
    clippy.args(["--features", "sipguard-fuzz/targets", "--", "-D", "warnings"]);
    let mut doc = cargo(&["doc", "--locked", "--workspace", "--no-deps", "--keep-going"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let mut failed = Vec::new();
    for (name, mut command) in [
        ("formatting", cargo(&["fmt", "--all", "--check"])),
        ("clippy", clippy),
        ("clippy of the XDP program", ebpf_clippy()?),
        ("documentation", doc),
    ] {
        println!("lint: {name}");
        if let Err(error) = succeed(&mut command) {
            eprintln!("lint: {name}: {error:#}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "to be mended: {}", failed.join(", "));
    println!("lint: nothing to mend");
    Ok(())
}

fn ebpf_clippy() -> Result<Command> {
    let toolchain = Toolchain::find().context("no Rust for the XDP program: run `cargo xtask setup`")?;
    let mut command = toolchain.cargo("clippy");
    command.args(["--locked", "--keep-going", "--target-dir"]).arg(target_dir().join("ebpf-clippy"));
    command.args(["--", "-D", "warnings"]);
    if matches!(toolchain, Toolchain::Debian) {
        // Cargo finds `cargo-clippy` in PATH, and rustup's does not know Debian's Rust.
        command.env("PATH", search_path(Some(Path::new("/usr/bin"))));
    }
    Ok(command)
}
