//! Events under the names of Suricata's EVE, so that what reads EVE reads them: `event_type` is `sipguard`, and what is our own stands in an
//! object of that name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{PAYLOAD_BYTES, Sip, payload, printable, protocol};
use crate::tap::TapPacket;

/// An event. `rule` is the rule that decided, in words; `evidence` the name of the file that has the packet.
#[must_use]
pub fn event(packet: &TapPacket, rule: Option<&str>, evidence: Option<&str>) -> Value {
    let payload = payload(packet);
    let shown = &payload[..payload.len().min(PAYLOAD_BYTES)];
    let (source, destination) = (packet.source(), packet.destination());
    let mut event = json!({
        "timestamp": time(packet.time),
        "event_type": "sipguard",
        "in_iface": packet.interface,
        "payload": STANDARD.encode(shown),
        "payload_printable": printable(shown),
        "sipguard": {
            "verdict": packet.action.name(),
            "reason": packet.reason.name(),
            "rule": rule,
            "trunk": packet.trunk,
            "count": packet.count,
            "evidence": evidence,
        },
    });
    for (end, [address, port]) in [(source, ["src_ip", "src_port"]), (destination, ["dest_ip", "dest_port"])]
    {
        let Some(end) = end else { continue };
        event[address] = end.ip().to_string().into();
        if end.port() != 0 {
            event[port] = end.port().into();
        }
    }
    if !protocol(packet).is_empty() {
        event["proto"] = protocol(packet).into();
    }
    if let Some(sip) = Sip::read(&payload).json() {
        event["sip"] = sip;
    }
    event
}

/// What is not told by events: `missed` were written over before they were read, `lost` were too many at once for the kernel.
#[must_use]
pub fn stats(now: Timestamp, missed: u64, lost: u64) -> Value {
    json!({
        "timestamp": time(now), "event_type": "stats",
        "stats": { "sipguard": { "events_missed": missed, "packets_without_event": lost } },
    })
}

/// RFC 3339 in UTC, to the microsecond.
#[must_use]
pub fn time(time: Timestamp) -> String {
    format!("{time:.6}")
}
