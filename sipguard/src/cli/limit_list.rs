//! `sipguard limit list`: the limits of either sort, and of open connections how many there are.

use std::path::Path;

use anyhow::Result;
use sipguard_common::abi::CountedConnection;

use crate::address::Source;
use crate::counting;
use crate::output::{Format, rows, table};
use crate::pins::Pins;
use crate::store::{self, OpenLimit, StoreTables};
use crate::view::{self, LimitView, schema};

pub fn list(pins: &Pins, path: &Path, format: Format) -> Result<()> {
    let open = open_now(pins)?;
    if format == Format::Table && open.is_none() {
        eprintln!("sipguard: not attached: limits take effect with the next `sipguard attach`");
    }
    let lines = store::read(path, |rows| lines(rows, open.as_deref()))?.unwrap_or_default();
    rows(format, schema::LIMITS, lines.iter().map(view::json).collect(), || {
        let head = ["PER", "OF", "RATE", "BURST", "OPEN", "BY", "SINCE"];
        table(&head, lines.iter().map(columns))
    })
}

/// Who has how many open, the most first; `None` without an attached interface.
fn open_now(pins: &Pins) -> Result<Option<Vec<(CountedConnection, usize)>>> {
    if !pins.are_attached() {
        return Ok(None);
    }
    pins.check()?;
    counting::senders(pins).map(Some)
}

/// The limits: those of sources first, and those of each trunk side by side.
fn lines(rows: &StoreTables<'_>, open: Option<&[(CountedConnection, usize)]>) -> Result<Vec<LimitView>> {
    let trunks = rows.trunks()?;
    let number = |name: &str| trunks.iter().find(|trunk| trunk.name == name).map(|trunk| trunk.number);
    let fullest = |trunk: Option<&str>| {
        let number = trunk.map_or(Some(0), number)?;
        open?.iter().find(|(opened, _)| opened.trunk == u32::from(number)).copied()
    };
    let mut lines: Vec<LimitView> = rows.limits()?.iter().map(LimitView::of_rate).collect();
    for limit in rows.open_limits()? {
        let fullest = fullest(limit.trunk.as_deref());
        lines.push(open_limit(&limit, fullest));
    }
    lines.sort_by(|one, other| one.trunk.cmp(&other.trunk));
    Ok(lines)
}

/// The cells of a limit.
fn columns(limit: &LimitView) -> Vec<String> {
    let (most, unit) = match limit.at_once {
        Some(most) => (most, " at once"),
        None => (limit.per_second.unwrap_or_default(), "/s"),
    };
    let open = limit.open.as_ref().map(|now| match &now.fullest {
        Some(source) => format!("{} ({source})", now.open),
        None => now.open.to_string(),
    });
    vec![
        limit.trunk.as_ref().map_or("source".to_owned(), |trunk| format!("trunk {trunk}")),
        limit.of.clone(),
        format!("{most}{unit}"),
        limit.burst.map(|burst| burst.to_string()).unwrap_or_default(),
        open.unwrap_or_default(),
        limit.author.clone(),
        limit.created_at.clone(),
    ]
}

/// A limit of open connections, with those of the trunk or of the source that has the most.
fn open_limit(limit: &OpenLimit, fullest: Option<(CountedConnection, usize)>) -> LimitView {
    let source = fullest.filter(|_| limit.trunk.is_none()).and_then(|(opened, _)| source(&opened));
    LimitView::of_open(limit, fullest.map_or(0, |(_, count)| count), source)
}

/// The source of a counted connection: a host, or of IPv6 its /64.
fn source(opened: &CountedConnection) -> Option<Source> {
    let bytes = bytemuck::cast(opened.remote);
    Source::from_map(bytes, 128).filter(Source::is_ipv4).or_else(|| Source::from_map(bytes, 64))
}
