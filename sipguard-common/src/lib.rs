//! What the kernel side and the user side of sipguard share: the SIP framer ([`framer`]), the list of [`Reason`]s, the layout of
//! every map ([`abi`]) and the header fields on the [`wire`].
//!
//! Pure code: no clock, no I/O, no allocation, no `unsafe`, no eBPF library. Time and bytes come in as arguments, so the
//! same functions run in the XDP program, in the tests, under the fuzzer and in offline replay.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
mod cause;
pub mod framer;
mod reason;
mod senders;
pub mod wire;

pub use cause::Cause;
pub use reason::{Class, Reason, When};
