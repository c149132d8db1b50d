//! Compiles the XDP program from source, so that it is embedded in the one binary.

use std::path::Path;

#[path = "ebpf_toolchain.rs"]
mod ebpf_toolchain;

use ebpf_toolchain::{TARGET, Toolchain};

fn main() {
    // Asked now, not compiled in: a build script may have been compiled elsewhere, with another copy of the workspace.
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let root = Path::new(&here).parent().expect("the crate lies in the workspace");
    for path in [
        "sipguard-ebpf",
        "sipguard-common/src",
        "sipguard-common/Cargo.toml",
        "Cargo.lock",
        "Cargo.toml",
        ".cargo/config.toml",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo:rerun-if-changed=ebpf_toolchain.rs");

    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let Some(toolchain) = Toolchain::find() else {
        panic!("no Rust toolchain for {TARGET} was found: run `cargo xtask setup`");
    };
    // A target directory of its own: the outer cargo holds the lock of the other one.
    let target_dir = Path::new(&out).join("ebpf");
    let status = toolchain
        .cargo("build")
        .arg("--locked")
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(root)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            panic!("compiling the XDP program failed ({status}): run `cargo xtask setup` and try again")
        }
        Err(error) => panic!("starting the compiler of the XDP program: {error}: run `cargo xtask setup`"),
    }
    let object = target_dir.join(TARGET).join("bpf").join("sipguard-ebpf");
    std::fs::copy(&object, Path::new(&out).join("sipguard.bpf.o")).expect("copying the XDP object");
}
