//! What happened, as points of a plot.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use sipguard_common::{Cause, Reason};
use sipguard_core::view::{thousandths, time};

use super::{SLOT_SECS, THIN_SECS, file};

/// Points of a plot at the most.
const POINTS: i64 = 720;
/// Lines of a plot at the most; the busiest are kept.
const LINES: usize = 200;
/// A slot is written so many seconds after its end, at the latest.
const LATE_SECS: i64 = 2;

/// Points of plots. `None` stands where nobody watched.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plot {
    /// Seconds since 1970 of the first point's beginning.
    pub from: i64,
    /// Seconds from point to point.
    pub step: i64,
    /// Milliseconds of each point that were watched.
    pub watched_ms: Vec<i64>,
    /// The lines, the busiest first.
    pub lines: Vec<PlotLine>,
    /// How many lines were left out.
    pub left_out: usize,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlotLine {
    /// Kind, name, what and reason, as in [`super::Series`].
    pub series: [String; 4],
    /// Packets a second in the time that was watched.
    pub rates: Vec<Option<f64>>,
}

/// The last hours before a wall time in seconds.
pub(crate) fn plot(path: &Path, now: i64, hours: i64) -> Result<Plot> {
    let secs = hours * 3600;
    let unit = if hours > 24 { THIN_SECS } else { SLOT_SECS };
    let step = (secs + POINTS * unit - 1) / (POINTS * unit) * unit;
    let to = (now - LATE_SECS).div_euclid(unit) * unit;
    let points = secs / step;
    let from = to - points * step;
    let mut plot = Plot { from, step, watched_ms: vec![0; points as usize], lines: Vec::new(), left_out: 0 };
    let Some(db) = file::open_to_read(path)? else { return Ok(plot) };
    let db = db.unchecked_transaction()?;
    let mut statement = db
        .prepare("SELECT (at - ?1) / ?3, sum(watched_ms) FROM spans WHERE at >= ?1 AND at < ?2 GROUP BY 1")?;
    let mut found = statement.query([from, to, step])?;
    while let Some(row) = found.next()? {
        if let Some(watched) = plot.watched_ms.get_mut(row.get::<_, u32>(0)? as usize) {
            *watched = row.get(1)?;
        }
    }
    let mut totals: Vec<(i64, i64)> = Vec::new();
    let mut statement = db.prepare(
        "SELECT series, sum(packets) FROM counts WHERE at >= ?1 AND at < ?2 GROUP BY 1 ORDER BY 2 DESC, 1",
    )?;
    let mut found = statement.query([from, to])?;
    while let Some(row) = found.next()? {
        totals.push((row.get(0)?, row.get(1)?));
    }
    plot.left_out = totals.len().saturating_sub(LINES);
    totals.truncate(LINES);
    let zeros: Vec<Option<f64>> =
        plot.watched_ms.iter().map(|watched| (*watched > 0).then_some(0.0)).collect();
    let mut lines: BTreeMap<i64, Vec<Option<f64>>> =
        totals.iter().map(|(id, _)| (*id, zeros.clone())).collect();
    let mut statement = db.prepare(
        "SELECT series, (at - ?1) / ?3, sum(packets) FROM counts WHERE at >= ?1 AND at < ?2 GROUP BY 1, 2",
    )?;
    let mut found = statement.query([from, to, step])?;
    while let Some(row) = found.next()? {
        let (id, point) = (row.get(0)?, row.get::<_, u32>(1)? as usize);
        let watched = plot.watched_ms.get(point).copied().unwrap_or(0);
        if let Some(Some(rate)) = lines.get_mut(&id).and_then(|rates| rates.get_mut(point)) {
            *rate = row.get::<_, i64>(2)? as f64 * 1000.0 / watched as f64;
        }
    }
    let mut statement = db.prepare("SELECT kind, name, what, reason FROM series WHERE id = ?1")?;
    for (id, _) in totals {
        let series =
            statement.query_row([id], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
        plot.lines.push(PlotLine { series, rates: lines.remove(&id).unwrap_or_default() });
    }
    Ok(plot)
}

/// The document of a plot, of which `rows.rs` makes an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PlotView {
    /// When the first point begins.
    pub begins_at: String,
    /// Seconds from point to point.
    pub step_seconds: i64,
    /// How many points there are.
    pub points: usize,
    /// Milliseconds of each point that were watched.
    pub watched_ms: Vec<i64>,
    /// The lines, the busiest first.
    pub series: Vec<SeriesView>,
    /// How many lines were left out.
    pub left_out: usize,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SeriesView {
    /// `interface` or `trunk`.
    pub kind: String,
    /// Name of the interface or trunk.
    pub name: String,
    /// `received`, `dropped` or `would-drop`.
    pub what: String,
    /// Name of the reason; empty for what was received.
    pub reason: String,
    /// What that stops a packet for; null for what was received.
    pub cause: Option<&'static str>,
    /// To thousandths; null where nobody watched.
    pub packets_per_second: Vec<Option<f64>>,
}

/// The cause of a reason's name; a reason of another version has none.
fn cause(name: &str) -> Option<&'static str> {
    Reason::ALL.iter().find(|reason| reason.name() == name).and_then(|reason| reason.cause()).map(Cause::name)
}

impl Plot {
    /// The document.
    #[must_use]
    pub(crate) fn view(&self) -> PlotView {
        let line = |PlotLine { series: [kind, name, what, reason], rates }: &PlotLine| SeriesView {
            kind: kind.clone(),
            name: name.clone(),
            what: what.clone(),
            reason: reason.clone(),
            cause: cause(reason),
            packets_per_second: rates.iter().map(|rate| rate.map(thousandths)).collect(),
        };
        PlotView {
            begins_at: time(self.from * 1000),
            step_seconds: self.step,
            points: self.watched_ms.len(),
            watched_ms: self.watched_ms.clone(),
            series: self.lines.iter().map(line).collect(),
            left_out: self.left_out,
        }
    }
}
