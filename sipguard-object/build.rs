//! Compiles the XDP program from source, so that it is embedded in the one binary.

use std::path::Path;

#[path = "ebpf_toolchain.rs"]
mod ebpf_toolchain;
#[path = "elf.rs"]
mod elf;

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
    println!("cargo:rerun-if-changed=elf.rs");
    // `cargo xtask dist` sets it.
    println!("cargo:rerun-if-env-changed=SIPGUARD_PACKAGED");
    let packaged = std::env::var_os("SIPGUARD_PACKAGED").is_some();

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
        .args(packaged.then(|| format!("--config={}", same_paths(root))))
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
    let object = std::fs::read(&object).expect("reading the XDP object");
    let object = elf::without_dwarf(&object).expect("the XDP object is an ELF file");
    std::fs::write(Path::new(&out).join("sipguard.bpf.o"), object).expect("writing the XDP object");
}

/// A setting of cargo by which BTF names source files as if they lay elsewhere, so that the object is the same wherever it was built. The
/// compiler can't read them there, so the verifier's log has their names and the numbers of lines, and no text; that is for developers.
fn same_paths(root: &Path) -> String {
    let home = ebpf_toolchain::cargo_bin();
    let home = home.parent().expect("the directory of programs has a parent");
    let flags = [(root, "/usr/src/sipguard"), (home, "/usr/src/cargo")];
    let flags = flags.map(|(from, to)| format!("\"--remap-path-prefix={}={to}\"", from.display()));
    format!("target.{TARGET}.rustflags=[{}]", flags.join(", "))
}
