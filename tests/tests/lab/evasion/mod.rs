//! Evasions: whatever a device does to its segments and fragments, the application reads nothing that was not validated in its
//! place, and nothing legal is called malformed.
//!
//! `cargo test -p sipguard-tests --test lab -- --nocapture evasion` prints a table: the technique, what was sent, what the
//! application read and how its connection stands, and what was counted.

mod control;
mod datagrams;
mod discarded;
mod evicted;
mod found;
mod ip;
mod loss;
mod order;
mod unseen;
