//! `lint`: formatting, clippy on both targets (the XDP program is checked on the host too), rustdoc, documents, vocabulary and
//! boundaries. All of it runs, whatever fails. `lint --text` does only the last three, which compile nothing.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Usage, boundaries,
    command::{cargo, root, search_path, succeed, target_dir},
    documents::{self, Tree},
    ebpf_toolchain::Toolchain,
    machine::Purpose,
    setup, vocabulary,
};

/// `lint`.
pub fn run(args: &[String]) -> Result<()> {
    let mut failed = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compiled()?,
        ["--text"] => Vec::new(),
        _ => return Err(Usage::arguments("lint", args)),
    };
    let tree = Tree::read(&root())?;
    for (name, complaints) in [
        ("documents", documents::complaints(&tree)?),
        ("vocabulary", vocabulary::complaints(&tree)?),
        ("boundaries", boundaries::complaints(&tree)?),
    ] {
        println!("lint: {name}");
        complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
        if !complaints.is_empty() {
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "to be fixed: {}", failed.join(", "));
    println!("lint: nothing to fix");
    Ok(())
}

/// Names of the checks by cargo that failed.
fn compiled() -> Result<Vec<&'static str>> {
    setup::ready(Purpose::Lint)?;
    let mut clippy = cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--keep-going"]);
    // The fuzz targets as well, which nothing else compiles without their engine.
    clippy.args(["--features", "sipguard-fuzz/targets", "--", "-D", "warnings"]);
    // The verbs that a build may leave out.
    let mut small = cargo(&["clippy", "--locked", "--package", "sipguard", "--all-targets", "--keep-going"]);
    small.args(["--no-default-features", "--", "-D", "warnings"]);
    let mut doc = cargo(&["doc", "--locked", "--workspace", "--no-deps", "--keep-going"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let mut failed = Vec::new();
    for (name, mut command) in [
        ("formatting", cargo(&["fmt", "--all", "--check"])),
        ("clippy", clippy),
        ("clippy of sipguard without features", small),
        ("clippy of the XDP program", ebpf_clippy()?),
        ("rustdoc", doc),
    ] {
        println!("lint: {name}");
        if let Err(error) = succeed(&mut command) {
            eprintln!("lint: {name}: {error:#}");
            failed.push(name);
        }
    }
    Ok(failed)
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
