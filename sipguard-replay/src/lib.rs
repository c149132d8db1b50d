//! A capture through the loaded program: what the guard would stop, and why, before it is attached anywhere.
//!
//! 1. `capture.rs` reads pcap and pcapng, `link.rs` makes Ethernet frames of what other links have, `offload.rs` says how long
//!    a packet is that does not say it, `sipguard_observe::header` reads their addresses;
//! 2. `side.rs` says which packets come in to the PBX; what it sends itself no guard of its own would see;
//! 3. `run.rs` gives them to threads by the addresses of a packet, so that what belongs together stays in order;
//! 4. `decide.rs` runs the program on each, and keeps apart what the capture lacks (`missing.rs`);
//! 5. `clients.rs` says whose the connections of balancers are, `explain.rs` finds the line at fault of each malformed message;
//! 6. `tally.rs` counts, `answer.rs` says what it comes to, `report.rs` tells. `operation.rs` is what is asked from outside.
//!
//! The program's clock is the capture's, and it asks no socket of this machine. It has maps of its own, which end with it.

#![deny(clippy::exit, clippy::print_stderr, clippy::print_stdout)]
#![warn(unreachable_pub)]

mod answer;
mod capture;
mod clients;
mod decide;
mod explain;
mod link;
mod missing;
mod offload;
mod operation;
mod report;
mod run;
mod side;
mod tally;
pub mod view;

use std::net::IpAddr;

use sipguard_core::settings::EffectiveSettings;
use sipguard_core::store::DryRun;

pub use self::operation::{Progress, Request, run};
pub use self::report::ReplayReport;

/// What a capture is judged by.
#[derive(Clone, Debug)]
struct ReplayRequest {
    /// Addresses of the PBX; none where they are to be guessed.
    pbx: Vec<IpAddr>,
    /// Most connections that are followed at once.
    flows: u32,
    /// Ports, limits and checks.
    settings: EffectiveSettings,
    /// Trunks, denials and rules.
    rules: DryRun,
    /// Whether the line at fault of each malformed message is told.
    explain: bool,
}

/// Connections that are followed at once when nothing else is said.
pub const DEFAULT_FLOWS: u32 = 1 << 18;
