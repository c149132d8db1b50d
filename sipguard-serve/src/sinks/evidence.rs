//! Keeps the packets of events on disk.

use std::path::Path;

use anyhow::{Result, bail};
use sipguard_core::clock::Clock;
use sipguard_core::service::EvidenceLimits;
use sipguard_observe::evidence::Evidence;
use sipguard_observe::redact::RedactedPacket;

use super::lazy::Lazy;
use crate::sink::{self, EventContext, HostEvent};

pub(super) struct EvidenceSink(Lazy<Evidence>);

impl EvidenceSink {
    pub(super) fn new(directory: &Path, limits: EvidenceLimits) -> EvidenceSink {
        let directory = directory.to_owned();
        EvidenceSink(Lazy::new(move || Evidence::open(&directory, limits)))
    }
}

impl sink::Sink for EvidenceSink {
    fn name(&self) -> &'static str {
        "evidence"
    }

    fn take(&mut self, packet: &RedactedPacket, context: &mut EventContext) -> Result<()> {
        context.evidence = self.0.get()?.take(packet, context.rule.as_deref())?;
        if context.evidence.is_none() {
            bail!("the disk has no room");
        }
        Ok(())
    }

    fn tick(&mut self, _now: &Clock) -> Result<Vec<HostEvent>> {
        // That it is kept again shows by the next event.
        let _again = self.0.get()?.tick();
        Ok(Vec::new())
    }
}
