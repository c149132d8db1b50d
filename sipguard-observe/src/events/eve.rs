//! Events under the names of Suricata's EVE, so that what reads EVE reads them: `event_type` is `sipguard`, and what is our own is in an
//! object of that name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use sipguard_core::escape::dotted;

use super::{PAYLOAD_BYTES, Sip, protocol};
use crate::redact::RedactedPacket;

/// A packet that was stopped, or would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EveEvent {
    timestamp: String,
    event_type: &'static str,
    in_iface: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<&'static str>,
    payload: String,
    payload_printable: String,
    sipguard: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    sip: Option<Sip>,
}

/// What the guard decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    action: &'static str,
    reason: &'static str,
    class: &'static str,
    rule: Option<String>,
    trunk: Option<String>,
    packets: u64,
    evidence: Option<String>,
}

/// An event. `rule` is the rule that decided, in words; `evidence` the name of the file that has the packet.
#[must_use]
pub fn event(packet: &RedactedPacket, rule: Option<&str>, evidence: Option<&str>) -> EveEvent {
    let payload = packet.payload();
    let shown = &payload[..payload.len().min(PAYLOAD_BYTES)];
    let (src, dest) = (packet.source(), packet.destination());
    let port = |end: Option<std::net::SocketAddr>| end.map(|end| end.port()).filter(|port| *port != 0);
    EveEvent {
        timestamp: time(packet.time),
        event_type: "sipguard",
        in_iface: packet.interface.clone(),
        src_ip: src.map(|end| end.ip().to_string()),
        src_port: port(src),
        dest_ip: dest.map(|end| end.ip().to_string()),
        dest_port: port(dest),
        proto: Some(protocol(packet)).filter(|proto| !proto.is_empty()),
        payload: STANDARD.encode(shown),
        payload_printable: dotted(shown),
        sipguard: Verdict {
            action: packet.action.name(),
            reason: packet.reason.name(),
            class: packet.reason.class().name(),
            rule: rule.map(str::to_owned),
            trunk: packet.trunk.clone(),
            packets: packet.count,
            evidence: evidence.map(str::to_owned),
        },
        sip: Some(Sip::read(payload)).filter(|sip| !sip.is_empty()),
    }
}

/// What no event tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EveStats {
    timestamp: String,
    event_type: &'static str,
    stats: Stats,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Stats {
    sipguard: Missing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Missing {
    events_missed: u64,
    packets_without_event: u64,
}

/// What is not told by events: `missed` were written over before they were read, `lost` were too many at once for the kernel.
#[must_use]
pub fn stats(now: Timestamp, missed: u64, lost: u64) -> EveStats {
    let sipguard = Missing { events_missed: missed, packets_without_event: lost };
    EveStats { timestamp: time(now), event_type: "stats", stats: Stats { sipguard } }
}

/// RFC 3339 in UTC, to the microsecond.
#[must_use]
pub fn time(time: Timestamp) -> String {
    format!("{time:.6}")
}
