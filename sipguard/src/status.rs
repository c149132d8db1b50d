//! What is attached, how, and why so.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::errno::Errno;
use sipguard_common::abi::{ACTION_DROP, Flow, FlowKey, Iface, MODE_MONITOR, Settings, names};
use sipguard_common::framer::{Limits, checks};

use crate::attach::{iface_name, own_slots};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::link;
use crate::maps::{self, Flows, Plain, Ports};
use crate::pins::Pins;
use crate::store;

/// One attached interface.
#[derive(Clone, Debug)]
pub struct InterfaceStatus {
    /// Its name when it was attached.
    pub name: String,
    /// Its driver, or the kind of a virtual one; empty when it is gone.
    pub driver: String,
    /// `native`, `generic` or `gone`.
    pub mode: &'static str,
    /// Why that mode.
    pub why: String,
    /// Kernel's number of the program.
    pub program_id: Option<u32>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// The whole guard.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// `enforce` or `monitor`.
    pub mode: &'static str,
    /// What happens to a malformed stream: `reset` or `drop`.
    pub action: &'static str,
    /// Guarded ports.
    pub ports: Ports,
    /// Limits and checks.
    pub limits: Limits,
    /// Blocks that hold.
    pub blocks: usize,
    /// Connections that are followed.
    pub connections: usize,
}

/// Reads the state of the guard.
///
/// # Errors
/// When a map or rtnetlink can't be read.
pub fn read(pins: &Pins, store: &Path) -> Result<Report> {
    let clock = Clock::now()?;
    let settings = maps::settings(pins)?;
    Ok(Report {
        interfaces: interfaces(pins, &clock)?,
        mode: mode(&settings),
        action: if settings.action == ACTION_DROP { "drop" } else { "reset" },
        ports: maps::ports(pins)?,
        limits: settings.limits,
        blocks: blocks(pins, store)?,
        connections: connections(pins)?,
    })
}

/// The attached interfaces.
///
/// # Errors
/// When a map or rtnetlink can't be read.
pub fn interfaces(pins: &Pins, clock: &Clock) -> Result<Vec<InterfaceStatus>> {
    own_slots(pins)?.iter().map(|(_, iface)| interface(iface, clock)).collect()
}

/// How many blocks hold. The store keeps count of the maps that it changes; of others each entry is looked at, which takes half a second for a
/// million.
///
/// # Errors
/// When a map can't be read.
pub fn blocks(pins: &Pins, store: &Path) -> Result<usize> {
    let clock = Clock::now()?;
    match store::blocks_in_force(store, pins, clock.wall_ms()) {
        Ok(Some(blocks)) => Ok(blocks),
        Ok(None) | Err(_) => Blocks::open(pins)?.count(&clock),
    }
}

/// How many connections are followed.
///
/// # Errors
/// When the map can't be read.
pub fn connections(pins: &Pins) -> Result<usize> {
    let flows: Flows = maps::open(pins, names::FLOWS)?;
    count(&flows)
}

/// Word of the checks: `default` or `strict` when they are those of a profile, else `own`.
#[must_use]
pub fn profile(limits: &Limits) -> &'static str {
    match limits.checks & !checks::REFUSE_LF {
        checks::DEFAULT => "default",
        checks::STRICT => "strict",
        _ => "own",
    }
}

/// Word of the mode.
#[must_use]
pub fn mode(settings: &Settings) -> &'static str {
    if settings.mode == MODE_MONITOR { "monitor" } else { "enforce" }
}

fn count(flows: &aya::maps::HashMap<aya::maps::MapData, Plain<FlowKey>, Plain<Flow>>) -> Result<usize> {
    let mut count = 0;
    for key in flows.keys() {
        key.context("counting the connections")?;
        count += 1;
    }
    Ok(count)
}

fn interface(iface: &Iface, clock: &Clock) -> Result<InterfaceStatus> {
    let found = link::by_index(iface.ifindex)?;
    let xdp = found.as_ref().and_then(|found| found.xdp);
    let (mode, why) = match (&found, xdp) {
        (None, _) => ("gone", "the interface is not there any more".to_owned()),
        (Some(_), None) => ("gone", "the program was taken off from outside".to_owned()),
        (Some(_), Some(xdp)) if xdp.native => ("native", "the driver runs XDP".to_owned()),
        (Some(_), Some(_)) if iface.generic_wanted != 0 => ("generic", "asked for".to_owned()),
        (Some(found), Some(_)) => {
            ("generic", format!("driver {} can't: {}", found.driver, errno(iface.native_errno)))
        }
    };
    Ok(InterfaceStatus {
        name: iface_name(iface),
        driver: found.map(|found| found.driver).unwrap_or_default(),
        mode,
        why,
        program_id: xdp.map(|xdp| xdp.program_id),
        since: clock.wall(iface.attached_ns),
    })
}

/// `ENOTSUPP` is the kernel's own, unknown to libc.
fn errno(code: u32) -> String {
    const ENOTSUPP: u32 = 524;
    if code == ENOTSUPP {
        "not supported".to_owned()
    } else {
        Errno::from_raw(code as i32).desc().to_lowercase()
    }
}
