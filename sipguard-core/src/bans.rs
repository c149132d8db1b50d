//! Bans as the kernel has them: it makes them by itself. `store` keeps them over a reboot, and lifts them.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, MapData, MapError};
use sipguard_common::abi::{Ban, COARSE_SHIFT, DeviceKey, RateBucket, VERIFIED, bucket_slots, names};
use sipguard_common::framer::HashKeys;

use crate::address::{Source, mapped};
use crate::maps::{self, Plain};
use crate::pins::Pins;
use crate::target::{Device, Target};

/// The maps.
pub struct Bans {
    bans: HashMap<MapData, Plain<DeviceKey>, Plain<Ban>>,
    budgets: Array<MapData, Plain<RateBucket>>,
    keys: HashKeys,
}

impl Bans {
    /// Opens them.
    ///
    /// # Errors
    /// When a map can't be opened.
    pub fn open(pins: &Pins) -> Result<Bans> {
        let keys = maps::settings(pins)?.hash_keys;
        Ok(Bans { bans: maps::open(pins, names::BANS)?, budgets: maps::open(pins, names::BUDGETS)?, keys })
    }

    /// Every device and address that is banned at `now_ns` (`CLOCK_BOOTTIME`, nanoseconds), in order.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn list(&self, now_ns: u64) -> Result<Vec<(Target, Ban)>> {
        let mut all = Vec::new();
        for entry in self.bans.iter() {
            let (Plain(key), Plain(ban)) = entry.context("reading the bans")?;
            if ban.is_active(now_ns) {
                all.extend(target(&key).map(|target| (target, ban)));
            }
        }
        all.sort_by_key(|(target, _)| *target);
        Ok(all)
    }

    /// The ban that stops a device or an address at `now_ns`: its own, or that of its address.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn about(
        &self,
        address: IpAddr,
        device: Option<Device>,
        now_ns: u64,
    ) -> Result<Option<(Target, Ban)>> {
        for target in device.map(Target::from).into_iter().chain([whole(address)]) {
            if let Some(ban) = self.get(&target)?.filter(|ban| ban.is_active(now_ns)) {
                return Ok(Some((target, ban)));
            }
        }
        Ok(None)
    }

    /// What is known of a target, banned or not.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn get(&self, target: &Target) -> Result<Option<Ban>> {
        let Some(key) = key(target) else { return Ok(None) };
        match self.bans.get(&Plain(key), 0) {
            Ok(Plain(ban)) => Ok(Some(ban)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("reading the bans"),
        }
    }

    /// Sets what is known of a target, or forgets it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&mut self, target: &Target, ban: Option<Ban>) -> Result<()> {
        let (Some(key), Some(words)) = (key(target).map(Plain), words(target)) else { return Ok(()) };
        let Some(ban) = ban else {
            return match self.bans.remove(&key) {
                Err(MapError::KeyNotFound) => Ok(()),
                outcome => outcome.with_context(|| format!("lifting the ban of {target}")),
            };
        };
        self.bans.insert(key, Plain(ban), 0).with_context(|| format!("banning {target}"))?;
        // The kernel looks for bans only where this mark says so.
        let (_, [home, _]) = bucket_slots(words, VERIFIED, &self.keys);
        let Plain(mut budget) = self.budgets.get(&home, 0).context("reading the budgets")?;
        budget.banned = budget.banned.max((ban.until_ns >> COARSE_SHIFT) as u32 + 1);
        self.budgets.set(home, Plain(budget), 0).context("writing the budgets")
    }
}

/// An address as bans know it: an IPv6 address is one with all of its /64.
#[must_use]
pub fn whole(address: IpAddr) -> Target {
    let host = Source::from(address);
    let wide = if host.is_ipv4() { None } else { Source::network(mapped(address), 64) };
    wide.unwrap_or(host).into()
}

/// `None` for what is no address: it is never banned.
fn key(target: &Target) -> Option<DeviceKey> {
    match target {
        Target::Device(device) => Some(device.key()),
        _ => target.source().map(|net| DeviceKey { address: net.bytes(), port: [0; 2], pad: [0; 2] }),
    }
}

fn target(key: &DeviceKey) -> Option<Target> {
    let device = Device::from_key(key);
    if key.port != [0; 2] {
        return Some(device.into());
    }
    let bits = if device.host().is_ipv4() { 128 } else { 64 };
    Source::from_map(key.address, bits).map(Target::from)
}

/// The form in which the kernel hashes a source.
fn words(target: &Target) -> Option<[u32; 4]> {
    let source = target.source()?;
    let bytes = source.bytes();
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Some(if source.is_ipv4() { [word(0), word(4), word(8), word(12)] } else { [word(0), word(4), 0, 0] })
}
