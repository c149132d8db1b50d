//! Who sends how much, below every limit as well: the tallies that the kernel keeps beside the limits.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use sipguard_common::abi::{
    BUCKET_ENTRIES, RATE_KINDS, RateBucket, TALLIED, Tally, UNVERIFIED, VERIFIED, names, trunk_bucket,
};

use crate::address::Source;
use crate::clock;
use crate::maps::{self, Plain};
use crate::pins::Pins;
use crate::store::TrunkRow;
use crate::tap::Memory;

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
    fn new(source: Option<Source>, trunk: Option<String>) -> SenderRow {
        SenderRow { source, trunk, lately: [0; TALLIED.len()], totals: [0; TALLIED.len()] }
    }

    fn add(&mut self, bucket: &RateBucket, now_ns: u64) {
        for kind in 0..TALLIED.len() {
            self.lately[kind] += Tally(bucket.tallies[kind]).lately(now_ns);
            self.totals[kind] += u64::from(bucket.totals[kind]);
        }
    }
}

/// Who sent anything that is tallied, whoever sent the most of a kind lately first, and of equals in all.
///
/// # Errors
/// When a map can't be read.
pub fn read(pins: &Pins, trunks: &[TrunkRow], kind: TalliedKind) -> Result<Vec<SenderRow>> {
    let now_ns = clock::monotonic_ns()?;
    let buckets: Memory<RateBucket> = Memory::of(pins, names::BUDGETS, BUCKET_ENTRIES)?;
    let mut sources: BTreeMap<[u32; 4], SenderRow> = BTreeMap::new();
    for bucket in (0..BUCKET_ENTRIES).map(|index| buckets.bucket(index)) {
        if bucket.totals != [0; TALLIED.len()] {
            let row =
                sources.entry(bucket.remote).or_insert_with(|| SenderRow::new(source(bucket.remote), None));
            row.add(&bucket, now_ns);
        }
    }
    let mut rows: Vec<SenderRow> = sources.into_values().collect();
    let of_trunks: Array<MapData, Plain<RateBucket>> = maps::open(pins, names::TRUNK_BUDGETS)?;
    for trunk in trunks {
        let mut row = SenderRow::new(None, Some(trunk.name.clone()));
        for class in [UNVERIFIED, VERIFIED] {
            let index = trunk_bucket(u32::from(trunk.number), class);
            let Plain(bucket) = of_trunks.get(&index, 0).context("reading what a trunk sends")?;
            row.add(&bucket, now_ns);
        }
        rows.extend(Some(row).filter(|row| row.totals != [0; TALLIED.len()]));
    }
    rows.sort_by_key(|row| Reverse((row.lately[kind as usize], row.totals[kind as usize])));
    Ok(rows)
}

/// A host, or of IPv6 its /64.
#[must_use]
pub fn source(remote: [u32; 4]) -> Option<Source> {
    let bytes = bytemuck::cast(remote);
    Source::from_map(bytes, 128).filter(Source::is_ipv4).or_else(|| Source::from_map(bytes, 64))
}
