//! Events: what was stopped, as people and machines read it.
//!
//! `filter.rs` which ones, `sip.rs` what the message says, `rules.rs` which rule decided, `eve.rs` and `line.rs` the forms,
//! `log.rs` and `journal.rs` where they are kept.

mod eve;
mod filter;
mod journal;
mod line;
mod log;
mod rules;
mod sip;

pub use eve::{EveEvent, EveStats, event, stats, time};
pub use filter::{EventFilter, SenderFilter, reason};
pub use journal::{JOURNAL, JournalSocket};
pub use line::line;
pub use log::Log;
pub use rules::RuleLookup;
pub(crate) use rules::uri_of;
pub use sip::Sip;

use crate::tap::TapPacket;

/// Bytes of a payload that events show.
pub(crate) const PAYLOAD_BYTES: usize = 256;

/// The protocol's name, as Suricata has it; empty where it is not known.
#[must_use]
pub fn protocol(packet: &TapPacket) -> &'static str {
    match &packet.header {
        Some(header) if header.tcp => "TCP",
        Some(header) if header.ends.ports != [0, 0] => "UDP",
        _ => "",
    }
}
