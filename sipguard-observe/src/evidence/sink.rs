//! Evidence as a place where events go.

use std::path::Path;

use anyhow::Result;
use sipguard_core::service::EvidenceLimits;

use super::pcapng::comment;
use super::ring::EvidenceRing;
use crate::redact::RedactedPacket;

/// Keeps the packets of events.
pub struct Evidence {
    ring: EvidenceRing,
    was_stopped: bool,
}

impl Evidence {
    /// Keeps them in a directory.
    ///
    /// # Errors
    /// Those of [`EvidenceRing::open`].
    pub fn open(dir: &Path, limits: EvidenceLimits) -> Result<Evidence> {
        Ok(Evidence { ring: EvidenceRing::open(dir, limits)?, was_stopped: false })
    }

    /// Keeps a packet, with the rule that decided in words. Gives the name of its file, for `sipguard.evidence` of its event; `None` while
    /// the disk has no room.
    ///
    /// # Errors
    /// Once when nothing can be kept any more.
    pub fn take(&mut self, packet: &RedactedPacket, rule: Option<&str>) -> Result<Option<String>> {
        self.ring.write(packet, &comment(packet, rule))
    }

    /// To be called now and then, such as each second. Says so when evidence is kept again.
    pub fn tick(&mut self) -> Option<&'static str> {
        self.ring.tick();
        let goes_on = self.was_stopped && !self.ring.is_stopped();
        self.was_stopped = self.ring.is_stopped();
        goes_on.then_some("evidence is kept again")
    }
}
