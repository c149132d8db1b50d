//! What was stopped, as the kernel recorded it, and what becomes of that: events, captures, evidence, metrics, crash reports.
//!
//! Records come from `tap`. What leaves this crate with bytes of a packet has gone by `redact`. Nothing here prints, ends the
//! process, or knows of a terminal or of HTTP, and nothing here changes what is judged, but the quarantine after a crash.

#![deny(clippy::exit, clippy::print_stderr, clippy::print_stdout)]
#![warn(unreachable_pub)]

mod capture;
pub mod cores;
pub mod crash;
pub mod events;
pub mod evidence;
pub mod fault;
pub mod header;
pub mod hep;
pub mod metrics;
pub mod ops;
pub mod redact;
mod sent;
pub mod tap;
pub mod view;
