//! Packets kept on disk, for whoever has to show afterwards what was sent.

mod pcapng;

pub use pcapng::{PcapWriter, comment};
