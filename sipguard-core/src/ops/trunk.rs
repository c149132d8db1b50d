//! `trunk`: who the carriers are, and what they may send.

use anyhow::{Context as _, Result};
use sipguard_common::abi::TRANSPORTS;

use super::checks::CheckRow;
use super::{Context, RuleChange, checks, limit};
use crate::address::Source;
use crate::check::CheckScope;
use crate::counters;
use crate::error::{Failure, FailureKind};
use crate::modes::Modes;
use crate::notice::Notice;
use crate::store::{Changed, Counts, OPERATOR};
pub use crate::trunk::TrunkRow;
use crate::trunk::{self, TrunkMode, TrunkPolicy, TrunkProfile};
use crate::view::LimitView;

/// What is asked of the policy of a trunk; `None` leaves what is there.
#[derive(Clone, Debug, Default)]
pub struct PolicyChange {
    /// Transports that it may use, by position in [`TRANSPORTS`].
    pub transports: Option<[bool; TRANSPORTS.len()]>,
    /// Methods that it may send, as bits.
    pub methods: Option<u32>,
    /// How its messages are validated.
    pub profile: Option<TrunkProfile>,
    /// Whether its faults are stopped.
    pub mode: Option<TrunkMode>,
    /// Whether its peers are balancers that send a PROXY header.
    pub proxy_protocol: Option<bool>,
    /// What it is.
    pub comment: Option<String>,
}

/// A trunk that is added or changed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// All of its peers; of a trunk that is changed none leaves those that it has.
    pub peers: Vec<Source>,
    /// Its policy.
    pub policy: PolicyChange,
    /// Takes peers shorter than /8 (IPv6: /16) as well.
    pub force: bool,
}

/// A trunk that was added.
#[derive(Clone, Debug)]
pub struct Added {
    /// What was done.
    pub change: RuleChange,
    /// How many peers it has, each once.
    pub peers: usize,
}

/// Adds a trunk. One that is there with the same peers and policy gets the comment.
///
/// # Errors
/// When there is another trunk of this name, a peer is another trunk's or too wide, or the store or the kernel refuses.
pub fn add(host: &Context, request: &Request) -> Result<Added> {
    let name = &request.name;
    let mut row = TrunkRow {
        name: name.clone(),
        number: 0,
        peers: peers(request)?,
        policy: TrunkPolicy::default(),
        reason: String::new(),
        author: String::new(),
        created_ms: 0,
    };
    merge(&mut row, &request.policy);
    let done = host.change(|change| {
        let old = change.rows.trunks()?.into_iter().find(|old| old.name == *name);
        let differs = |old: &TrunkRow| (&old.peers, old.policy) != (&row.peers, row.policy);
        if old.as_ref().is_some_and(differs) {
            let text = format!("there is a trunk {name} already: `sipguard trunk set` changes it");
            return Err(Failure::with(FailureKind::Failed, text));
        }
        // What is not named stays, as with `set`.
        let comment = old.filter(|_| request.policy.comment.is_none()).map(|old| old.reason);
        let row = TrunkRow { reason: comment.unwrap_or_else(|| row.reason.clone()), ..row.clone() };
        change.set_trunk(&row)?;
        change.record("trunk add", OPERATOR, &[&row.name], &row.reason)?;
        Ok(change.counts)
    })?;
    let change = RuleChange { notices: warning(&row.policy), ..RuleChange::of(&done) };
    Ok(Added { change, peers: row.peers.len() })
}

/// Changes a trunk; what is not named stays.
///
/// # Errors
/// When there is no such trunk, a peer is another trunk's or too wide, or the store or the kernel refuses.
pub fn set(host: &Context, request: &Request) -> Result<RuleChange> {
    let wanted = peers(request)?;
    let mut notices = Vec::new();
    let done = change(host, &request.name, |row| {
        if !wanted.is_empty() {
            row.peers.clone_from(&wanted);
        }
        merge(row, &request.policy);
        notices = warning(&row.policy);
    })?;
    Ok(RuleChange { notices, ..RuleChange::of(&done) })
}

/// Sets the mode of a trunk.
///
/// # Errors
/// When there is no such trunk, or the store or the kernel refuses.
pub fn set_mode(host: &Context, name: &str, mode: TrunkMode) -> Result<RuleChange> {
    Ok(RuleChange::of(&change(host, name, |row| row.policy.mode = mode)?))
}

/// Removes a trunk: its peers are devices like any other. Without such a trunk nothing changes.
///
/// # Errors
/// When the store or the kernel refuses.
pub fn remove(host: &Context, name: &str) -> Result<RuleChange> {
    let done = host.change(|change| {
        change.remove_trunk(name)?;
        change.record("trunk remove", OPERATOR, &[name], "")?;
        Ok(change.counts)
    })?;
    Ok(RuleChange::of(&done))
}

