//! An event as one line for people.

use sipguard_core::escape::dotted;

use super::{Sip, protocol};
use crate::redact::RedactedPacket;

/// Longest part of a message that is shown, in bytes.
const SHOWN: usize = 80;

/// The line, without its end: time, from whom to whom, verdict and reason, and how the message begins.
#[must_use]
pub fn line(packet: &RedactedPacket, rule: Option<&str>) -> String {
    let end = |end: Option<std::net::SocketAddr>| match end {
        Some(end) if end.port() == 0 => end.ip().to_string(),
        Some(end) => end.to_string(),
        None => "?".to_owned(),
    };
    let mut line = format!(
        "{:.3} {} {} > {} {}{} {}",
        packet.time,
        if packet.interface.is_empty() { "?" } else { &packet.interface },
        end(packet.source()),
        end(packet.destination()),
        protocol(packet).to_lowercase() + if protocol(packet).is_empty() { "" } else { " " },
        packet.action.name(),
        packet.reason.name(),
    );
    if let Some(trunk) = &packet.trunk {
        line += &format!(" trunk {trunk}");
    }
    if packet.count > 1 {
        line += &format!(" x{}", packet.count);
    }
    if let Some(rule) = rule {
        line += &format!(" [{rule}]");
    }
    let mut lines =
        packet.payload().split(|byte| matches!(byte, b'\r' | b'\n')).filter(|line| !line.is_empty());
    if let Some(first) = lines.next() {
        line += &format!(" \"{}\"", dotted(&first[..first.len().min(SHOWN)]));
    }
    if let Some(from) = Sip::read(packet.payload()).from {
        line += &format!(" From: {from}");
    }
    line
}
