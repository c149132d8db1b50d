//! Sends events to the journal of systemd.

use std::path::Path;

use anyhow::Result;

use super::late::Late;
use crate::events::{JOURNAL, Journal};
use crate::serve::sink::{self, Known};
use crate::tap::Packet;

/// Whether this machine has a journal.
pub fn is_there() -> bool {
    Path::new(JOURNAL).exists()
}

/// Notes get there by the standard error of a unit.
pub struct Sink(Late<Journal>);

impl Sink {
    pub fn new() -> Sink {
        Sink(Late::new(Journal::open))
    }
}

impl sink::Sink for Sink {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn take(&mut self, packet: &Packet, known: &mut Known) -> Result<()> {
        // What a busy journal does not take is lost to it, and to nobody else.
        self.0.get()?.write(packet, known.rule.as_deref()).map(drop)
    }
}
