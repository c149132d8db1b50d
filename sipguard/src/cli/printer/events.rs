//! `events`.

use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, Result};
use serde::Serialize;
use sipguard_core::notice::Notice;
use sipguard_core::view;
use sipguard_observe::events::{event, line, stats};
use sipguard_observe::ops::events::{Event, Told};

use super::{Format, notice, rows};
use crate::table::fitted;

const SCHEMA: &str = "sipguard.events/2";

/// Prints events that are there.
pub fn list(format: Format, events: &[Event]) -> Result<()> {
    let value = |one: &Event| event(&one.packet, one.rule.as_deref(), None);
    let values = if format == Format::Table { Vec::new() } else { events.iter().map(value).collect() };
    rows(format, SCHEMA, values, || {
        events.iter().map(|one| line(&one.packet, one.rule.as_deref()) + "\n").collect()
    })
}

/// Prints what comes; false when nobody reads any more.
pub fn follow(format: Format, told: &Told) -> Result<bool> {
    let mut text = match (format, told) {
        (Format::Table, Told::Event(one)) => line(&one.packet, one.rule.as_deref()),
        (Format::Table, Told::Missed { more, .. }) => {
            format!("{more} events came faster than they were read, and are missing here")
        }
        (Format::Json | Format::Ndjson, Told::Event(one)) => {
            marked(&event(&one.packet, one.rule.as_deref(), None))
        }
        (Format::Json | Format::Ndjson, Told::Missed { time, missed, lost, .. }) => {
            marked(&stats(*time, *missed, *lost))
        }
    };
    if format == Format::Table {
        text = fitted(&text).trim_end().to_owned();
    }
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to standard output"),
    }
}

/// Says how many packets are in no event.
pub fn lost(lost: u64) {
    if lost > 0 {
        notice(&Notice(format!("{lost} packets since the attach are in no event: too many came at once")));
    }
}

fn marked(event: &impl Serialize) -> String {
    let mut event = view::json(event);
    event["schema"] = SCHEMA.into();
    event.to_string()
}
