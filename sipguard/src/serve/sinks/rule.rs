//! Finds the rule that decided.

use std::path::Path;

use anyhow::Result;

use crate::events::Rules;
use crate::pins::Pins;
use crate::serve::sink::{self, Known};
use crate::tap::Packet;

pub struct Sink(Rules);

impl Sink {
    pub fn new(pins: &Pins, store: &Path) -> Sink {
        Sink(Rules::new(pins, store))
    }
}

impl sink::Sink for Sink {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn take(&mut self, packet: &Packet, known: &mut Known) -> Result<()> {
        known.rule = self.0.of(packet);
        Ok(())
    }
}
