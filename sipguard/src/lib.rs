//! The user side of sipguard: loads the XDP program, pins it, and works on the pins.
//!
//! There is no daemon. State lives in the kernel's maps; every verb opens the pins, under a lock, after a look at their ABI
//! version.

pub mod address;
pub mod attach;
pub mod ban_rule;
pub mod bans;
pub mod blocks;
pub mod capture;
pub mod check;
pub mod claim;
pub mod clock;
pub mod config;
pub mod connections;
pub mod cores;
pub mod counters;
pub mod counting;
pub mod crash;
pub mod denial;
pub mod destroy;
pub mod detach;
pub mod disk;
pub mod duration;
pub mod error;
pub mod escape;
pub mod events;
pub mod evidence;
pub mod exchange;
#[cfg(test)]
mod floors;
pub mod header;
pub mod hep;
pub mod interrupt;
pub mod kernel;
pub mod link;
pub mod load;
pub mod lookup;
pub mod maps;
pub mod memory;
pub mod metrics;
mod named;
mod near;
pub mod notice;
pub mod offenders;
pub mod ops;
pub mod pins;
pub mod policy;
pub mod presence;
pub mod protect;
pub mod rate;
pub mod redact;
mod refuse;
pub mod replay;
pub mod rule;
pub mod second_eye;
pub mod senders;
pub mod serve;
pub mod service;
pub mod settings;
pub mod ssh;
pub mod status;
pub mod store;
pub mod table;
pub mod tap;
pub mod target;
pub mod top;
pub mod trunk;
pub mod undo;
pub mod unfinished;
pub mod view;

pub mod cli;
