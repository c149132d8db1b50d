//! Who sent what was malformed or over a limit: by address, port and reason as the kernel keeps it. `by_address` puts it together.

use std::cmp::Reverse;
use std::net::IpAddr;

use anyhow::{Context, Result};
use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_common::abi::{NO_FAULT, Offender, OffenderKey, Tally, names};

use crate::address::unmapped;
use crate::clock::Clock;
use crate::maps::{self, Offenders};
use crate::pins::Pins;

/// One remote address, port and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffenderRow {
    /// Remote address.
    pub address: IpAddr,
    /// Remote port: behind a NAT it tells one device from its neighbours. 0 where the whole address is meant.
    pub port: u16,
    /// Reason.
    pub reason: Reason,
    /// Faulty segments, or packets over the limit.
    pub packets: u64,
    /// How many of them came in the last 10 s.
    pub lately: u64,
    /// How many of them passed, since monitor mode or a check that only counts let them.
    pub passed: u64,
    /// First one.
    pub first_seen: Option<Timestamp>,
    /// Last one.
    pub last_seen: Option<Timestamp>,
    /// Bytes of the first faulty segment, 1024 at the most.
    pub sample: Vec<u8>,
    /// Offset in that segment of the first byte of `sample`.
    pub sample_at: u32,
    /// Offset in that segment of the line at fault, where the kernel knows it; negative where the line began in an earlier segment.
    pub fault_at: Option<i32>,
}

impl OffenderRow {
    fn new(key: &OffenderKey, reason: Reason, value: &Offender, clock: &Clock) -> OffenderRow {
        let len = (value.sample_len as usize).min(value.sample.len());
        OffenderRow {
            address: unmapped(key.address),
            port: u16::from_be_bytes(key.port),
            reason,
            packets: value.packets,
            lately: Tally(value.tally).lately(clock.boot_ns).min(value.packets),
            passed: value.passed,
            first_seen: clock.wall(value.first_ns),
            last_seen: clock.wall(value.last_ns),
            sample: value.sample[..len].to_vec(),
            sample_at: value.sample_at,
            fault_at: Some(value.fault_at).filter(|at| *at != NO_FAULT).map(u32::cast_signed),
        }
    }

    /// Whether it is one port's; else all that came from the address for this reason.
    fn is_of_port(&self) -> bool {
        self.port != 0 || !self.reason.is_malformed()
    }
}

/// What the kernel keeps of offenders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffenderTable {
    /// By address, port and reason, the latest first; what is over a limit has port 0. When the kernel's map is full, the ones that were quiet
    /// longest are gone.
    pub ports: Vec<OffenderRow>,
    /// By address and reason, with port 0: the sums, which stay when entries of ports go.
    pub addresses: Vec<OffenderRow>,
}

/// Every offender that the kernel remembers.
///
/// # Errors
/// When the map can't be read.
pub fn read(pins: &Pins) -> Result<OffenderTable> {
    let clock = Clock::now()?;
    let map: Offenders = maps::open(pins, names::OFFENDERS)?;
    let mut rows = Vec::new();
    for entry in map.iter() {
        let (maps::Plain(key), maps::Plain(value)) = entry.context("reading the offenders")?;
        let Some(reason) = Reason::from_number(key.reason) else { continue };
        rows.push((value.last_ns, OffenderRow::new(&key, reason, &value, &clock)));
    }
    rows.sort_by_key(|(last_ns, row)| (Reverse(*last_ns), row.address, row.port, row.reason.number()));
    let rows = rows.into_iter().map(|(_, row)| row);
    let (ports, addresses): (Vec<_>, Vec<_>) = rows.partition(OffenderRow::is_of_port);
    Ok(OffenderTable { ports, addresses })
}
