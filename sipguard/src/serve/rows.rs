//! The answers in JSON, each with its schema.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sipguard_common::Reason;

use super::attached::AttachedGuard;
use super::history;
use super::shared::ServeShared;
use crate::bans::Bans;
use crate::clock::Clock;
use crate::counters::{self, Action, CounterRow};
use crate::maps;
use crate::offenders::{self, printable};
use crate::redact;
use crate::status;
use crate::store::{self, TrunkRow, ban_row};

/// Rows of an answer at the most.
const OFFENDERS: usize = 100;
const BLOCKS: usize = 200;

#[derive(Default)]
struct Totals {
    received: u64,
    dropped: u64,
    would_drop: u64,
}

impl Totals {
    fn of<'r>(rows: impl IntoIterator<Item = &'r CounterRow>) -> Totals {
        let mut totals = Totals::default();
        for row in rows {
            totals.received += row.packets;
            match row.action {
                Action::Pass => {}
                Action::Drop | Action::Reset => totals.dropped += row.packets,
                Action::WouldDrop | Action::WouldReset => totals.would_drop += row.packets,
            }
        }
        totals
    }

    fn write(&self, value: &mut Value) {
        value["received"] = self.received.into();
        value["dropped"] = self.dropped.into();
        value["would_drop"] = self.would_drop.into();
    }
}

/// What is attached, and how much it saw.
pub fn status(shared: &ServeShared, guard: &AttachedGuard) -> Result<Value> {
    let pins = &shared.pins;
    let counted = counters::read(pins, false)?;
    let interface = |one: &status::InterfaceStatus| {
        let mut value = json!({
            "interface": one.name, "driver": one.driver, "mode": one.mode, "why": one.why,
            "since": one.since.map(|since| since.to_string()),
        });
        Totals::of(counted.iter().filter(|row| row.interface == one.name)).write(&mut value);
        value
    };
    let interfaces = status::interfaces(pins, &Clock::now()?)?;
    let since = interfaces.iter().filter_map(|one| one.since).min();
    let (settings, ports) = (maps::settings(pins)?, maps::ports(pins)?);
    let sizes = shared.slow(guard)?.sizes;
    let mut value = json!({
        "schema": "sipguard.serve-status/1", "version": env!("CARGO_PKG_VERSION"),
        "mode": status::mode(&settings), "profile": status::profile(&settings.limits),
        "ports": ports.sip, "tls_ports": ports.tls, "since": since.map(|since| since.to_string()),
        "interfaces": interfaces.iter().map(interface).collect::<Vec<_>>(),
        "blocks": sizes.blocks, "connections": sizes.connections.live(), "flows": sizes.connections.flows,
        "flows_max": sizes.connections.flows_max,
    });
    Totals::of(&counted).write(&mut value);
    Ok(value)
}

/// By interface and reason.
pub fn counters(shared: &ServeShared, _guard: &AttachedGuard) -> Result<Value> {
    let row = |row: &CounterRow| {
        json!({
            "interface": row.interface, "reason": row.reason.name(), "text": row.reason.text(), "action": row.action.name(),
            "packets": row.packets, "bytes": row.bytes,
        })
    };
    let rows: Vec<Value> = counters::read(&shared.pins, false)?.iter().map(row).collect();
    Ok(json!({ "schema": "sipguard.serve-counters/1", "rows": rows }))
}

/// Who sent most of what was malformed, with the first bytes of it.
pub fn offenders(shared: &ServeShared, _guard: &AttachedGuard) -> Result<Value> {
    let mut all = offenders::read(&shared.pins)?;
    let total = all.len();
    // Of equals the latest first, as they were read.
    all.sort_by_key(|row| std::cmp::Reverse(row.packets));
    all.truncate(OFFENDERS);
    let row = |row: &offenders::OffenderRow| {
        // What goes out over HTTP shows no credentials; a segment may begin within one.
        let mut sample = row.sample.clone();
        redact::overwrite(&mut sample, true);
        json!({
            "address": row.address.to_string(), "port": row.port, "reason": row.reason.name(), "packets": row.packets,
            "first_seen": row.first_seen.map(|seen| seen.to_string()),
            "last_seen": row.last_seen.map(|seen| seen.to_string()),
            "sample": printable(&sample),
        })
    };
    Ok(json!({
        "schema": "sipguard.serve-offenders/1", "total": total, "rows": all.iter().map(row).collect::<Vec<_>>(),
    }))
}

