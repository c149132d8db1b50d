//! Rules of hosts, prefixes, devices, SIP identities and user agents as the kernel has them: one list for the operator, five maps. `store` says what is wanted of them.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use bytemuck::Zeroable;
use nix::errno::Errno;
use sipguard_common::abi::{PERMANENT, Rule, names, rule_flags};
use sipguard_common::framer::MATCH_KEY_BYTES;

use crate::address::{Source, mapped};
use crate::claim::{Identity, UserAgent};
use crate::clock::Clock;
use crate::error::{Failure, FailureKind};
use crate::maps::{self, Devices, Hosts, Identities, MapDir, Plain, Prefixes, UserAgents};
use crate::target::{Device, Target};

/// The rules in force.
pub struct Blocks {
    hosts: Hosts,
    prefixes: Prefixes,
    devices: Devices,
    identities: Identities,
    agents: UserAgents,
}

/// What the store wants of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredEntry {
    /// [`rule_flags`].
    pub flags: u16,
    /// End (`CLOCK_BOOTTIME`, nanoseconds), or [`PERMANENT`].
    pub expires_ns: u64,
    /// Index of the trunk whose peer it is, or 0.
    pub trunk: u16,
}

impl DesiredEntry {
    /// Two readings of two clocks differ by less than this when they mean one end.
    const JITTER_NS: u64 = 100_000_000;

    /// Whether an entry says this already.
    #[must_use]
    pub fn is(&self, rule: &Rule) -> bool {
        let same_end = match (self.expires_ns, rule.expires_ns) {
            (PERMANENT, PERMANENT) => true,
            (PERMANENT, _) | (_, PERMANENT) => false,
            (one, other) => one.abs_diff(other) < Self::JITTER_NS,
        };
        self.flags == rule.flags && self.trunk == rule.trunk && same_end
    }
}

impl Blocks {
    /// Opens the blocks.
    ///
    /// # Errors
    /// When the maps can't be opened.
    pub fn open(dir: &dyn MapDir) -> Result<Blocks> {
        Ok(Blocks {
            hosts: maps::open(dir, names::HOSTS)?,
            prefixes: maps::open(dir, names::PREFIXES)?,
            devices: maps::open(dir, names::DEVICES)?,
            identities: maps::open(dir, names::IDENTITIES)?,
            agents: maps::open(dir, names::USER_AGENTS)?,
        })
    }

    /// Makes the entry of a source say what is wanted, and gives what was there. Its counters stay while it goes on with
    /// what it did.
    ///
    /// # Errors
    /// When the kernel refuses the entry, such as in a full map. What was there stays.
    pub fn put(
        &mut self,
        target: &Target,
        desired: Option<DesiredEntry>,
        clock: &Clock,
    ) -> Result<Option<Rule>> {
        if let (Some(desired), Target::Source(source)) = (desired, target)
            && source.is_host()
        {
            // Most entries are new ones: one call instead of two. (Older kernels do not know this flag for prefixes.)
            match self.hosts.insert(source.bytes(), Plain(fresh(target, desired)), BPF_NOEXIST) {
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(EEXIST) => {}
                outcome => return outcome.map(|()| None).map_err(|error| refused(target, error)),
            }
        }
        let old = self.get(target)?;
        let new = match (old, desired) {
            (old, Some(desired)) => {
                let rule = fresh(target, desired);
                Some(match old {
                    Some(old) if old.is_active(clock.boot_ns) && same_verb(&old, &rule) => {
                        Rule { packets: old.packets, bytes: old.bytes, ..rule }
                    }
                    _ => rule,
                })
            }
            (_, None) => None,
        };
        self.set(target, new)?;
        Ok(old)
    }

