//! The policy that the store wants of the kernel, and what of it a new store takes over.

use std::collections::BTreeMap;

use anyhow::Result;
use bytemuck::Zeroable;
use sipguard_common::abi::{
    BanPolicy, CheckSwitches, RATE_KINDS, Rate, Rates, Rule, TRUNK_ENTRIES, Trunk, rules_in_use,
};

use super::RECOVERED_TRUNK;
use super::at_once::AtOnceLimit;
use super::edit::Change;
use super::limits::Limit;
use super::rows::StoreTables;
use crate::address::Source;
use crate::ban_rule::BanRule;
use crate::check::{self, CheckScope, Switch};
use crate::denial::{DeniedTraffic, Whom};
use crate::policy::Policy;
use crate::rate::{AtOnce, AtOnceMost, LimitKind, RateLimit};
use crate::target::Target;
use crate::trunk;
use crate::trunk::TrunkRow;

/// What the maps should say.
pub(super) fn desired(rows: &StoreTables<'_>) -> Result<Policy> {
    let mut policy = Policy {
        denied: [[0; 3]; 2],
        kinds: kinds(rows)?,
        rates: [Rate::NONE; RATE_KINDS.len()],
        bans: rows.ban_rule()?.map_or(BanPolicy::zeroed(), |rule| rule.policy()),
        trunks: vec![Trunk::zeroed(); TRUNK_ENTRIES as usize],
        open: 0,
        unfinished: 0,
        monitored_limits: 0,
        checks: CheckSwitches::NONE,
    };
    let switches = rows.switches()?;
    policy.checks = check::entry(&switches, &CheckScope::Devices);
    let limits = Limits { rates: rows.limits()?, at_once: rows.at_once_limits()? };
    (policy.open, policy.unfinished) =
        (limits.most(None, AtOnce::Open), limits.most(None, AtOnce::Unfinished));
    (policy.rates, policy.monitored_limits) = (limits.rates(None), limits.monitored(None));
    for trunk in rows.trunks()? {
        let entry = &mut policy.trunks[usize::from(trunk.number)];
        *entry = trunk.policy.entry();
        let name = Some(&trunk.name);
        (entry.open, entry.unfinished) =
            (limits.most(name, AtOnce::Open), limits.most(name, AtOnce::Unfinished));
        (entry.rates, entry.monitored_limits) = (limits.rates(name), limits.monitored(name));
        entry.checks = check::entry(&switches, &CheckScope::Trunk(trunk.name));
    }
    for denial in rows.denials()? {
        denial.what.deny(&mut policy.denied[denial.whom.class()]);
    }
    Ok(policy)
}

/// The limits of the store.
struct Limits {
    rates: Vec<Limit>,
    at_once: Vec<AtOnceLimit>,
}

impl Limits {
    fn rates_of<'l>(&'l self, trunk: Option<&'l String>) -> impl Iterator<Item = &'l Limit> {
        self.rates.iter().filter(move |limit| limit.trunk.as_ref() == trunk)
    }

    fn at_once_of<'l>(&'l self, trunk: Option<&'l String>) -> impl Iterator<Item = &'l AtOnceLimit> {
        self.at_once.iter().filter(move |limit| limit.trunk.as_ref() == trunk)
    }

    fn rates(&self, trunk: Option<&String>) -> Rates {
        let mut rates = [Rate::NONE; RATE_KINDS.len()];
        self.rates_of(trunk).for_each(|limit| rates[limit.kind] = limit.limit.rate());
        rates
    }

    fn most(&self, trunk: Option<&String>, kind: AtOnce) -> u32 {
        self.at_once_of(trunk).find(|limit| limit.kind == kind).map_or(0, |limit| limit.limit.most)
    }

    /// The limits that only count, as a set of their bits.
    fn monitored(&self, trunk: Option<&String>) -> u32 {
        let rates = self.rates_of(trunk).map(|one| LimitKind::Rate(one.kind).bit_in(one.limit.mode));
        let at_once = self.at_once_of(trunk).map(|one| LimitKind::AtOnce(one.kind).bit_in(one.limit.mode));
        rates.chain(at_once).fold(0, |all, bit| all | bit)
    }
}

