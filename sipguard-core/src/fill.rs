//! How full the tables of the kernel are: entries of each, ended ones among them, and what there is room for.

use anyhow::{Context, Result};
use aya::maps::{HashMap, LpmTrie, MapData, MapError, MapInfo};
use sipguard_common::abi::{
    Ban, CountedConnection, Datagram, DeviceKey, FragmentKey, Offender, OffenderKey, Rule, names,
};
use sipguard_common::framer::MATCH_KEY_BYTES;

use crate::address::Mapped;
use crate::maps::{self, Plain};
use crate::pins::Pins;

/// One table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFill {
    /// Its name in [`names`], in lower case.
    pub name: &'static str,
    /// Its entries.
    pub entries: usize,
    /// How many it has room for.
    pub capacity: u32,
}

/// Every table but that of flows, which [`crate::connections::Connections`] counts. Of a million rules it takes half a second.
///
/// # Errors
/// When a map can't be read.
pub fn read(pins: &Pins) -> Result<Vec<TableFill>> {
    Ok(vec![
        hash::<Mapped, Plain<Rule>>(pins, "hosts", names::HOSTS)?,
        trie::<Mapped>(pins, "prefixes", names::PREFIXES)?,
        hash::<Plain<DeviceKey>, Plain<Rule>>(pins, "devices", names::DEVICES)?,
        hash::<[u8; MATCH_KEY_BYTES], Plain<Rule>>(pins, "identities", names::IDENTITIES)?,
        trie::<[u8; MATCH_KEY_BYTES]>(pins, "user_agents", names::USER_AGENTS)?,
        hash::<Plain<DeviceKey>, Plain<Ban>>(pins, "bans", names::BANS)?,
        hash::<u64, Plain<CountedConnection>>(pins, "sockets", names::SOCKETS)?,
        hash::<Plain<FragmentKey>, Plain<Datagram>>(pins, "fragments", names::FRAGMENTS)?,
        hash::<Plain<OffenderKey>, Plain<Offender>>(pins, "offenders", names::OFFENDERS)?,
    ])
}

fn hash<K: aya::Pod, V: aya::Pod>(pins: &Pins, name: &'static str, map: &str) -> Result<TableFill> {
    let opened: HashMap<MapData, K, V> = maps::open(pins, map)?;
    fill(pins, name, map, opened.keys().map(|key| key.map(drop)))
}

fn trie<K: aya::Pod>(pins: &Pins, name: &'static str, map: &str) -> Result<TableFill> {
    let opened: LpmTrie<MapData, K, Plain<Rule>> = maps::open(pins, map)?;
    fill(pins, name, map, opened.keys().map(|key| key.map(drop)))
}

/// A table that changes while it is counted may be begun anew by the kernel, so it is never counted beyond its room.
fn fill(
    pins: &Pins,
    name: &'static str,
    map: &str,
    keys: impl Iterator<Item = Result<(), MapError>>,
) -> Result<TableFill> {
    let info = MapInfo::from_pin(pins.map(map)).with_context(|| format!("reading the size of {map}"))?;
    let capacity = info.max_entries();
    let mut entries = 0;
    for key in keys.take(capacity as usize) {
        key.with_context(|| format!("counting {map}"))?;
        entries += 1;
    }
    Ok(TableFill { name, entries, capacity })
}
