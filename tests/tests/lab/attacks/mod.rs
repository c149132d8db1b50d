//! Attacks by somebody who has read the code: each is tried wherever the PBX may be, as the defaults of the guard are. Judged is only what the
//! application behind the guard reads, and that legal traffic beside gets through.
//!
//! `cargo test -p sipguard-tests --test lab -- --nocapture attacks` prints a table: the attack, what was tried, where, and what came of it.

mod bans;
mod budgets;
mod damaged;
mod dialled;
mod ends;
mod forged;
mod judged;
mod lengths;
mod ports;
mod queues;
mod reuse;
mod stage;
mod syns;
mod trust;
