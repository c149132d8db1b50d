//! The policy as the kernel has it. It is small, so `store` wants it as a whole and it is written as a whole.

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use sipguard_common::abi::{
    BanPolicy, CheckSwitches, Denied, Rate, Rates, Settings, TRUNK_ENTRIES, Trunk, names, rules_in_use,
};

use crate::clock;
use crate::maps::{self, MapDir, Plain};

/// What the maps say, or should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What may not be sent: by whoever is no trunk, and by trunks.
    pub denied: [Denied; 2],
    /// Of which kinds there are rules that are looked up only then: bits of [`rules_in_use`].
    pub kinds: u32,
    /// The trunks, by index; zero where there is none.
    pub trunks: Vec<Trunk>,
    /// Limits of a source that is no trunk's.
    pub rates: Rates,
    /// When a sender is banned; without the time from which addresses are.
    pub bans: BanPolicy,
    /// How many connections a source that is no trunk's may have open; 0 is no limit.
    pub open: u32,
    /// How many unfinished messages such a source may have; 0 is no limit.
    pub unfinished: u32,
    /// Which of those limits only count what is over them: bits of [`sipguard_common::Reason::limit_bit`].
    pub monitored_limits: u32,
    /// Which checks are not refused of a source that is no trunk's.
    pub checks: CheckSwitches,
}

/// Kinds of rules that the kernel looks for only where there are any.
const KINDS: u32 = rules_in_use::DEVICES | rules_in_use::IDENTITIES | rules_in_use::USER_AGENTS;

/// Well-formed messages on connections, after which a source may send [`TRUST_FACTOR`] times as much.
pub(crate) const TRUST_AFTER: u32 = 100;
/// See [`TRUST_AFTER`].
pub(crate) const TRUST_FACTOR: u32 = 4;

/// The maps of the policy.
pub struct PolicyMaps {
    settings: Array<MapData, Plain<Settings>>,
    trunks: Array<MapData, Plain<Trunk>>,
}

impl PolicyMaps {
    /// Opens them.
    ///
    /// # Errors
    /// When a map can't be opened.
    pub fn open(dir: &dyn MapDir) -> Result<PolicyMaps> {
        Ok(PolicyMaps {
            settings: maps::open(dir, names::SETTINGS)?,
            trunks: maps::open(dir, names::TRUNKS)?,
        })
    }

    /// Whether no policy was ever written to them: the guard is being attached for the first time.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn is_new(&self) -> Result<bool> {
        Ok(self.settings()?.trust_after == 0)
    }

    /// What they say.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn read(&self) -> Result<Policy> {
        let Settings { denied, rules, rates, bans, open, unfinished, monitored_limits, checks, .. } =
            self.settings()?;
        let bans = BanPolicy { addresses_from_ns: 0, ..bans };
        let trunk = |number| anyhow::Ok(self.trunks.get(&number, 0).context("reading the trunks")?.0);
        let trunks = (0..TRUNK_ENTRIES).map(trunk).collect::<Result<_>>()?;
        let kinds = rules & KINDS;
        Ok(Policy { denied, kinds, trunks, rates, bans, open, unfinished, monitored_limits, checks })
    }

    /// Makes them say it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn write(&mut self, policy: &Policy) -> Result<()> {
        let before = self.settings()?;
        let trunks = policy.trunks.iter().flat_map(|trunk| trunk.rates);
        let limited = policy.rates.into_iter().chain(trunks).any(|rate| rate != Rate::NONE);
        let limited = limited || policy.bans.after != 0;
        let rates = if limited { rules_in_use::RATES } else { 0 };
        let mut open = policy.trunks.iter().map(|trunk| trunk.open).chain([policy.open]);
        let open = if open.any(|most| most != 0) { rules_in_use::OPEN } else { 0 };
        let mut unfinished = policy.trunks.iter().map(|trunk| trunk.unfinished).chain([policy.unfinished]);
        let unfinished = if unfinished.any(|most| most != 0) { rules_in_use::UNFINISHED } else { 0 };
        let of_policy = KINDS | rules_in_use::RATES | rules_in_use::OPEN | rules_in_use::UNFINISHED;
        let rules = before.rules & !of_policy | policy.kinds | rates | open | unfinished;
        let settings = Settings {
            denied: policy.denied,
            rules,
            rates: policy.rates,
            bans: BanPolicy { addresses_from_ns: addresses_from(&before, &policy.bans)?, ..policy.bans },
            open: policy.open,
            unfinished: policy.unfinished,
            monitored_limits: policy.monitored_limits,
            checks: policy.checks,
            trust_after: TRUST_AFTER,
            trust_factor: TRUST_FACTOR,
            ..before
        };
        for (number, trunk) in (0..TRUNK_ENTRIES).zip(&policy.trunks) {
            if self.trunks.get(&number, 0).context("reading the trunks")?.0 != *trunk {
                self.trunks.set(number, Plain(*trunk), 0).context("writing the trunks")?;
            }
        }
        self.settings.set(0, Plain(settings), 0).context("writing the settings")
    }

    fn settings(&self) -> Result<Settings> {
        Ok(self.settings.get(&0, 0).context("reading the settings")?.0)
    }
}

/// From when on addresses are banned: once the guard has listened for as long as they must have been quiet (`CLOCK_MONOTONIC`,
/// nanoseconds).
fn addresses_from(before: &Settings, bans: &BanPolicy) -> Result<u64> {
    let listened = clock::monotonic_ns()?.saturating_add(bans.quiet_ns);
    let is_new = before.trust_after == 0;
    Ok(if is_new { listened } else { before.bans.addresses_from_ns.min(listened) })
}
