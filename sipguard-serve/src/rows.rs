//! The answers in JSON, each with its schema: the documents of [`sipguard_core::view`].

use anyhow::{Context as _, Result};
use serde::Serialize;
use sipguard_core::by_address;
use sipguard_core::clock::Clock;
use sipguard_core::counters;
use sipguard_core::ops::overview;
use sipguard_core::senders::{self, TalliedKind};
use sipguard_core::status;
use sipguard_core::view::{CounterView, RuleView, SenderView, StatusView, TrunkTraffic, schema};
use sipguard_observe::view::{AddressView, EventView};

use super::attached::AttachedGuard;
use super::history::{self, PlotView};
use super::shared::ServeShared;

/// Rows of an answer at the most.
const OFFENDERS: usize = 100;
const SENDERS: usize = 20;
const BLOCKS: usize = 200;

/// Rows under the name of their schema.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rows<T> {
    schema: &'static str,
    rows: Vec<T>,
}

/// The same, with the number of all rows, of which these are the first.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FirstRows<T> {
    schema: &'static str,
    total: usize,
    rows: Vec<T>,
}

impl<T> Rows<T> {
    /// Those of no guard.
    pub(crate) fn none(schema: &'static str) -> Rows<T> {
        Rows { schema, rows: Vec::new() }
    }
}

impl<T> FirstRows<T> {
    /// Those of no guard.
    pub(crate) fn none(schema: &'static str) -> FirstRows<T> {
        FirstRows { schema, total: 0, rows: Vec::new() }
    }
}

/// What is attached, and how much it saw.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    schema: &'static str,
    #[serde(flatten)]
    status: StatusView,
}

/// The newest blocks and bans.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Blocks {
    attached: bool,
    #[serde(flatten)]
    rows: FirstRows<RuleView>,
}

/// The last events.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Events {
    schema: &'static str,
    missed: u64,
    rows: Vec<EventView>,
}

/// Points of plots.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct History {
    schema: &'static str,
    #[serde(flatten)]
    plot: PlotView,
}

/// What is attached, and how much it saw.
pub(crate) fn status(shared: &ServeShared, guard: &AttachedGuard) -> Result<Status> {
    let pins = &shared.pins;
    let counted = counters::read(pins, false)?;
    let sizes = shared.slow(guard)?.sizes;
    let status = status::with_sizes(pins, &shared.store, sizes.blocks, sizes.connections, &counted)?;
    Ok(Status { schema: schema::STATUS, status: StatusView::with_traffic(&status, &counted) })
}

/// By interface and reason.
pub(crate) fn counters(shared: &ServeShared, _guard: &AttachedGuard) -> Result<Rows<CounterView>> {
    let counted = counters::read(&shared.pins, false)?;
    Ok(Rows { schema: schema::COUNTERS, rows: counted.iter().map(CounterView::of_interface).collect() })
}

/// Who sent what was malformed or over a limit, by address: the most in the last 10 s first, then in all.
pub(crate) fn offenders(shared: &ServeShared, guard: &AttachedGuard) -> Result<FirstRows<AddressView>> {
    let slow = shared.slow(guard)?;
    let trunks = slow.stored.as_ref().map_or(&[][..], |stored| &stored.trunks);
    let mut all = by_address::read(&shared.pins, trunks, &slow.machine)?;
    let total = all.len();
    all.truncate(OFFENDERS);
    Ok(FirstRows { schema: schema::ADDRESSES, total, rows: all.iter().map(AddressView::redacted).collect() })
}

/// Who sent the most of a kind lately, below every limit as well.
pub(crate) fn senders(
    shared: &ServeShared,
    guard: &AttachedGuard,
    kind: TalliedKind,
) -> Result<FirstRows<SenderView>> {
    let stored = shared.slow(guard)?.stored;
    let trunks = stored.as_ref().map_or(&[][..], |stored| &stored.trunks);
    let mut all = senders::read(&shared.pins, trunks, kind)?;
    let total = all.len();
    all.truncate(SENDERS);
    Ok(FirstRows { schema: schema::SENDERS, total, rows: all.iter().map(SenderView::of_row).collect() })
}

/// The trunks, with what was counted of each.
pub(crate) fn trunks(shared: &ServeShared, guard: &AttachedGuard) -> Result<Rows<TrunkTraffic>> {
    let stored = shared.slow(guard)?.stored.context("the store can't be read, so trunks have no names")?;
    let row = |trunk| anyhow::Ok(TrunkTraffic::new(trunk, &counters::of_trunk(&shared.pins, trunk)?));
    let rows = stored.trunks.iter().map(row).collect::<Result<Vec<_>>>()?;
    Ok(Rows { schema: schema::TRUNKS, rows })
}

/// The newest blocks and bans, in force or stored for the next attach.
pub(crate) fn blocks(shared: &ServeShared) -> Result<Blocks> {
    let attached = AttachedGuard::attached(&shared.pins)?.is_some();
    let newest = overview::newest_blocks(&shared.host(), attached, BLOCKS)?;
    let rows = FirstRows { schema: schema::BLOCKS, total: newest.total, rows: newest.rows };
    Ok(Blocks { attached, rows })
}

/// The last events, the latest first.
pub(crate) fn events(shared: &ServeShared) -> Events {
    let state = shared.state();
    let rows = state.recent.iter().rev().cloned().collect();
    Events { schema: schema::RECENT_EVENTS, missed: state.missed, rows }
}

/// Points of plots.
pub(crate) fn history(shared: &ServeShared, hours: i64) -> Result<History> {
    let path = shared.options.history.0.as_deref().context("no history is kept (`--history none`)")?;
    let now = Clock::now()?.wall_ms().div_euclid(1000);
    let plot = history::plot(path, now, hours)?.view();
    Ok(History { schema: schema::HISTORY, plot })
}
