//! Who sent what is at fault, as the guard and a replay tell it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sipguard_common::Reason;

use crate::escape::{escaped, hex};

/// A sender and a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// Address of the sender.
    pub src_ip: String,
    /// Port of the sender: behind a NAT it tells one device from its neighbours. 0 for what is over a limit of the address.
    pub src_port: u16,
    /// Name of the reason.
    pub reason: String,
    /// Name of the reason's class.
    pub class: String,
    /// Packets with this reason.
    pub packets: u64,
    /// The first bytes of the first one, 64 at the most, escaped.
    pub sample: String,
    /// The same as hexadecimal digits.
    pub sample_hex: String,
}

/// Bytes of a sample that are shown.
const SAMPLE_BYTES: usize = 64;

impl SourceView {
    /// Of a sender whose first packet began like this.
    #[must_use]
    pub fn new(from: SocketAddr, reason: Reason, packets: u64, sample: &[u8]) -> SourceView {
        let sample = &sample[..sample.len().min(SAMPLE_BYTES)];
        SourceView {
            src_ip: from.ip().to_string(),
            src_port: from.port(),
            reason: reason.name().to_owned(),
            class: reason.class().name().to_owned(),
            packets,
            sample: escaped(sample),
            sample_hex: hex(sample),
        }
    }
}
