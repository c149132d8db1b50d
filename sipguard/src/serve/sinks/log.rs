//! Writes events into a file, a line of JSON each.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::lazy::Lazy;
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

    fn take(&mut self, packet: &TapPacket, context: &mut EventContext) -> Result<()> {
        self.write(&events::event(packet, context.rule.as_deref(), context.evidence.as_deref()))
    }

    fn notice(&mut self, notice: &Notice) -> Result<()> {
        self.write(&json!({
            "timestamp": events::time(notice.time), "event_type": "sipguard",
            "sipguard": { "note": notice.kind.name(), "text": notice.text, "data": notice.data },
        }))
    }
}
