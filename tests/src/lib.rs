//! The lab: network namespaces, a real PBX, real phones and a fragile one, in which sipguard is tested and
//! demonstrated. Everything a guard of this crate starts or makes is gone when the guard is.

pub mod demo;
pub mod fragile;
pub mod interrupt;
pub mod kamailio;
pub mod netns;
pub mod process;
pub mod scratch;
pub mod sipp;
pub mod supervisor;
