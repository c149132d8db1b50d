//! The programs for the kernel, compiled from `sipguard-ebpf` when this crate is built, and embedded in whatever names it.
//!
//! It is a crate of its own, and only executables name it: a line in the programs compiles them anew, and not the libraries that
//! load them, which take an object as bytes.

/// An ELF file at an address that its readers can take for that of structs.
#[repr(C, align(8))]
struct Aligned<Bytes: ?Sized>(Bytes);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sipguard.bpf.o")));

/// The object: an ELF file with the programs, their maps and their BTF.
pub static OBJECT: &[u8] = &FILE.0;