/// Of which kinds there are rules.
fn kinds(rows: &StoreTables<'_>) -> Result<u32> {
    let mut kinds = 0;
    for (kind, bit) in [
        ("device", rules_in_use::DEVICES),
        ("identity", rules_in_use::IDENTITIES),
        ("user-agent", rules_in_use::USER_AGENTS),
    ] {
        if rows.has_kind(kind)? {
            kinds |= bit;
        }
    }
    Ok(kinds)
}

/// Fills a new store with what the kernel has.
///
/// The kernel knows no names, so trunks are called by their index.
pub(super) fn take_over(change: &mut Change<'_>, policy: &Policy, entries: &[(Target, Rule)]) -> Result<()> {
    let mut peers: BTreeMap<u16, Vec<Source>> = BTreeMap::new();
    for (target, rule) in entries.iter().filter(|(_, rule)| rule.trunk != 0) {
        peers.entry(rule.trunk).or_default().extend(target.source());
    }
    change.clear_limits(None, None)?;
    AtOnce::ALL.into_iter().try_for_each(|kind| change.clear_at_once(None, kind))?;
    change.counts.removed = 0;
    change.set_ban_rule(&BanRule::of(&policy.bans))?;
    recover(change, None, &policy.rates, [policy.open, policy.unfinished], policy.monitored_limits)?;
    recover_checks(change, &CheckScope::Devices, &policy.checks)?;
    for (number, mut peers) in peers {
        peers.sort_unstable();
        change.set_trunk(&TrunkRow {
            name: format!("{RECOVERED_TRUNK}{number}"),
            number,
            peers,
            policy: policy.trunks.get(usize::from(number)).map(trunk::TrunkPolicy::of).unwrap_or_default(),
            reason: "found in the kernel".to_owned(),
            author: String::new(),
            created_ms: 0,
        })?;
        // Its index may be another one now, its limits go by its name.
        if let Some(entry) = policy.trunks.get(usize::from(number)) {
            let name = format!("{RECOVERED_TRUNK}{number}");
            let at_once = [entry.open, entry.unfinished];
            recover(change, Some(&name), &entry.rates, at_once, entry.monitored_limits)?;
            recover_checks(change, &CheckScope::Trunk(name), &entry.checks)?;
        }
    }
    for whom in [Whom::Devices, Whom::Trunks] {
        let found = DeniedTraffic::of(&policy.denied[whom.class()]);
        change.deny(whom, &found, Some("found in the kernel"))?;
    }
    Ok(())
}

fn recover_checks(change: &mut Change<'_>, scope: &CheckScope, entry: &CheckSwitches) -> Result<()> {
    for (reason, state) in check::not_refusing(entry) {
        change.set_check(&Switch { scope: scope.clone(), reason, state })?;
    }
    Ok(())
}

/// Limits as they were set, as far as nanoseconds tell.
fn recover(
    change: &mut Change<'_>,
    trunk: Option<&str>,
    rates: &Rates,
    at_once: [u32; AtOnce::ALL.len()],
    monitored: u32,
) -> Result<()> {
    for (kind, most) in AtOnce::ALL.into_iter().zip(at_once).filter(|(_, most)| *most != 0) {
        let mode = LimitKind::AtOnce(kind).mode_in(monitored);
        change.set_at_once(trunk, kind, AtOnceMost { most, mode })?;
    }
    for (kind, rate) in rates.iter().enumerate().filter(|(_, rate)| **rate != Rate::NONE) {
        let (per_second, burst) = (1_000_000_000 / rate.interval_ns, rate.tolerance_ns / rate.interval_ns);
        let (per_second, burst) = (u32::try_from(per_second)?, u32::try_from(burst)?);
        let mode = LimitKind::Rate(kind).mode_in(monitored);
        change.set_limit(trunk, kind, RateLimit { per_second, burst, mode })?;
    }
    Ok(())
}
