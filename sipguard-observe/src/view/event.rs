//! A packet that was stopped, or a notice.

use serde::{Deserialize, Serialize};
use sipguard_core::escape::escaped;

use crate::redact::RedactedPacket;

/// An event, in `/api/events` and `top --once`. `events -o ndjson` and the log have the names of Suricata's EVE instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number in the kernel's ring; null in a notice.
    pub number: Option<u64>,
    /// When it was seen.
    pub seen_at: String,
    /// Packets of its source and reason since their last event, itself included.
    pub packets: u64,
    /// The interface.
    pub interface: Option<String>,
    /// The trunk that it is from.
    pub trunk: Option<String>,
    /// The rule that decided, such as `block 203.0.113.7 (cli)`.
    pub rule: Option<String>,
    /// Name of the file that has its packet.
    pub evidence: Option<String>,
    /// Name of the reason; in a notice `crash`, `pbx` or `core`.
    pub reason: String,
    /// Name of the reason's class; empty in a notice.
    pub class: String,
    /// The reason as a sentence, or the notice.
    pub text: String,
    /// What happened: `drop`, `reset`, `would-drop` or `would-reset`; empty in a notice.
    pub action: String,
    /// Who sent it; null where the headers can't be read.
    pub src_ip: Option<String>,
    /// Its port; 0 where there is none.
    pub src_port: Option<u16>,
    /// Whom it was for.
    pub dst_ip: Option<String>,
    /// Its port; 0 where there is none.
    pub dst_port: Option<u16>,
    /// Length of the frame.
    pub frame_bytes: u32,
    /// The first bytes of the payload, escaped.
    pub sample: String,
}

impl EventView {
    /// Of a packet, with at most so many bytes of its payload.
    #[must_use]
    pub fn new(packet: &RedactedPacket, sample_bytes: usize) -> EventView {
        let payload = packet.payload();
        let sample = &payload[..payload.len().min(sample_bytes)];
        let (src, dst) = (packet.source(), packet.destination());
        EventView {
            number: Some(packet.number),
            seen_at: packet.time.to_string(),
            packets: packet.count,
            interface: Some(packet.interface.clone()),
            trunk: packet.trunk.clone(),
            rule: None,
            evidence: None,
            reason: packet.reason.name().to_owned(),
            class: packet.reason.class().name().to_owned(),
            text: packet.reason.text().to_owned(),
            action: packet.action.name().to_owned(),
            src_ip: src.map(|end| end.ip().to_string()),
            src_port: src.map(|end| end.port()),
            dst_ip: dst.map(|end| end.ip().to_string()),
            dst_port: dst.map(|end| end.port()),
            frame_bytes: packet.frame_len,
            sample: escaped(sample),
        }
    }
}
