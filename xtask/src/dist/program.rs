//! The program that is published: one file that takes nothing of the system it runs on but the kernel.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::{architecture::Architecture, sysroot};
use crate::{
    command::{cargo, root, search_path, succeed},
    ebpf_toolchain::cargo_bin,
};

/// Builds it, and returns where it is.
pub fn build(architecture: Architecture, directory: &Path) -> Result<PathBuf> {
    let (mut command, sysroot) = match architecture {
        Architecture::Amd64 => (cargo(&[]), None),
        Architecture::Arm64 => (debian_cargo(), Some(sysroot::ready(directory)?)),
    };
    let target = architecture.target();
    let build = directory.join("build");
    command.args(["build", "--locked", "--profile", "dist", "--package", "sipguard", "--bin", "sipguard"]);
    command.args(["--target", &target, "--config", &flags(&target, sysroot.as_deref())]);
    command.env("CARGO_TARGET_DIR", &build).env("SIPGUARD_PACKAGED", "1");
    // The program depends on its sources, not on the time of their commit, which would compile all of it anew.
    command.env("SOURCE_DATE_EPOCH", "0");
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let names = target.replace('-', "_");
    // SQLite is C.
    let same = same_paths().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
    command.env(format!("CFLAGS_{names}"), same.join(" "));
    if sysroot.is_some() {
        let compiler = format!("{}-linux-gnu-gcc", architecture.rust_name());
        command.env(format!("CC_{names}"), &compiler);
        command.env(format!("CARGO_TARGET_{}_LINKER", names.to_uppercase()), compiler);
    }
    succeed(&mut command)?;
    let program = build.join(target).join("dist/sipguard");
    ensure!(program.is_file(), "cargo left no {}", program.display());
    Ok(program)
}

/// What rustc is told: to take glibc into the program, and to name files as everywhere.
fn flags(target: &str, sysroot: Option<&Path>) -> String {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(same_paths().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    if let Some(sysroot) = sysroot {
        flags.extend([
            format!("--sysroot={}", sysroot.display()),
            format!("--remap-path-prefix={}=/usr", sysroot.display()),
        ]);
    }
    let flags = flags.iter().map(|flag| format!("\"{flag}\"")).collect::<Vec<_>>();
    format!("target.{target}.rustflags=[{}]", flags.join(", "))
}

/// Directories of this machine, and what they are called in what is published.
fn same_paths() -> [(PathBuf, &'static str); 2] {
    let home = cargo_bin().parent().map(Path::to_path_buf).unwrap_or_default();
    [(root(), "/usr/src/sipguard"), (home, "/usr/src/cargo")]
}

/// Debian's cargo, whose compiler has a library for another processor as a package.
fn debian_cargo() -> Command {
    let mut command = Command::new("/usr/bin/cargo");
    command.current_dir(root()).env("RUSTC", "/usr/bin/rustc").env("PATH", search_path(None));
    // Marks of the cargo that runs this.
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    command
}
