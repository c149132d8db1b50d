//! `sipguard lookup ADDR[:PORT]`: which rule decides and which do not, like `ip route get`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::list::{Listed, found, json_of, remaining, time};
use super::usage;
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::store::{self, Allowed, Mode, Row, Verb, decides};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address, with or without a port (rules are by address, so the port changes nothing)
    #[arg(value_name = "ADDR[:PORT]")]
    address: String,
}

/// A rule about the address that does not decide, and why.
struct Overruled {
    row: Row,
    why: String,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    let address = parse(&args.address)?;
    pins.exist_or_fail()?;
    let _lock = pins.lock(false)?;
    pins.check()?;
    let clock = Clock::now()?;
    let now_ms = clock.wall_ms();
    let stored =
        store::read(path, |rows| Ok((rows.around(address)?, Allowed::of(&rows.allowing()?, now_ms))))?;
    let (mut rows, allowed) = stored.unwrap_or_default();
    rows.retain(|row| row.holds(now_ms));
    let decider = Blocks::open(pins)?.deciding(address, &clock)?.map(|(target, entry)| {
        let group: Vec<Row> = rows.iter().filter(|row| row.target == target).cloned().collect();
        let row = decides(&group, &allowed, now_ms).cloned().unwrap_or_else(|| found(target, &entry, &clock));
        Listed { row, decides: true, entry: Some(entry) }
    });
    rows.retain(|row| decider.as_ref().is_none_or(|decider| decider.row != *row));
    let others: Vec<Overruled> = rows
        .into_iter()
        .map(|row| Overruled { why: why(&row, decider.as_ref().map(|decider| &decider.row), &allowed), row })
        .collect();
    let stops = |one: &Listed| one.row.verb == Verb::Block && one.row.mode == Mode::Enforce;
    let value = json!({
        "address": address.to_string(),
        "verdict": if decider.as_ref().is_some_and(stops) { "block" } else { "pass" },
        "rule": decider.as_ref().map(json_of),
        "overruled": others.iter().map(json_of_overruled).collect::<Vec<_>>(),
    });
    object(format, "sipguard.lookup/1", value, || text(address, decider.as_ref(), &others, &clock))
}

/// Why a rule does not decide.
fn why(row: &Row, decider: Option<&Row>, allowed: &Allowed) -> String {
    let Some(decider) = decider else {
        return "not in force; the next change of a rule takes it up".to_owned();
    };
    if row.target == decider.target {
        return match (row.verb == decider.verb, row.mode == decider.mode) {
            (false, _) => format!("the operator's last word is {}", decider.verb.word()),
            (true, false) => "it only counts, and another one stops".to_owned(),
            (true, true) => "another one of the same address ends later".to_owned(),
        };
    }
    match allowed.around(&row.target) {
        Some(around) if !row.is_operators() => {
            format!("nothing automatic touches what is allowed ({around})")
        }
        _ => "a longer prefix decides".to_owned(),
    }
}

fn json_of_overruled(one: &Overruled) -> Value {
    let mut value = json_of(&Listed { row: one.row.clone(), decides: false, entry: None });
    value["why"] = Value::from(one.why.clone());
    value
}

fn text(address: IpAddr, decider: Option<&Listed>, others: &[Overruled], clock: &Clock) -> String {
    let mut text = match decider {
        None => format!("{address}: no rule decides; its packets go on to the checks of their protocol\n"),
        Some(one) => {
            let row = &one.row;
            let (did, counted) = match (row.verb, row.mode) {
                (Verb::Allow, _) => ("allowed", "let pass"),
                (Verb::Block, Mode::Enforce) => ("blocked", "stopped"),
                (Verb::Block, Mode::Monitor) => ("not stopped, only counted", "counted"),
            };
            let mut text = format!("{address}: {did} by {}, ends: {}", row.target, remaining(row, clock));
            if let (Verb::Block, Some(entry)) = (row.verb, one.entry) {
                text += &format!(", {} packets ({} bytes) {counted}", entry.packets, entry.bytes);
            }
            text + "\n" + &said(row)
        }
    };
    for one in others {
        let row = &one.row;
        text += &format!(
            "overruled: {} {}, ends: {}: {}\n",
            row.verb.word(),
            row.target,
            remaining(row, clock),
            one.why
        );
        text += &said(row);
    }
    text
}

/// Who said a rule, when, and why.
fn said(row: &Row) -> String {
    let mut text = format!("  source {}, by {}, since {}", row.origin, row.author, time(row.created_ms));
    if !row.reason.is_empty() {
        text += &format!(", reason: {}", row.reason);
    }
    text + "\n"
}

fn parse(text: &str) -> Result<IpAddr> {
    let address =
        text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    let address = address.map_err(|_| {
        usage(format!(
            "`{text}` is no address: write 203.0.113.7, 203.0.113.7:5060, 2001:db8::7 or [2001:db8::7]:5060"
        ))
    })?;
    Ok(address.to_canonical())
}
