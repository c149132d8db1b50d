//! Tier `host`: needs no loaded program, no network namespace and no peer. Two modules mount a small tmpfs, which needs root.

mod cli;
mod config;
mod cores;
mod evidence;
mod evidence_ring;
mod explain;
mod operations;
mod pictures;
