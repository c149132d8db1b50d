//! Blocks of hosts and prefixes: one list for the operator, two maps in the kernel.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use bytemuck::Zeroable;
use sipguard_common::abi::{Rule, names, rule_flags};

use crate::address::{Source, mapped};
use crate::clock::Clock;
use crate::error::{Failure, Status};
use crate::maps::{self, Hosts, Plain, Prefixes};
use crate::pins::Pins;

/// The blocks in force.
pub struct Blocks {
    hosts: Hosts,
    prefixes: Prefixes,
}

/// What a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Sources that are blocked now and were not.
    pub added: usize,
    /// Blocks whose end was moved.
    pub moved: usize,
    /// Sources that were as wanted already.
    pub same: usize,
    /// Sources that are not blocked any more.
    pub removed: usize,
}

impl Blocks {
    /// Opens the blocks.
    ///
    /// # Errors
    /// When the maps can't be opened.
    pub fn open(pins: &Pins) -> Result<Blocks> {
        Ok(Blocks { hosts: maps::open(pins, names::HOSTS)?, prefixes: maps::open(pins, names::PREFIXES)? })
    }

    /// Blocks sources until `expires_ns`. A source that is blocked to that end already (or for good, when no end is asked
    /// for) stays as it is, with its counters.
    ///
    /// # Errors
    /// When the kernel refuses an entry, such as a full map. What was written before stays.
    pub fn add(&mut self, sources: &[Source], expires_ns: u64, clock: &Clock) -> Result<Changed> {
        self.sweep(clock)?;
        let mut changed = Changed::default();
        for source in sources {
            let old = self.get(source)?;
            let bits = source.bits() as u16;
            let mut block = Rule { expires_ns, bits, flags: rule_flags::BLOCK, ..Rule::zeroed() };
            match old {
                Some(old) if old.expires_ns == expires_ns => {
                    changed.same += 1;
                    continue;
                }
                Some(old) => {
                    block = Rule { expires_ns, ..old };
                    changed.moved += 1;
                }
                None => changed.added += 1,
            }
            self.insert(source, block)?;
        }
        Ok(changed)
    }

    fn insert(&mut self, source: &Source, block: Rule) -> Result<()> {
        if source.is_host() {
            // Hosts that have ended are swept out when their room is needed.
            if self.hosts.insert(source.bytes(), Plain(block), 0).is_ok() {
                return Ok(());
            }
            let ended = self.ended_hosts()?;
            self.remove(&ended)?;
        }
        let outcome = if source.is_host() {
            self.hosts.insert(source.bytes(), Plain(block), 0)
        } else {
            self.prefixes.insert(&Key::new(source.bits(), source.bytes()), Plain(block), 0)
        };
        outcome.map_err(|error| {
            let error = anyhow::Error::new(error);
            Failure::with(
                Status::Failed,
                format!(
                    "blocking {source}: {error:#}: the map may be full, `sipguard list` shows what is in it"
                ),
            )
        })
    }

    /// Lifts the blocks of sources. Only a block of exactly that source is lifted, not one of a prefix around it.
    ///
    /// # Errors
    /// When a map can't be changed.
    pub fn remove(&mut self, sources: &[Source]) -> Result<Changed> {
        let mut changed = Changed::default();
        for source in sources {
            let outcome = if source.is_host() {
                self.hosts.remove(&source.bytes())
            } else {
                self.prefixes.remove(&Key::new(source.bits(), source.bytes()))
            };
            if found(outcome).with_context(|| format!("unblocking {source}"))? {
                changed.removed += 1;
            } else {
                changed.same += 1;
            }
        }
        Ok(changed)
    }

    /// The block of exactly this source, ended or not.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn get(&self, source: &Source) -> Result<Option<Rule>> {
        let outcome = if source.is_host() {
            self.hosts.get(&source.bytes(), 0)
        } else {
            // The trie answers with the longest prefix around the key: only the same length is the same block.
            self.prefixes.get(&Key::new(source.bits(), source.bytes()), 0)
        };
        match outcome {
            Ok(Plain(block)) => Ok((u32::from(block.bits) == source.bits()).then_some(block)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("reading the blocks"),
        }
    }

    /// The block that decides about an address, as the kernel side finds it: the host's own, then the longest prefix.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn deciding(&self, address: IpAddr, clock: &Clock) -> Result<Option<(Source, Rule)>> {
        let holds = |block: &Rule| block.holds(clock.boot_ns);
        if let Some(block) = self.get(&Source::from(address))?.filter(holds) {
            return Ok(Some((Source::from(address), block)));
        }
        let mut bits = 128;
        loop {
            let block = match self.prefixes.get(&Key::new(bits, mapped(address)), 0) {
                Ok(Plain(block)) => block,
                Err(MapError::KeyNotFound) => return Ok(None),
                Err(error) => return Err(error).context("reading the blocks"),
            };
            if holds(&block) {
                return Ok(
                    Source::network(mapped(address), u32::from(block.bits)).map(|source| (source, block))
                );
            }
            let Some(shorter) = u32::from(block.bits).checked_sub(1) else { return Ok(None) };
            bits = shorter;
        }
    }

    /// Every block that holds, by source.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn list(&self, clock: &Clock) -> Result<Vec<(Source, Rule)>> {
        let mut all = self.everything()?;
        all.retain(|(_, block)| block.holds(clock.boot_ns));
        all.sort_by_key(|(source, _)| *source);
        Ok(all)
    }

    fn everything(&self) -> Result<Vec<(Source, Rule)>> {
        let mut all = self.all_prefixes()?;
        for entry in self.hosts.iter() {
            let (key, Plain(block)) = entry.context("reading the blocked hosts")?;
            all.extend(Source::from_map(key, 128).map(|source| (source, block)));
        }
        Ok(all)
    }

    fn all_prefixes(&self) -> Result<Vec<(Source, Rule)>> {
        let mut all = Vec::new();
        for entry in self.prefixes.iter() {
            let (key, Plain(block)) = entry.context("reading the blocked prefixes")?;
            all.extend(Source::from_map(key.data(), key.prefix_len()).map(|source| (source, block)));
        }
        Ok(all)
    }

    fn ended_hosts(&self) -> Result<Vec<Source>> {
        let clock = Clock::now()?;
        let mut all = self.everything()?;
        all.retain(|(source, block)| source.is_host() && !block.holds(clock.boot_ns));
        Ok(all.into_iter().map(|(source, _)| source).collect())
    }

    /// Removes prefixes that have ended: the kernel side looks behind only a few of them for a shorter one that holds.
    fn sweep(&mut self, clock: &Clock) -> Result<()> {
        let mut all = self.all_prefixes()?;
        all.retain(|(_, block)| !block.holds(clock.boot_ns));
        let ended: Vec<Source> = all.into_iter().map(|(source, _)| source).collect();
        self.remove(&ended).map(|_| ())
    }
}

fn found(outcome: Result<(), MapError>) -> Result<bool, MapError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(nix::errno::Errno::ENOENT as i32) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
