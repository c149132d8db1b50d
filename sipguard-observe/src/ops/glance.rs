//! What `status` says beside the state of the guard: what comes now, from whom, what was stopped last, what is nearly full, and whether `serve` runs.

use std::time::Duration;

use anyhow::Result;
use sipguard_common::{Cause, Reason};
use sipguard_core::by_address::{self, AddressRow};
use sipguard_core::counters::{CounterReading, per_sec};
use sipguard_core::fill::{self, TableFill};
use sipguard_core::ops::Context;
use sipguard_core::ops::status::GuardStatus;
use sipguard_core::protect;
use sipguard_core::store;

use super::events::{Event, Reader, Request};
use super::serve_state;
pub use super::serve_state::ServeState;

/// The time over which what is stopped a second is measured.
pub const SAMPLE: Duration = Duration::from_millis(500);
/// A table of which more than this share is in use is nearly full.
const NEARLY_FULL: f64 = 0.8;

/// What is seen at a glance.
#[derive(Debug)]
pub struct Glance {
    /// Packets a second that were malformed or over a limit, a mean of the last 10 s, as the other views have it.
    pub offending: f64,
    /// Packets a second that are stopped, for whatever reason, and that would be where something only counts; measured over [`SAMPLE`].
    pub per_second: (f64, f64),
    /// Packets since the attach that met a block or a ban, and were looked at no further.
    pub at_block: u64,
    /// Who sends the most of what is malformed or over a limit.
    pub top: Option<AddressRow>,
    /// What was stopped last.
    pub last: Option<Event>,
    /// The tables that are nearly full.
    pub nearly_full: Vec<TableFill>,
    /// Whether `serve` runs.
    pub serve: ServeState,
}

/// Looks.
///
/// # Errors
/// When no guard is attached, or a map can't be read.
pub fn read(host: &Context, status: &GuardStatus) -> Result<Glance> {
    let pins = &host.pins;
    let before = CounterReading::now(pins)?;
    let serve = serve_state::read();
    let trunks = store::all_trunks(&host.store).unwrap_or_default();
    let offenders = by_address::read(pins, &trunks, &protect::protected())?;
    let offending = offenders.iter().map(AddressRow::per_sec).fold(0.0, |sum, one| sum + one);
    let top = offenders.into_iter().next();
    let last = Reader::open(host, Request::default())?.read(Some(1))?.pop();
    let mut tables = fill::read(pins)?;
    let flows = &status.connections;
    tables.push(TableFill { name: "flows", entries: flows.flows, capacity: flows.flows_max });
    tables.retain(is_nearly_full);
    std::thread::sleep(SAMPLE.saturating_sub(before.at.elapsed()));
    let after = CounterReading::now(pins)?;
    let at_block = after.rows.iter().filter(|row| is_of_sender(row.reason)).map(|row| row.packets).sum();
    let (span, rows) = after.since(&before);
    let sum = |is: fn(&sipguard_core::counters::CounterRow) -> bool| {
        per_sec(rows.iter().filter(|row| is(row)).map(|row| row.packets).sum(), span)
    };
    let per_second = (sum(|row| row.action.stops()), sum(|row| row.action.would_stop()));
    Ok(Glance { offending, per_second, at_block, top, last, nearly_full: tables, serve })
}

/// Whether it is the reason of a block or a ban.
fn is_of_sender(reason: Reason) -> bool {
    reason.cause() == Some(Cause::Blocked)
}

/// Tables of what comes by themselves, such as offenders, flows and fragments, let the oldest go when they are full, and ended connections stay until
/// then: of these only flows hold what is needed.
fn is_nearly_full(table: &TableFill) -> bool {
    table.name != "offenders" && table.entries as f64 > f64::from(table.capacity) * NEARLY_FULL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_nearly_full_before_it_is_full() {
        let table = |name, entries| TableFill { name, entries, capacity: 100 };
        assert!(is_nearly_full(&table("flows", 81)) && is_nearly_full(&table("hosts", 100)));
        assert!(!is_nearly_full(&table("flows", 80)) && !is_nearly_full(&table("offenders", 100)));
    }
}
