//! Who sends how much, below every limit as well: the tallies that the kernel keeps beside the limits.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use sipguard_common::abi::{
    BUCKET_ENTRIES, RATE_KINDS, RateBucket, TALLIED, Tally, UNVERIFIED, VERIFIED, names, trunk_bucket,
};

use crate::address::{Source, mapped};
use crate::clock;
use crate::maps::{self, Plain};
use crate::memory::Memory;
use crate::pins::Pins;
use crate::trunk::TrunkRow;

/// What is tallied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TalliedKind {
    /// SIP messages.
    #[default]
    Messages,
    /// REGISTER requests.
    Register,
    /// INVITE requests.
    Invite,
    /// New TCP connections.
    Connections,
}

impl TalliedKind {
    /// In the order of [`TALLIED`].
    pub const ALL: [TalliedKind; TALLIED.len()] =
        [TalliedKind::Messages, TalliedKind::Register, TalliedKind::Invite, TalliedKind::Connections];

    /// Its name, which is that of its limit.
    #[must_use]
    pub const fn name(self) -> &'static str {
        RATE_KINDS[TALLIED[self as usize]]
    }
}

impl FromStr for TalliedKind {
    type Err = String;

    fn from_str(text: &str) -> Result<TalliedKind, String> {
        let found = TalliedKind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let words = TalliedKind::ALL.map(TalliedKind::name).join(", ");
            format!("`{text}` is nothing that is tallied: write one of {words}")
        })
    }
}

/// A source that is no trunk's, or a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderRow {
    /// The address, of IPv6 its /64; `None` for a trunk.
    pub source: Option<Source>,
    /// The name of the trunk.
    pub trunk: Option<String>,
    /// How much came in the last 10 s, over UDP and TCP together, by [`TalliedKind`].
    pub lately: [u64; TALLIED.len()],
    /// How much came since it is followed: since the attach, or since another source had its place.
    pub totals: [u64; TALLIED.len()],
}

impl SenderRow {
    /// By what it is sorted: how much of a kind came lately, and in all.
    fn rank(&self, kind: TalliedKind) -> (u64, u64) {
        (self.lately[kind as usize], self.totals[kind as usize])
    }

    fn new(source: Option<Source>, trunk: Option<String>) -> SenderRow {
        SenderRow { source, trunk, lately: [0; TALLIED.len()], totals: [0; TALLIED.len()] }
    }

    /// The clock is read after the bucket: a packet that came meanwhile would be of a window that has not begun.
    fn add(&mut self, bucket: &RateBucket) -> Result<()> {
        let now_ns = clock::monotonic_ns()?;
        for kind in 0..TALLIED.len() {
            self.lately[kind] += Tally(bucket.tallies[kind]).lately(now_ns);
            self.totals[kind] += u64::from(bucket.totals[kind]);
        }
        Ok(())
    }
}

/// Who sent anything that is tallied, whoever sent the most of a kind lately first, and of equals in all.
///
/// # Errors
/// When a map can't be read.
pub fn read(pins: &Pins, trunks: &[TrunkRow], kind: TalliedKind) -> Result<Vec<SenderRow>> {
    let buckets: Memory<RateBucket> = Memory::of(pins, names::BUDGETS, BUCKET_ENTRIES)?;
    let mut sources: BTreeMap<[u32; 4], SenderRow> = BTreeMap::new();
    for bucket in (0..BUCKET_ENTRIES).map(|index| buckets.bucket(index)) {
        if bucket.totals != [0; TALLIED.len()] {
            let row =
                sources.entry(bucket.remote).or_insert_with(|| SenderRow::new(source(bucket.remote), None));
            row.add(&bucket)?;
        }
    }
    let mut rows: Vec<SenderRow> = sources.into_values().collect();
    let of_trunks: Array<MapData, Plain<RateBucket>> = maps::open(pins, names::TRUNK_BUDGETS)?;
    for trunk in trunks {
        let mut row = SenderRow::new(None, Some(trunk.name.clone()));
        for class in [UNVERIFIED, VERIFIED] {
            let index = trunk_bucket(u32::from(trunk.number), class);
            let Plain(bucket) = of_trunks.get(&index, 0).context("reading what a trunk sends")?;
            row.add(&bucket)?;
        }
        rows.extend(Some(row).filter(|row| row.totals != [0; TALLIED.len()]));
    }
    rows.sort_by_key(|row| Reverse(row.rank(kind)));
    Ok(rows)
}

/// Leaves those that are among the first `count` of any kind, in the order in which they are.
pub fn keep_first(rows: &mut Vec<SenderRow>, count: usize) {
    let mut kept = vec![false; rows.len()];
    for kind in TalliedKind::ALL {
        // Of what somebody never sent he is not among the first.
        let mut order: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].rank(kind) != (0, 0)).collect();
        order.sort_by_key(|at| Reverse(rows[*at].rank(kind)));
        order.into_iter().take(count).for_each(|at| kept[at] = true);
    }
    let mut kept = kept.into_iter();
    rows.retain(|_| kept.next() == Some(true));
}

/// A host, or of IPv6 its /64.
#[must_use]
pub fn source(remote: [u32; 4]) -> Option<Source> {
    let bytes = bytemuck::cast(remote);
    Source::from_map(bytes, 128).filter(Source::is_ipv4).or_else(|| Source::from_map(bytes, 64))
}

/// The source as which an address is tallied.
#[must_use]
pub fn source_of(address: IpAddr) -> Option<Source> {
    let mut remote: [u32; 4] = bytemuck::cast(mapped(address));
    if address.to_canonical().is_ipv6() {
        remote[2..].fill(0);
    }
    source(remote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_among_the_first_of_any_kind_is_kept() {
        let sender = |number: u64, lately, totals| SenderRow {
            source: format!("192.0.2.{number}").parse().ok(),
            trunk: None,
            lately,
            totals,
        };
        let mut rows: Vec<SenderRow> = (0..100)
            .map(|number| sender(number, [1000 - number, 0, 0, 0], [1000 - number, 0, 0, 0]))
            .collect();
        rows.push(sender(200, [600, 600, 0, 0], [600, 600, 0, 0]));
        rows.push(sender(201, [1, 0, 0, 0], [1, 0, 0, 9]));
        // Equals beyond all bounds.
        rows.extend((202..230).map(|number| sender(number, [0; 4], [1, 0, 1, 0])));
        rows.sort_by_key(|row| Reverse(row.rank(TalliedKind::Messages)));
        keep_first(&mut rows, 20);
        let sources: Vec<String> = rows.iter().map(|row| row.source.unwrap().to_string()).collect();
        assert_eq!(sources.len(), 20 + 1 + 1 + 20, "{sources:?}");
        assert_eq!(sources[0], "192.0.2.0");
        assert_eq!(sources[20..23], ["192.0.2.200", "192.0.2.201", "192.0.2.202"]);
    }

    #[test]
    fn an_address_is_tallied_as_a_host_or_as_its_64() {
        let of = |address: &str| source_of(address.parse().unwrap()).unwrap().to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }

    #[test]
    fn a_kind_is_named_as_its_limit() {
        for kind in TalliedKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(kind.name().to_uppercase().parse(), Ok(kind));
        }
        assert!("BYE".parse::<TalliedKind>().unwrap_err().contains("messages, register"));
    }
}