/// The trunks.
#[derive(Clone, Debug)]
pub struct Listing {
    /// By name.
    pub trunks: Vec<TrunkRow>,
    /// Whether a guard is attached.
    pub in_force: bool,
}

/// Lists the trunks.
///
/// # Errors
/// When the store can't be read.
pub fn list(host: &Context) -> Result<Listing> {
    Ok(Listing { trunks: stored(host)?, in_force: host.is_attached() })
}

/// A trunk, with what was counted of it while attached.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The trunk.
    pub row: TrunkRow,
    /// Its own switches of checks.
    pub checks: Vec<CheckRow>,
    /// Its own limits.
    pub limits: Vec<LimitView>,
    /// Its counters that are not zero.
    pub counters: Vec<counters::CounterRow>,
    /// Who only counts.
    pub modes: Modes,
    /// Whether a guard is attached.
    pub in_force: bool,
}

/// Shows a trunk.
///
/// # Errors
/// When there is no such trunk, or the store or the counters can't be read.
pub fn show(host: &Context, name: &str) -> Result<Shown> {
    let row = find(stored(host)?, name)?;
    let in_force = host.is_attached();
    let mut counted = Vec::new();
    if in_force {
        host.pins.check()?;
        counted = counters::of_trunk(&host.pins, &row)?;
    }
    let checks::Listing { rows: mut checks, modes, .. } = checks::list(host)?;
    checks.retain(|check| check.switch.scope == CheckScope::Trunk(row.name.clone()));
    let mut limits = limit::list(host)?.limits;
    limits.retain(|limit| limit.trunk.as_ref() == Some(&row.name));
    Ok(Shown { row, checks, limits, counters: counted, modes, in_force })
}

/// Every trunk of the store.
///
/// # Errors
/// When the store can't be read.
pub fn stored(host: &Context) -> Result<Vec<TrunkRow>> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    Ok(host.read(|rows| rows.trunks())?.unwrap_or_default())
}

fn change(host: &Context, name: &str, mut edit: impl FnMut(&mut TrunkRow)) -> Result<Changed<Counts>> {
    host.change(|change| {
        let mut row = find(change.rows.trunks()?, name)?;
        let mode = row.policy.mode;
        edit(&mut row);
        change.set_trunk(&row)?;
        let (old, new) = (mode.name(), row.policy.mode.name());
        let what = if old == new { name.to_owned() } else { format!("{name} mode: {old} -> {new}") };
        change.record("trunk set", OPERATOR, &[what], &row.reason)?;
        Ok(change.counts)
    })
}

/// Whether there is a trunk of this name.
///
/// # Errors
/// [`FailureKind::Usage`] with the names near to it.
pub fn known(trunks: &[TrunkRow], name: &str) -> Result<()> {
    let mut names = trunks.iter().map(|trunk| trunk.name.as_str());
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    Err(Failure::with(FailureKind::Usage, trunk::unknown(name, &mut names)))
}

fn find(trunks: Vec<TrunkRow>, name: &str) -> Result<TrunkRow> {
    known(&trunks, name)?;
    trunks.into_iter().find(|trunk| trunk.name == name).context("a trunk that is known")
}

fn peers(request: &Request) -> Result<Vec<Source>> {
    let mut peers = request.peers.clone();
    if let Some(wide) = peers.iter().find(|peer| peer.is_wide() && !request.force) {
        let bits = wide.least_bits();
        let text = format!(
            "{wide} is shorter than /{bits}: nothing was changed; `--force` makes it a peer all the same"
        );
        return Err(Failure::with(FailureKind::Failed, text));
    }
    peers.sort_unstable();
    peers.dedup();
    Ok(peers)
}

fn merge(row: &mut TrunkRow, asked: &PolicyChange) {
    let policy = &mut row.policy;
    policy.transports = asked.transports.unwrap_or(policy.transports);
    policy.methods = asked.methods.unwrap_or(policy.methods);
    policy.profile = asked.profile.unwrap_or(policy.profile);
    policy.mode = asked.mode.unwrap_or(policy.mode);
    policy.proxy_protocol = asked.proxy_protocol.unwrap_or(policy.proxy_protocol);
    if let Some(comment) = &asked.comment {
        row.reason.clone_from(comment);
    }
}

fn warning(policy: &TrunkPolicy) -> Vec<Notice> {
    policy.warn().map(|warning| Notice(warning.to_owned())).into_iter().collect()
}
