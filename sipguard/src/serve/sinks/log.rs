//! Writes events into a file, a line of JSON each.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::late::Lazy;
use crate::disk::Floor;
use crate::events::{self, Log};
use crate::serve::sink::{self, EventContext, Notice};
use crate::tap::TapPacket;

pub struct LogSink(Lazy<Log>);

impl LogSink {
    pub fn new(file: &Path, most_bytes: u64, floor: Floor) -> LogSink {
        let file = file.to_owned();
        LogSink(Lazy::new(move || Log::open(&file, most_bytes, floor)))
    }

    fn write(&mut self, event: &Value) -> Result<()> {
        if !self.0.get()?.write(event)? {
            bail!("the disk has no room");
        }
        Ok(())
    }
}

impl sink::Sink for LogSink {
    fn name(&self) -> &'static str {
        "log of events"
    }

    fn take(&mut self, packet: &TapPacket, known: &mut EventContext) -> Result<()> {
        self.write(&events::event(packet, known.rule.as_deref(), known.evidence.as_deref()))
    }

    fn note(&mut self, note: &Notice) -> Result<()> {
        self.write(&json!({
            "timestamp": events::time(note.time), "event_type": "sipguard",
            "sipguard": { "note": note.kind.name(), "text": note.text, "data": note.data },
        }))
    }
}
