//! Sends messages that were stopped to Homer.

use anyhow::Result;
use sipguard_core::service::Homer;
use sipguard_observe::hep::Exporter;
use sipguard_observe::redact::RedactedPacket;

use super::lazy::Lazy;
use crate::sink::{self, EventContext};

pub(super) struct HomerSink(Lazy<Exporter>);

impl HomerSink {
    pub(super) fn new(homer: &Homer) -> HomerSink {
        let homer = homer.clone();
        HomerSink(Lazy::new(move || Exporter::new(homer.clone())))
    }
}

impl sink::Sink for HomerSink {
    fn name(&self) -> &'static str {
        "Homer"
    }

    fn take(&mut self, packet: &RedactedPacket, _context: &mut EventContext) -> Result<()> {
        self.0.get()?.send(packet).map(drop)
    }
}
