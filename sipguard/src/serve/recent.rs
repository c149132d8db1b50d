//! The last events, for whoever asks over HTTP.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::shared::Shared;
use super::sink::Sink;
use crate::offenders::printable;
use crate::tap::Packet;

/// How many are kept.
pub const KEPT: usize = 100;
/// How many bytes of a payload are shown.
const SAMPLE_BYTES: usize = 128;

/// Keeps them.
pub struct Recent(pub Arc<Shared>);

impl Sink for Recent {
    fn name(&self) -> &'static str {
        "recent events"
    }

    fn take(&mut self, packet: &Packet) -> Result<()> {
        let mut state = self.0.state();
        if state.recent.len() == KEPT {
            state.recent.pop_front();
        }
        state.recent.push_back(json_of(packet));
        Ok(())
    }
}

fn json_of(packet: &Packet) -> Value {
    let payload = packet.payload();
    let sample = &payload[..payload.len().min(SAMPLE_BYTES)];
    let (source, destination) = (packet.source(), packet.destination());
    json!({
        "number": packet.number, "time": packet.time.to_string(), "count": packet.count,
        "interface": packet.interface, "trunk": packet.trunk,
        "reason": packet.reason.word(), "text": packet.reason.text(), "action": packet.action.word(),
        "source": source.map(|end| end.ip().to_string()), "source_port": source.map(|end| end.port()),
        "destination": destination.map(|end| end.ip().to_string()), "destination_port": destination.map(|end| end.port()),
        "frame_bytes": packet.frame_len, "sample": printable(sample),
    })
}
