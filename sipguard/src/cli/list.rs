//! `sipguard list`

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bytemuck::Zeroable as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use sipguard_common::abi::Rule;

use super::{Span, deny, parse_duration, usage};
use crate::bans::Bans;
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::lookup::{Listed, found};
use crate::output::{Format, rows, table};
use crate::pins::Pins;
use crate::store::parse_origin;
use crate::store::{self, Allowed, Mode, Row, decides};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to list: blocks, allowances, bans, or what is denied [default: all but what is denied]
    #[arg(value_parser = ["block", "allow", "ban", "deny"])]
    what: Option<String>,

    /// Only what this source set
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,

    /// Only what ends within this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expiring: Option<Span>,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    if args.what.as_deref() == Some("deny") {
        if args.origin.is_some() || args.expiring.is_some() {
            return Err(usage(
                "`list deny` takes neither `--source` nor `--expiring`: a denial has neither a source nor an end",
            ));
        }
        return deny::show(pins, path, format);
    }
    let clock = Clock::now()?;
    let mut listed = all(pins, path, &clock)?;
    listed.retain(|one| {
        let ends = |span: Duration| {
            one.row.expires_ms.is_some_and(|end| end <= clock.wall_ms() + span.as_millis() as i64)
        };
        args.what.as_deref().is_none_or(|what| one.word() == what)
            && args.origin.as_ref().is_none_or(|origin| one.row.origin == *origin)
            && args.expiring.is_none_or(|span| span.0.is_none_or(ends))
    });
    if format == Format::Table && !pins.are_attached() {
        eprintln!("sipguard: not attached: these rules take effect with the next `sipguard attach`");
    }
    let values = listed.iter().map(json_of).collect();
    rows(format, "sipguard.blocks/1", values, || {
        let head = ["TARGET", "RULE", "ENDS", "PACKETS", "BYTES", "SOURCE", "BY", "SINCE", "REASON"];
        table(&head, listed.iter().map(|one| line(one, &clock)))
    })
}

/// Every rule of the store that holds, and those of the kernel that the store does not know.
pub fn all(pins: &Pins, path: &Path, clock: &Clock) -> Result<Vec<Listed>> {
    let mut entries = BTreeMap::new();
    let mut bans = None;
    if pins.are_attached() {
        pins.check()?;
        entries.extend(Blocks::open(pins)?.everything()?);
        bans = Some(Bans::open(pins)?.list(clock.boot_ns)?);
        entries.retain(|_, rule| rule.flags != 0 && rule.holds(clock.boot_ns));
    }
    let now_ms = clock.wall_ms();
    let stored = store::read(path, |rows| Ok((rows.all()?, rows.peers()?, rows.bans(clock)?)))?;
    let (mut rows, peers, mut kept) = stored.unwrap_or_default();
    kept.retain(|(_, ban)| ban.holds(clock.boot_ns));
    rows.retain(|row| row.holds(now_ms));
    let allowed = Allowed::of(&rows, peers, now_ms);
    let mut listed = Vec::new();
    let mut known = BTreeSet::new();
    for group in rows.chunk_by(|one, other| one.target == other.target) {
        known.insert(group[0].target);
        let decider = decides(group, &allowed, now_ms);
        listed.extend(group.iter().map(|row| {
            let decides = decider == Some(row);
            let entry = entries.get(&row.target).copied().filter(|_| decides);
            Listed { row: row.clone(), decides, entry, is_ban: false }
        }));
    }
    let strange = entries.into_iter().filter(|(target, _)| !known.contains(target));
    listed.extend(strange.map(|(target, rule)| Listed {
        row: found(target, &rule, clock),
        decides: true,
        entry: Some(rule),
        is_ban: false,
    }));
    let in_force = bans.is_some();
    listed.extend(
        bans.unwrap_or(kept).iter().map(|(target, ban)| Listed::of_ban(*target, ban, clock, in_force)),
    );
    listed.sort_by_key(|one| one.row.target);
    Ok(listed)
}

fn line(one: &Listed, clock: &Clock) -> Vec<String> {
    let row = &one.row;
    let mut rule = one.word().to_owned();
    if row.mode == Mode::Monitor {
        rule += ", counts only";
    }
    if !one.decides {
        rule += ", overruled";
    }
    let entry = one.entry.unwrap_or(Rule::zeroed());
    vec![
        row.target.to_string(),
        rule,
        remaining(row, clock),
        entry.packets.to_string(),
        entry.bytes.to_string(),
        row.origin.clone(),
        row.author.clone(),
        time(row.created_ms),
        row.reason.clone(),
    ]
}

/// The JSON form of a rule. `source` is the address that it is about, `origin` who set it.
pub fn json_of(one: &Listed) -> Value {
    let row = &one.row;
    let entry = one.entry.unwrap_or(Rule::zeroed());
    json!({
        "source": row.target.to_string(),
        "rule": one.word(),
        "mode": row.mode.word(),
        "origin": row.origin,
        "author": row.author,
        "reason": row.reason,
        "created": time(row.created_ms),
        "ends": row.expires_ms.map(time),
        "decides": one.decides,
        "in_force": one.entry.is_some(),
        "packets": entry.packets,
        "bytes": entry.bytes,
    })
}

/// RFC 3339, UTC, to the second.
pub fn time(ms: i64) -> String {
    let second = (ms + 500).div_euclid(1000);
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

/// `never`, or such as `in 14m 3s`.
pub fn remaining(row: &Row, clock: &Clock) -> String {
    let Some(end) = row.expires_ms else { return "never".to_owned() };
    let left = Duration::from_secs(u64::try_from(end - clock.wall_ms()).unwrap_or(0).div_ceil(1000));
    format!("in {}", humantime::format_duration(left))
}
