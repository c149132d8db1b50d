//! Looks after core dumps.

use anyhow::Result;
use sipguard_core::clock::Clock;
use sipguard_core::service::CoreSettings;
use sipguard_observe::cores::CoreWatch;

use super::lazy::Lazy;
use crate::sink::{self, HostEvent, HostEventData, HostEventKind};

pub(super) struct CoresSink(Lazy<CoreWatch>);

impl CoresSink {
    pub(super) fn new(settings: &CoreSettings) -> CoresSink {
        let settings = settings.clone();
        CoresSink(Lazy::new(move || CoreWatch::new(settings.clone())))
    }
}

impl sink::Sink for CoresSink {
    fn name(&self) -> &'static str {
        "core dumps"
    }

    fn tick(&mut self, now: &Clock) -> Result<Vec<HostEvent>> {
        let time = now.wall_exactly(now.boot_ns);
        let actions = self.0.get()?.poll()?;
        let notice = |action: &sipguard_observe::cores::CoreAction| HostEvent {
            time,
            kind: HostEventKind::Core,
            text: action.to_string(),
            data: HostEventData::Core {
                path: action.path.clone(),
                bytes: action.bytes,
                why: action.why.clone(),
            },
        };
        Ok(actions.iter().map(notice).collect())
    }
}
