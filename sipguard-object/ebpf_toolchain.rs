// Which Rust can compile the XDP program. Included by `build.rs`, which compiles it, and by `xtask`, which installs what
// is missing, so that the two never disagree.

use std::path::PathBuf;
use std::process::Command;

/// Target of the XDP program.
pub const TARGET: &str = "bpfel-unknown-none";

/// A way to compile for [`TARGET`].
pub enum Toolchain {
    /// Debian's `rustc-web` with `libstd-rust-web-dev-bpf`: `core` comes ready for the target.
    Debian,
    /// A rustup nightly with `rust-src`: `core` is built with it.
    Nightly,
}

impl Toolchain {
    /// The first toolchain that is complete, Debian's before a nightly; `None` when there is none.
    pub fn find() -> Option<Toolchain> {
        if debian_core() {
            return Some(Toolchain::Debian);
        }
        nightly_source().then_some(Toolchain::Nightly)
    }

    /// `cargo SUBCOMMAND` for the target, without the marks that an outer cargo leaves in the environment.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self {
            Toolchain::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                // aya-ebpf uses one unstable feature (inline assembly for BPF).
                command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc");
                command
            }
            Toolchain::Nightly => {
                let mut command = Command::new("cargo");
                command.arg("+nightly").env_remove("RUSTC");
                command
            }
        };
        command.arg(subcommand).args(["--package", "sipguard-ebpf", "--target", TARGET, "--profile", "bpf"]);
        if matches!(self, Toolchain::Nightly) {
            command.args(["-Z", "build-std=core"]);
        }
        for name in [
            "CARGO",
            "RUSTUP_TOOLCHAIN",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_MAKEFLAGS",
            "MAKEFLAGS",
            "RUSTDOC",
        ] {
            command.env_remove(name);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut paths: Vec<PathBuf> = std::env::split_paths(&path).collect();
        paths.push(cargo_bin());
        if let Ok(path) = std::env::join_paths(paths) {
            command.env("PATH", path);
        }
        command
    }
}

/// Where `cargo install` puts programs.
pub fn cargo_bin() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.unwrap_or_default().join("bin")
}

fn debian_core() -> bool {
    printed("/usr/bin/rustc", &["--print", "target-libdir", "--target", TARGET])
        .is_some_and(|dir| has_files(&dir))
        && PathBuf::from("/usr/bin/cargo").exists()
}

fn nightly_source() -> bool {
    printed("rustc", &["+nightly", "--print", "sysroot"])
        .is_some_and(|root| PathBuf::from(root).join("lib/rustlib/src/rust/library/core").exists())
}

fn has_files(dir: &str) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn printed(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