    /// Writes an entry as it is given, or removes it.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set(&mut self, target: &Target, rule: Option<Rule>) -> Result<()> {
        let outcome = match (target, rule) {
            (Target::Device(device), Some(rule)) => self.devices.insert(Plain(device.key()), Plain(rule), 0),
            (Target::Device(device), None) => found(self.devices.remove(&Plain(device.key()))),
            (Target::Source(host), Some(rule)) if host.is_host() => {
                self.hosts.insert(host.bytes(), Plain(rule), 0)
            }
            (Target::Source(host), None) if host.is_host() => found(self.hosts.remove(&host.bytes())),
            (Target::Source(net), Some(rule)) => {
                self.prefixes.insert(&Key::new(net.bits(), net.bytes()), Plain(rule), 0)
            }
            (Target::Source(net), None) => found(self.prefixes.remove(&Key::new(net.bits(), net.bytes()))),
            (Target::Identity(identity), Some(rule)) => {
                self.identities.insert(identity.key(), Plain(rule), 0)
            }
            (Target::Identity(identity), None) => found(self.identities.remove(&identity.key())),
            (Target::UserAgent(agent), Some(rule)) => self.agents.insert(&prefix(agent), Plain(rule), 0),
            (Target::UserAgent(agent), None) => found(self.agents.remove(&prefix(agent))),
        };
        outcome.map_err(|error| refused(target, error))
    }

    /// The entry of exactly this source, ended or not.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn get(&self, target: &Target) -> Result<Option<Rule>> {
        let outcome = match target {
            Target::Device(device) => self.devices.get(&Plain(device.key()), 0),
            Target::Source(host) if host.is_host() => self.hosts.get(&host.bytes(), 0),
            // The trie answers with the longest prefix around the key: only the same length is the same block.
            Target::Source(net) => self.prefixes.get(&Key::new(net.bits(), net.bytes()), 0),
            Target::Identity(identity) => self.identities.get(&identity.key(), 0),
            Target::UserAgent(agent) => self.agents.get(&prefix(agent), 0),
        };
        match outcome {
            Ok(Plain(block)) => Ok((block.bits == bits(target)).then_some(block)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("reading the blocks"),
        }
    }

    /// The rule that decides about an address, as the kernel side finds it: the host's own, then the longest prefix.
    ///
    /// # Errors
    /// When a map can't be read.
    pub(crate) fn deciding(&self, address: IpAddr, clock: &Clock) -> Result<Option<(Target, Rule)>> {
        let is_active = |block: &Rule| block.flags != 0 && block.is_active(clock.boot_ns);
        if let Some(block) = self.get(&Target::from(address))?.filter(is_active) {
            return Ok(Some((address.into(), block)));
        }
        let mut bits = 128;
        loop {
            let block = match self.prefixes.get(&Key::new(bits, mapped(address)), 0) {
                Ok(Plain(block)) => block,
                Err(MapError::KeyNotFound) => return Ok(None),
                Err(error) => return Err(error).context("reading the blocks"),
            };
            if is_active(&block) {
                return Ok(Source::network(mapped(address), u32::from(block.bits))
                    .map(|source| (source.into(), block)));
            }
            let Some(shorter) = u32::from(block.bits).checked_sub(1) else { return Ok(None) };
            bits = shorter;
        }
    }

    /// Index of the trunk that an address belongs to, or 0; as the kernel side finds it, whatever rules are about it.
    ///
    /// # Errors
    /// When a map can't be read.
    pub(crate) fn trunk_of(&self, address: IpAddr) -> Result<u16> {
        if let Some(of_host) =
            self.get(&Target::from(address))?.map(|rule| rule.trunk).filter(|trunk| *trunk != 0)
        {
            return Ok(of_host);
        }
        let mut bits = 128;
        loop {
            let rule = match self.prefixes.get(&Key::new(bits, mapped(address)), 0) {
                Ok(Plain(rule)) => rule,
                Err(MapError::KeyNotFound) => return Ok(0),
                Err(error) => return Err(error).context("reading the trunks"),
            };
            let is_wider = address.to_canonical().is_ipv4() && rule.bits < 96;
            match u32::from(rule.bits).checked_sub(1) {
                _ if is_wider => return Ok(0),
                Some(shorter) if rule.trunk == 0 => bits = shorter,
                _ => return Ok(rule.trunk),
            }
        }
    }

    /// The rule of exactly this target, where it holds: that of a device decides about its packets when that of its address lets them
    /// come so far.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn holding(&self, target: Target, clock: &Clock) -> Result<Option<(Target, Rule)>> {
        let rule = self.get(&target)?.filter(|rule| rule.flags != 0 && rule.is_active(clock.boot_ns));
        Ok(rule.map(|rule| (target, rule)))
    }

    /// Every block that holds, by source.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn list(&self, clock: &Clock) -> Result<Vec<(Target, Rule)>> {
        let mut all = self.everything()?;
        all.retain(|(_, block)| block.flags & rule_flags::BLOCK != 0 && block.is_active(clock.boot_ns));
        all.sort_by_key(|(source, _)| *source);
        Ok(all)
    }

    /// How many entries block, ended or not.
    ///
    /// # Errors
    /// When a map can't be read.
    pub(crate) fn entries_that_block(&self) -> Result<usize> {
        self.count_where(|_| true)
    }

    /// How many blocks hold.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn count(&self, clock: &Clock) -> Result<usize> {
        self.count_where(|rule| rule.is_active(clock.boot_ns))
    }

    /// Counts without a list: a million entries take half a second.
    fn count_where(&self, counts: impl Fn(&Rule) -> bool) -> Result<usize> {
        let one = |rule: &Rule| usize::from(rule.flags & rule_flags::BLOCK != 0 && counts(rule));
        let mut count = 0;
        for entry in self.hosts.iter() {
            count += one(&entry.context("reading the blocked hosts")?.1.0);
        }
        for entry in self.prefixes.iter() {
            count += one(&entry.context("reading the blocked prefixes")?.1.0);
        }
        for entry in self.devices.iter() {
            count += one(&entry.context("reading the blocked devices")?.1.0);
        }
        for entry in self.identities.iter() {
            count += one(&entry.context("reading the blocked identities")?.1.0);
        }
        for entry in self.agents.iter() {
            count += one(&entry.context("reading the blocked user agents")?.1.0);
        }
        Ok(count)
    }

    /// Whether there is no entry at all.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn is_empty(&self) -> Result<bool> {
        let mut any = false;
        any |= self.hosts.keys().next().transpose().context("reading the blocked hosts")?.is_some();
        any |= self.prefixes.keys().next().transpose().context("reading the blocked prefixes")?.is_some();
        any |= self.devices.keys().next().transpose().context("reading the blocked devices")?.is_some();
        any |= self.identities.keys().next().transpose().context("reading the blocked identities")?.is_some();
        any |= self.agents.keys().next().transpose().context("reading the blocked user agents")?.is_some();
        Ok(!any)
    }

    /// Every target that has an entry, ended or not.
    ///
    /// # Errors
    /// When a map can't be read.
    pub(crate) fn each_target(&self, each: &mut dyn FnMut(Target)) -> Result<()> {
        for key in self.prefixes.keys() {
            let key = key.context("reading the blocked prefixes")?;
            if let Some(source) = Source::from_map(key.data(), key.prefix_len()) {
                each(source.into());
            }
        }
        for key in self.hosts.keys() {
            if let Some(source) = Source::from_map(key.context("reading the blocked hosts")?, 128) {
                each(source.into());
            }
        }
        for key in self.devices.keys() {
            each(Device::from_key(&key.context("reading the blocked devices")?.0).into());
        }
        for key in self.identities.keys() {
            each(Target::Identity(Identity::from_key(&key.context("reading the blocked identities")?)));
        }
        for key in self.agents.keys() {
            let key = key.context("reading the blocked user agents")?;
            each(Target::UserAgent(UserAgent::from_key(&key.data())));
        }
        Ok(())
    }

    /// Every entry, ended or not.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn everything(&self) -> Result<Vec<(Target, Rule)>> {
        let mut all = self.all_prefixes()?;
        for entry in self.hosts.iter() {
            let (key, Plain(block)) = entry.context("reading the blocked hosts")?;
            all.extend(Source::from_map(key, 128).map(|source| (source.into(), block)));
        }
        for entry in self.devices.iter() {
            let (Plain(key), Plain(block)) = entry.context("reading the blocked devices")?;
            all.push((Device::from_key(&key).into(), block));
        }
        for entry in self.identities.iter() {
            let (key, Plain(block)) = entry.context("reading the blocked identities")?;
            all.push((Target::Identity(Identity::from_key(&key)), block));
        }
        for entry in self.agents.iter() {
            let (key, Plain(block)) = entry.context("reading the blocked user agents")?;
            all.push((Target::UserAgent(UserAgent::from_key(&key.data())), block));
        }
        Ok(all)
    }

    fn all_prefixes(&self) -> Result<Vec<(Target, Rule)>> {
        let mut all = Vec::new();
        for entry in self.prefixes.iter() {
            let (key, Plain(block)) = entry.context("reading the blocked prefixes")?;
            all.extend(Source::from_map(key.data(), key.prefix_len()).map(|source| (source.into(), block)));
        }
        Ok(all)
    }
}

