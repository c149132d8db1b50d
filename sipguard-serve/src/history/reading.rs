//! The counters at one moment, and what happened between two of them.

use std::collections::BTreeMap;

use anyhow::Result;
use rusqlite::{Transaction, params};
use sipguard_core::counters::{Action, CounterRow};

use crate::attached::AttachedGuard;

/// One line of a plot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    /// `interface` or `trunk`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// `received`, `dropped` (resets included) or `would-drop`.
    pub what: &'static str,
    /// Why; empty for `received`.
    pub reason: &'static str,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistorySample {
    guard: AttachedGuard,
    at_ns: u64,
    counts: BTreeMap<Series, u64>,
}

impl HistorySample {
    /// Nothing yet, of a guard at a moment (`CLOCK_BOOTTIME`, nanoseconds).
    #[must_use]
    pub(crate) fn new(guard: AttachedGuard, at_ns: u64) -> HistorySample {
        HistorySample { guard, at_ns, counts: BTreeMap::new() }
    }

    /// Adds rows of one kind.
    pub(crate) fn add(&mut self, kind: &'static str, rows: &[CounterRow]) {
        for row in rows {
            let name = || row.interface.clone();
            if row.is_received() {
                let received = Series { kind, name: name(), what: "received", reason: "" };
                *self.counts.entry(received).or_default() += row.packets;
            }
            let what = match row.action {
                Action::Pass => continue,
                Action::Drop | Action::Reset => "dropped",
                Action::WouldDrop | Action::WouldReset => "would-drop",
            };
            let stopped = Series { kind, name: name(), what, reason: row.reason.name() };
            *self.counts.entry(stopped).or_default() += row.packets;
        }
    }

    /// How long it was watched since an earlier reading, in milliseconds, and what changed. `None` when that was another guard's: its
    /// counters began anew at an unknown moment.
    #[must_use]
    pub(crate) fn since(&self, before: &HistorySample) -> Option<(i64, Vec<(Series, u64)>)> {
        if self.guard != before.guard {
            return None;
        }
        let span_ms = i64::try_from(self.at_ns.checked_sub(before.at_ns)? / 1_000_000).ok()?;
        let changed = |(series, now): (&Series, &u64)| {
            let old = before.counts.get(series).copied().unwrap_or(0);
            // A counter that is below what it was began anew in between, and has counted this since.
            let packets = now.checked_sub(old).unwrap_or(*now);
            (packets > 0).then(|| (series.clone(), packets))
        };
        (span_ms > 0).then(|| (span_ms, self.counts.iter().filter_map(changed).collect()))
    }
}

/// Writes what happened in a slot, which may have rows already: of an earlier process, or from before the clock was set back.
pub(super) fn write(tx: &Transaction<'_>, slot: i64, span_ms: i64, counts: &[(Series, u64)]) -> Result<()> {
    let sql = "INSERT INTO spans VALUES (?1, ?2) ON CONFLICT (at) DO UPDATE SET watched_ms = watched_ms + ?2";
    tx.execute(sql, params![slot, span_ms])?;
    let mut named =
        tx.prepare_cached("INSERT OR IGNORE INTO series (kind, name, what, reason) VALUES (?1, ?2, ?3, ?4)")?;
    let mut counted = tx.prepare_cached(
        "INSERT INTO counts SELECT ?5, id, ?6 FROM series WHERE kind = ?1 AND name = ?2 AND what = ?3 AND reason = ?4 \
         ON CONFLICT (at, series) DO UPDATE SET packets = packets + ?6",
    )?;
    for (series, packets) in counts {
        let Series { kind, name, what, reason } = series;
        named.execute(params![kind, name, what, reason])?;
        let packets = i64::try_from(*packets).unwrap_or(i64::MAX);
        counted.execute(params![kind, name, what, reason, slot, packets])?;
    }
    Ok(())
}
