//! What sipguard does: loads the programs for the kernel, pins them, works on the pins, and keeps rules and configuration.
//!
//! There is no daemon. State lives in the kernel's maps; every operation opens the pins, under a lock, after a look at their ABI
//! version. Nothing here prints, ends the process, or knows of a terminal or of HTTP.

#![deny(clippy::exit, clippy::print_stderr, clippy::print_stdout)]
#![warn(unreachable_pub)]

pub mod address;
pub mod area;
mod attach;
pub mod ban_rule;
pub mod bans;
pub mod blocks;
pub mod by_address;
pub mod check;
pub mod claim;
pub mod clock;
pub mod config;
pub mod connections;
pub mod container;
pub mod counters;
pub mod counting;
pub mod denial;
mod destroy;
mod detach;
pub mod disk;
pub mod duration;
pub mod error;
pub mod escape;
pub mod exchange;
pub mod feed;
pub mod fill;
pub mod kernel;
mod layouts;
mod link;
pub mod load;
pub mod lookup;
pub mod maps;
pub mod memory;
pub mod modes;
pub mod named;
pub mod near;
pub mod notice;
pub mod offenders;
pub mod ops;
pub mod pins;
pub mod policy;
pub mod presence;
pub mod protect;
pub mod rate;
mod refuse;
pub mod rule;
mod second_eye;
pub mod senders;
pub mod service;
pub mod settings;
mod ssh;
pub mod status;
pub mod store;
pub mod target;
pub mod trunk;
mod undo;
pub mod unfinished;
mod upgrade;
pub mod view;
