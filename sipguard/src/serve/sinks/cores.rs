//! Looks after core dumps.

use anyhow::Result;
use serde_json::json;

use super::late::Late;
use crate::clock::Clock;
use crate::cores::{Guard, Settings};
use crate::serve::sink::{self, Kind, Note};

pub struct Sink(Late<Guard>);

impl Sink {
    pub fn new(settings: &Settings) -> Sink {
        let settings = settings.clone();
        Sink(Late::new(move || Guard::new(settings.clone())))
    }
}

impl sink::Sink for Sink {
    fn name(&self) -> &'static str {
        "core dumps"
    }

    fn tick(&mut self, now: &Clock) -> Result<Vec<Note>> {
        let time = now.wall_exactly(now.boot_ns);
        let actions = self.0.get()?.poll()?;
        let note = |action: &crate::cores::Action| Note {
            time,
            kind: Kind::Core,
            text: action.to_string(),
            data: json!({ "path": action.path, "bytes": action.bytes, "why": action.why }),
        };
        Ok(actions.iter().map(note).collect())
    }
}
