//! Watches the PBX, and reports its crashes.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use sipguard_core::clock::Clock;
use sipguard_core::pins::Pins;
use sipguard_core::service::CrashSettings;
use sipguard_observe::crash::{PbxEvent, Recorder, RecorderNotice};

use super::lazy::Lazy;
use crate::sink::{self, HostEvent, HostEventData, HostEventKind};

pub(super) struct CrashSink(Lazy<Recorder>);

impl CrashSink {
    pub(super) fn new(settings: &CrashSettings, pins: &Pins, store: &Path) -> CrashSink {
        let (settings, pins, store) = (settings.clone(), pins.clone(), store.to_owned());
        CrashSink(Lazy::new(move || Recorder::new(settings.clone(), &pins, &store)))
    }
}

impl sink::Sink for CrashSink {
    fn name(&self) -> &'static str {
        "crash watch"
    }

    fn tick(&mut self, now: &Clock) -> Result<Vec<HostEvent>> {
        let time = now.wall_exactly(now.boot_ns);
        Ok(self.0.get()?.poll()?.into_iter().map(|seen| notice(time, seen)).collect())
    }
}

fn notice(time: Timestamp, seen: RecorderNotice) -> HostEvent {
    match seen {
        RecorderNotice::Seen(PbxEvent::Runs { pid }) => HostEvent {
            time,
            kind: HostEventKind::Pbx,
            text: format!("the PBX runs: process {pid}"),
            data: HostEventData::Runs { pid },
        },
        RecorderNotice::Seen(PbxEvent::Ended { pid, how }) => {
            let text = format!("the PBX ended, and did not crash: process {pid} {how}");
            HostEvent { time, kind: HostEventKind::Pbx, text, data: HostEventData::Ended { pid, how } }
        }
        // A recorder makes a report of it.
        RecorderNotice::Seen(PbxEvent::Crashed(crash)) => {
            let text = format!("the PBX crashed: {}", crash.how);
            HostEvent {
                time,
                kind: HostEventKind::Crash,
                text,
                data: HostEventData::Crashed { how: crash.how },
            }
        }
        RecorderNotice::Reported(report, path) => {
            let text = format!(
                "the PBX crashed; {}. `sipguard crash show` has more: {}",
                report.line(),
                path.display()
            );
            HostEvent {
                time,
                kind: HostEventKind::Crash,
                text,
                data: HostEventData::Reported { report: path, summary: report.line() },
            }
        }
        RecorderNotice::Unwritten(report, error) => {
            let text = format!("the PBX crashed; {}. Its report can't be written: {error}", report.line());
            HostEvent {
                time,
                kind: HostEventKind::Crash,
                text,
                data: HostEventData::Unwritten { error, summary: report.line() },
            }
        }
    }
}
