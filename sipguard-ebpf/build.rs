//! Linker settings of the BPF object.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Zeroing or copying a struct of 24 bytes or more becomes a call to memset/memcpy, which do not exist in the kernel;
    // this keeps the backend from it.
    println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
}
