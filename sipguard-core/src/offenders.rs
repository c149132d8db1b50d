//! Who sent what was malformed.

use std::net::IpAddr;

use anyhow::{Context, Result};
use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_common::abi::names;

use crate::address::unmapped;
use crate::clock::Clock;
use crate::maps::{self, Offenders};
use crate::pins::Pins;

/// One remote address, port and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffenderRow {
    /// Remote address.
    pub address: IpAddr,
    /// Remote port: behind a NAT it tells one device from its neighbours.
    pub port: u16,
    /// Reason.
    pub reason: Reason,
    /// Faulty segments.
    pub packets: u64,
    /// First one.
    pub first_seen: Option<Timestamp>,
    /// Last one.
    pub last_seen: Option<Timestamp>,
    /// The first bytes of the first faulty segment, 64 at the most.
    pub sample: Vec<u8>,
}

/// Every offender that the kernel remembers, the latest first.
///
/// # Errors
/// When the map can't be read.
pub fn read(pins: &Pins) -> Result<Vec<OffenderRow>> {
    let clock = Clock::now()?;
    let map: Offenders = maps::open(pins, names::OFFENDERS)?;
    let mut rows = Vec::new();
    for entry in map.iter() {
        let (maps::Plain(key), maps::Plain(value)) = entry.context("reading the offenders")?;
        let Some(reason) = Reason::from_number(key.reason) else { continue };
        let len = (value.sample_len as usize).min(value.sample.len());
        rows.push((
            value.last_ns,
            OffenderRow {
                address: unmapped(key.address),
                port: u16::from_be_bytes(key.port),
                reason,
                packets: value.packets,
                first_seen: clock.wall(value.first_ns),
                last_seen: clock.wall(value.last_ns),
                sample: value.sample[..len].to_vec(),
            },
        ));
    }
    rows.sort_by_key(|(last_ns, row)| {
        (std::cmp::Reverse(*last_ns), row.address, row.port, row.reason.number())
    });
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}
