//! Writes events into a file, a line of JSON each.

use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;
use sipguard_core::disk::Floor;
use sipguard_observe::events::{self, Log};
use sipguard_observe::redact::RedactedPacket;

use super::lazy::Lazy;
use crate::sink::{self, EventContext, HostEvent, HostEventData};

pub(super) struct LogSink(Lazy<Log>);

impl LogSink {
    pub(super) fn new(file: &Path, most_bytes: u64, floor: Floor) -> LogSink {
        let file = file.to_owned();
        LogSink(Lazy::new(move || Log::open(&file, most_bytes, floor)))
    }

    fn write(&mut self, event: &impl Serialize) -> Result<()> {
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

    fn take(&mut self, packet: &RedactedPacket, context: &mut EventContext) -> Result<()> {
        self.write(&events::event(packet, context.rule.as_deref(), context.evidence.as_deref()))
    }

    fn notice(&mut self, notice: &HostEvent) -> Result<()> {
        self.write(&HostEventLine {
            timestamp: events::time(notice.time),
            event_type: "sipguard",
            sipguard: HostEventFields {
                notice: notice.kind.name(),
                text: notice.text.clone(),
                data: notice.data.clone(),
            },
        })
    }
}

/// A line of something that happened on this host, among those of events.
#[derive(Serialize)]
struct HostEventLine {
    timestamp: String,
    event_type: &'static str,
    sipguard: HostEventFields,
}

#[derive(Serialize)]
struct HostEventFields {
    notice: &'static str,
    text: String,
    data: HostEventData,
}
