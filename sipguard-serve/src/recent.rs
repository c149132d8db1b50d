//! The last events, for whoever asks over HTTP.

use std::sync::Arc;

use anyhow::Result;
use sipguard_observe::redact::RedactedPacket;
use sipguard_observe::view::EventView;

use super::shared::ServeShared;
use super::sink::{EventContext, HostEvent, Sink};

/// How many are kept.
pub(crate) const KEPT: usize = 100;
/// How many bytes of a payload are shown.
const SAMPLE_BYTES: usize = 128;

/// Keeps them.
pub(crate) struct Recent(pub Arc<ServeShared>);

impl Sink for Recent {
    fn name(&self) -> &'static str {
        "recent events"
    }

    fn take(&mut self, packet: &RedactedPacket, context: &mut EventContext) -> Result<()> {
        let EventContext { rule, evidence } = context.clone();
        self.keep(EventView { rule, evidence, ..EventView::new(packet, SAMPLE_BYTES) });
        Ok(())
    }

    fn notice(&mut self, notice: &HostEvent) -> Result<()> {
        *self.0.state().notices.entry(notice.kind.name()).or_default() += 1;
        self.keep(EventView {
            seen_at: notice.time.to_string(),
            packets: 1,
            reason: notice.kind.name().to_owned(),
            text: notice.text.clone(),
            sample: notice.text.clone(),
            ..EventView::default()
        });
        Ok(())
    }
}

impl Recent {
    fn keep(&self, event: EventView) {
        let mut state = self.0.state();
        if state.recent.len() == KEPT {
            state.recent.pop_front();
        }
        state.recent.push_back(event);
    }
}
