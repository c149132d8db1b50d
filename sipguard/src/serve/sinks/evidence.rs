//! Keeps the packets of events on disk.

use std::path::Path;

use anyhow::{Result, bail};

use super::late::Late;
use crate::clock::Clock;
use crate::evidence::{Evidence, Limits};
use crate::serve::sink::{self, Known, Note};
use crate::tap::Packet;

pub struct Sink(Late<Evidence>);

impl Sink {
    pub fn new(directory: &Path, limits: Limits) -> Sink {
        let directory = directory.to_owned();
        Sink(Late::new(move || Evidence::open(&directory, limits)))
    }
}

impl sink::Sink for Sink {
    fn name(&self) -> &'static str {
        "evidence"
    }

    fn take(&mut self, packet: &Packet, known: &mut Known) -> Result<()> {
        known.evidence = self.0.get()?.take_with(packet, known.rule.as_deref())?;
        if known.evidence.is_none() {
            bail!("the disk has no room");
        }
        Ok(())
    }

    fn tick(&mut self, _now: &Clock) -> Result<Vec<Note>> {
        // That it is kept again shows by the next event.
        let _again = self.0.get()?.tick();
        Ok(Vec::new())
    }
}
