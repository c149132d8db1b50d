//! Finds the rule that decided.

use std::path::Path;

use anyhow::Result;

use crate::events::RuleLookup;
use crate::pins::Pins;
use crate::serve::sink::{self, EventContext};
use crate::tap::TapPacket;

pub struct RuleSink(RuleLookup);

impl RuleSink {
    pub fn new(pins: &Pins, store: &Path) -> RuleSink {
        RuleSink(RuleLookup::new(pins, store))
    }
}

impl sink::Sink for RuleSink {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn take(&mut self, packet: &TapPacket, context: &mut EventContext) -> Result<()> {
        context.rule = self.0.of(packet);
        Ok(())
    }
}
