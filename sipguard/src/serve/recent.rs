//! The last events, for whoever asks over HTTP.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::shared::ServeShared;
use super::sink::{EventContext, Notice, Sink};
use crate::events;
use crate::offenders::printable;
use crate::tap::TapPacket;

/// How many are kept.
pub const KEPT: usize = 100;
/// How many bytes of a payload are shown.
const SAMPLE_BYTES: usize = 128;

/// Keeps them.
pub struct Recent(pub Arc<ServeShared>);

impl Sink for Recent {
    fn name(&self) -> &'static str {
        "recent events"
    }

    fn take(&mut self, packet: &TapPacket, context: &mut EventContext) -> Result<()> {
        self.keep(json_of(packet, context));
        Ok(())
    }

    fn notice(&mut self, notice: &Notice) -> Result<()> {
        *self.0.state().notices.entry(notice.kind.name()).or_default() += 1;
        self.keep(json!({
            "time": notice.time.to_string(), "count": 1, "reason": notice.kind.name(), "text": notice.text, "action": "", "source": "",
            "sample": notice.text,
        }));
        Ok(())
    }
}

impl Recent {
    fn keep(&self, event: Value) {
        let mut state = self.0.state();
        if state.recent.len() == KEPT {
            state.recent.pop_front();
        }
        state.recent.push_back(event);
    }
}

fn json_of(packet: &TapPacket, context: &EventContext) -> Value {
    let payload = events::payload(packet);
    let sample = &payload[..payload.len().min(SAMPLE_BYTES)];
    let (source, destination) = (packet.source(), packet.destination());
    json!({
        "number": packet.number, "time": packet.time.to_string(), "count": packet.count,
        "interface": packet.interface, "trunk": packet.trunk, "rule": context.rule, "evidence": context.evidence,
        "reason": packet.reason.name(), "text": packet.reason.text(), "action": packet.action.name(),
        "source": source.map(|end| end.ip().to_string()), "source_port": source.map(|end| end.port()),
        "destination": destination.map(|end| end.ip().to_string()), "destination_port": destination.map(|end| end.port()),
        "frame_bytes": packet.frame_len, "sample": printable(sample),
    })
}
