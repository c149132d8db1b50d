//! `sipguard lookup ADDR[:PORT]`: which rule decides, like `ip route get`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use sipguard_common::abi::{PERMANENT, Rule};

use super::usage;
use crate::address::Source;
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::output::{Format, object};
use crate::pins::Pins;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address, with or without a port (rules are by address, so the port changes nothing)
    #[arg(value_name = "ADDR[:PORT]")]
    address: String,
}

pub fn run(pins: &Pins, format: Format, args: &Args) -> Result<()> {
    let address = parse(&args.address)?;
    pins.exist_or_fail()?;
    let _lock = pins.lock(false)?;
    pins.check()?;
    let clock = Clock::now()?;
    let found = Blocks::open(pins)?.deciding(address, &clock)?;
    let rule = found.as_ref().map(|(source, block)| json_of(source, block, &clock));
    let value = json!({
        "address": address.to_string(), "verdict": if rule.is_some() { "block" } else { "pass" }, "rule": rule,
    });
    object(format, "sipguard.lookup/1", value, || match &found {
        None => format!("{address}: no rule decides; its packets go on to the checks of their protocol\n"),
        Some((source, block)) => format!(
            "{address}: blocked by {source}, ends: {}, {} packets ({} bytes) stopped\n",
            remaining(block, &clock),
            block.packets,
            block.bytes
        ),
    })
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

/// The JSON form of a block.
pub fn json_of(source: &Source, block: &Rule, clock: &Clock) -> Value {
    json!({
        "source": source.to_string(),
        "ends": clock.wall(block.expires_ns).map(|end| end.to_string()),
        "packets": block.packets,
        "bytes": block.bytes,
    })
}

/// `never`, or such as `in 14m 3s`.
pub fn remaining(block: &Rule, clock: &Clock) -> String {
    if block.expires_ns == PERMANENT {
        return "never".to_owned();
    }
    let left = Duration::from_secs(block.expires_ns.saturating_sub(clock.boot_ns).div_ceil(1_000_000_000));
    format!("in {}", humantime::format_duration(left))
}