/// The trunks, with what was counted of each.
pub fn trunks(shared: &ServeShared, guard: &AttachedGuard) -> Result<Value> {
    let stored = shared.slow(guard)?.stored.context("the store can't be read, so trunks have no names")?;
    let row = |trunk: &TrunkRow| {
        let counted = counters::of_trunk(&shared.pins, trunk)?;
        let reason = |row: &CounterRow| json!({ "reason": row.reason.name(), "action": row.action.name(), "packets": row.packets });
        let reasons = |desired: fn(Action) -> bool| -> Vec<Value> {
            counted.iter().filter(|row| desired(row.action)).map(reason).collect()
        };
        let mut value = json!({
            "trunk": trunk.name, "peers": trunk.peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "transports": trunk.policy.transports_text(), "methods": trunk.policy.methods_text(),
            "profile": trunk.policy.profile.name(), "mode": trunk.policy.mode.name(), "reason": trunk.reason,
            "stopped": reasons(Action::stops), "would_stop": reasons(Action::would_stop),
        });
        Totals::of(&counted).write(&mut value);
        anyhow::Ok(value)
    };
    let rows = stored.trunks.iter().map(row).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "schema": "sipguard.serve-trunks/1", "rows": rows }))
}

/// The newest blocks and bans, in force or stored for the next attach.
pub fn blocks(shared: &ServeShared) -> Result<Value> {
    let clock = Clock::now()?;
    let now_ms = clock.wall_ms();
    let read = store::read(&shared.store, |rows| {
        let total: i64 = rows.blocks_by_origin(now_ms)?.iter().map(|(_, count)| count).sum();
        Ok((rows.newest_blocks(now_ms, BLOCKS)?, total, rows.bans(&clock)?))
    })?;
    let (rows, total, kept) = read.unwrap_or_default();
    let is_attached = AttachedGuard::attached(&shared.pins)?.is_some();
    let bans = if is_attached { Bans::open(&shared.pins)?.list(clock.boot_ns)? } else { kept };
    let bans: Vec<_> = bans.into_iter().filter(|(_, ban)| ban.is_active(clock.boot_ns)).collect();
    let total = usize::try_from(total).unwrap_or(0) + bans.len();
    let bans = bans.iter().map(|(target, ban)| ("ban", ban_row(*target, ban, &clock)));
    let mut all: Vec<_> = rows.into_iter().map(|row| ("block", row)).chain(bans).collect();
    all.sort_by_key(|(_, row)| std::cmp::Reverse(row.created_ms));
    all.truncate(BLOCKS);
    let time = |ms: i64| jiff::Timestamp::from_second(ms.div_euclid(1000)).map(|time| time.to_string()).ok();
    let row = |(rule, row): &(&str, store::RuleRow)| {
        json!({
            "target": row.target.to_string(), "rule": rule, "mode": row.mode.name(), "source": row.origin,
            "author": row.author, "reason": row.reason, "created": time(row.created_ms), "ends": row.expires_ms.and_then(time),
        })
    };
    Ok(json!({
        "schema": "sipguard.serve-blocks/1", "attached": is_attached, "total": total,
        "rows": all.iter().map(row).collect::<Vec<_>>(),
    }))
}

/// The last events, the latest first.
pub fn events(shared: &ServeShared) -> Value {
    let state = shared.state();
    let rows: Vec<&Value> = state.recent.iter().rev().collect();
    json!({ "schema": "sipguard.serve-events/1", "missed": state.missed, "rows": rows })
}

/// Points of plots.
pub fn history(shared: &ServeShared, hours: i64) -> Result<Value> {
    let path = shared.history.as_deref().context("no history is kept (`--history none`)")?;
    let now = Clock::now()?.wall_ms().div_euclid(1000);
    let mut value = history::plot(path, now, hours)?.json();
    value["schema"] = "sipguard.serve-history/1".into();
    // In the order of their numbers, by which a page gives each its colour.
    value["reasons"] = Reason::ALL.iter().map(|reason| reason.name()).collect();
    Ok(value)
}
