//! Sends events to the journal of systemd.

use std::path::Path;

use anyhow::Result;
use sipguard_observe::events::{JOURNAL, JournalSocket};
use sipguard_observe::redact::RedactedPacket;

use super::lazy::Lazy;
use crate::sink::{self, EventContext};

/// Whether this machine has a journal.
pub(super) fn is_there() -> bool {
    Path::new(JOURNAL).exists()
}

/// Notes get there by the standard error of a unit.
pub(super) struct JournalSink(Lazy<JournalSocket>);

impl JournalSink {
    pub(super) fn new() -> JournalSink {
        JournalSink(Lazy::new(JournalSocket::open))
    }
}

impl sink::Sink for JournalSink {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn take(&mut self, packet: &RedactedPacket, context: &mut EventContext) -> Result<()> {
        // What a busy journal does not take is lost to it, and to nobody else.
        self.0.get()?.write(packet, context.rule.as_deref()).map(drop)
    }
}
