//! The last events, for whoever asks over HTTP.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Result;
use sipguard_observe::redact::RedactedPacket;
use sipguard_observe::view::EventView;

use super::shared::ServeShared;
use super::sink::{EventContext, HostEvent, Sink};

/// How many are kept.
pub(crate) const KEPT: usize = 100;
/// How many notices are kept beside them.
const NOTES: usize = 20;
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
        let event = EventView {
            seen_at: notice.time.to_string(),
            packets: 1,
            reason: notice.kind.name().to_owned(),
            text: notice.text.clone(),
            sample: notice.text.clone(),
            ..EventView::default()
        };
        keep(&mut self.0.state().notes, event.clone(), NOTES);
        self.keep(event);
        Ok(())
    }
}

impl Recent {
    fn keep(&self, event: EventView) {
        keep(&mut self.0.state().recent, event, KEPT);
    }
}

/// Keeps the last ones.
fn keep(queue: &mut VecDeque<EventView>, event: EventView, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(event);
}
