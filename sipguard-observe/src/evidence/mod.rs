//! Packets kept on disk, for whoever has to show afterwards what was sent.

mod pcapng;
mod ring;
mod sink;

pub use pcapng::{PcapWriter, comment};
pub use ring::EvidenceRing;
pub use sink::Evidence;
