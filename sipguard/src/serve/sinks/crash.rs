//! Watches the PBX, and reports its crashes.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use super::late::Late;
use crate::clock::Clock;
use crate::crash::{Event, Recorder, Settings, Told};
use crate::pins::Pins;
use crate::serve::sink::{self, Kind, Note};

pub struct Sink(Late<Recorder>);

impl Sink {
    pub fn new(settings: &Settings, pins: &Pins, store: &Path) -> Sink {
        let (settings, pins, store) = (settings.clone(), pins.clone(), store.to_owned());
        Sink(Late::new(move || Recorder::new(settings.clone(), &pins, &store)))
    }
}

impl sink::Sink for Sink {
    fn name(&self) -> &'static str {
        "crash watch"
    }

    fn tick(&mut self, now: &Clock) -> Result<Vec<Note>> {
        let time = now.wall_exactly(now.boot_ns);
        Ok(self.0.get()?.poll()?.into_iter().map(|told| note(time, told)).collect())
    }
}

fn note(time: Timestamp, told: Told) -> Note {
    match told {
        Told::Seen(Event::Runs { pid }) => Note {
            time,
            kind: Kind::Pbx,
            text: format!("the PBX runs: process {pid}"),
            data: json!({ "pid": pid }),
        },
        Told::Seen(Event::Ended { pid, how }) => {
            let text = format!("the PBX ended, and did not crash: process {pid} {how}");
            Note { time, kind: Kind::Pbx, text, data: json!({ "pid": pid, "how": how }) }
        }
        // A recorder makes a report of it.
        Told::Seen(Event::Crashed(crash)) => {
            let text = format!("the PBX crashed: {}", crash.how);
            Note { time, kind: Kind::Crash, text, data: json!({ "how": crash.how }) }
        }
        Told::Reported(report, path) => {
            let text = format!(
                "the PBX crashed; {}. `sipguard crash show` has more: {}",
                report.line(),
                path.display()
            );
            Note { time, kind: Kind::Crash, text, data: json!({ "report": path, "summary": report.line() }) }
        }
        Told::Unwritten(report, error) => {
            let text = format!("the PBX crashed; {}. Its report can't be written: {error}", report.line());
            Note { time, kind: Kind::Crash, text, data: json!({ "error": error, "summary": report.line() }) }
        }
    }
}