const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = Errno::EEXIST as i32;

fn fresh(target: &Target, desired: DesiredEntry) -> Rule {
    let DesiredEntry { flags, expires_ns, trunk } = desired;
    Rule { expires_ns, flags, trunk, bits: bits(target), ..Rule::zeroed() }
}

/// Length in bits of the address (all of it of a device's), or of the user agent.
fn bits(target: &Target) -> u16 {
    let bits = match target {
        Target::Source(source) => source.bits(),
        Target::Device(device) => device.host().bits(),
        Target::Identity(_) => 0,
        Target::UserAgent(agent) => agent.bits(),
    };
    bits as u16
}

fn prefix(agent: &UserAgent) -> Key<[u8; MATCH_KEY_BYTES]> {
    Key::new(agent.bits(), agent.key())
}

fn same_verb(one: &Rule, other: &Rule) -> bool {
    const VERBS: u16 = rule_flags::BLOCK | rule_flags::ALLOW;
    one.flags & VERBS == other.flags & VERBS
}

fn refused(target: &Target, error: MapError) -> anyhow::Error {
    let full = matches!(&error, MapError::SyscallError(error)
        if [Errno::E2BIG, Errno::ENOSPC].map(|errno| Some(errno as i32)).contains(&error.io_error.raw_os_error()));
    let error = anyhow::Error::new(error);
    let why = if full {
        "the kernel's map is full: `sipguard list` shows what is in it".to_owned()
    } else {
        format!("{error:#}")
    };
    Failure::with(FailureKind::Failed, format!("{target}: {why}; nothing was changed"))
}

/// What is not there needs no removal.
fn found(outcome: Result<(), MapError>) -> Result<(), MapError> {
    match outcome {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(Errno::ENOENT as i32) => {
            Ok(())
        }
        outcome => outcome,
    }
}
