//! `sipguard limit list`: the limits of either sort, and of open connections how many there are.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sipguard_common::abi::Opened;

use super::limit::Kind;
use super::list::time;
use crate::address::Source;
use crate::counting;
use crate::output::{Format, rows, table};
use crate::pins::Pins;
use crate::store::{self, Limit, OpenLimit, StoreTables};

pub fn list(pins: &Pins, path: &Path, format: Format) -> Result<()> {
    let open = open_now(pins)?;
    if format == Format::Table && open.is_none() {
        eprintln!("sipguard: not attached: limits take effect with the next `sipguard attach`");
    }
    let lines = store::read(path, |rows| lines(rows, open.as_deref()))?.unwrap_or_default();
    rows(format, "sipguard.limits/1", lines.iter().map(Line::json).collect(), || {
        let columns = ["PER", "OF", "RATE", "BURST", "OPEN", "BY", "SINCE"];
        table(&columns, lines.iter().map(Line::columns))
    })
}

/// Who has how many open, the most first; `None` without an attached interface.
fn open_now(pins: &Pins) -> Result<Option<Vec<(Opened, usize)>>> {
    if !pins.are_attached() {
        return Ok(None);
    }
    pins.check()?;
    counting::senders(pins).map(Some)
}

/// The limits: those of sources first, and those of each trunk side by side.
fn lines(rows: &StoreTables<'_>, open: Option<&[(Opened, usize)]>) -> Result<Vec<Line>> {
    let trunks = rows.trunks()?;
    let number = |name: &str| trunks.iter().find(|trunk| trunk.name == name).map(|trunk| trunk.number);
    let fullest = |trunk: Option<&str>| {
        let number = trunk.map_or(Some(0), number)?;
        open?.iter().find(|(opened, _)| opened.trunk == u32::from(number)).copied()
    };
    let mut lines: Vec<Line> = rows.limits()?.into_iter().map(Line::of_rate).collect();
    for limit in rows.open_limits()? {
        let fullest = fullest(limit.trunk.as_deref());
        lines.push(Line::of_open(limit, fullest));
    }
    lines.sort_by(|one, other| one.trunk.cmp(&other.trunk));
    Ok(lines)
}

/// A limit of either sort.
struct Line {
    trunk: Option<String>,
    of: Kind,
    /// A second, or at once.
    most: u32,
    burst: Option<u32>,
    /// How many the trunk has open, or the source that has the most, and which source that is.
    open: Option<(usize, Option<Source>)>,
    author: String,
    created_ms: i64,
}

impl Line {
    fn of_rate(limit: Limit) -> Line {
        let Limit { trunk, kind, per_second, burst, author, created_ms } = limit;
        Line {
            trunk,
            of: Kind::Rate(kind),
            most: per_second,
            burst: Some(burst),
            open: None,
            author,
            created_ms,
        }
    }

    fn of_open(limit: OpenLimit, fullest: Option<(Opened, usize)>) -> Line {
        let OpenLimit { trunk, most, author, created_ms } = limit;
        let source = fullest.filter(|_| trunk.is_none()).and_then(|(opened, _)| source(&opened));
        let open = Some((fullest.map_or(0, |(_, count)| count), source));
        Line { trunk, of: Kind::Open, most, burst: None, open, author, created_ms }
    }

    fn json(&self) -> Value {
        let per = if self.trunk.is_some() { "trunk" } else { "source" };
        let mut value = json!({
            "per": per, "trunk": self.trunk, "of": self.of.name(), "author": self.author,
            "created": time(self.created_ms),
        });
        if let Some(burst) = self.burst {
            value["per_second"] = self.most.into();
            value["burst"] = burst.into();
        } else {
            value["at_once"] = self.most.into();
        }
        if let Some((count, source)) = &self.open {
            value["open"] = (*count).into();
            value["fullest"] = source.map(|source| source.to_string()).into();
        }
        value
    }

    fn columns(&self) -> Vec<String> {
        let unit = if self.burst.is_some() { "/s" } else { " at once" };
        let open = self.open.as_ref().map(|(count, source)| match source {
            Some(source) => format!("{count} ({source})"),
            None => count.to_string(),
        });
        vec![
            self.trunk.as_ref().map_or("source".to_owned(), |trunk| format!("trunk {trunk}")),
            self.of.name().to_owned(),
            format!("{}{unit}", self.most),
            self.burst.map(|burst| burst.to_string()).unwrap_or_default(),
            open.unwrap_or_default(),
            self.author.clone(),
            time(self.created_ms),
        ]
    }
}

/// The source of a counted connection: a host, or of IPv6 its /64.
fn source(opened: &Opened) -> Option<Source> {
    let bytes = bytemuck::cast(opened.remote);
    Source::from_map(bytes, 128).filter(Source::is_ipv4).or_else(|| Source::from_map(bytes, 64))
}
