//! `checks`: which faults of messages are refused, which are only counted, and which are not looked for.

use anyhow::Result;
use sipguard_common::Reason;

use super::{Context, RuleChange, limit};
use crate::check::{self, CheckScope, CheckState, Switch};
use crate::error::{Failure, FailureKind};
pub use crate::store::CheckRow;
use crate::store::{Change, OPERATOR, StoreTables};

/// Sets the switch of a check.
///
/// # Errors
/// [`FailureKind::Usage`] where the check can't be off; else when there is no such trunk, or the store or the kernel refuses.
pub fn set(host: &Context, switch: &Switch) -> Result<RuleChange> {
    let Switch { scope, reason, state } = switch;
    check::is_possible(*reason, *state).map_err(|text| Failure::with(FailureKind::Usage, text))?;
    let done = host.change(|change| {
        known(change, scope)?;
        change.set_check(switch)?;
        let what = format!("{} {} for {scope}", reason.name(), state.name());
        change.record("checks set", OPERATOR, &[what], "")?;
        Ok(change.counts)
    })?;
    Ok(RuleChange::of(&done))
}

/// Takes switches away, of one check or of all: the guard's switch holds again, and without one the check refuses.
///
/// # Errors
/// When there is no such trunk, or the store or the kernel refuses.
pub fn clear(host: &Context, scope: &CheckScope, reason: Option<Reason>) -> Result<RuleChange> {
    let done = host.change(|change| {
        known(change, scope)?;
        change.clear_checks(scope, reason)?;
        let what = format!("{} for {scope}", reason.map_or("all", Reason::name));
        change.record("checks clear", OPERATOR, &[what], "")?;
        Ok(change.counts)
    })?;
    Ok(RuleChange::of(&done))
}

fn known(change: &Change<'_>, scope: &CheckScope) -> Result<()> {
    let CheckScope::Trunk(name) = scope else { return Ok(()) };
    limit::known(change, Some(name))
}

/// The switches.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Those of the guard first.
    pub rows: Vec<CheckRow>,
    /// Whether a guard is attached.
    pub in_force: bool,
}

/// Lists the switches that are set.
///
/// # Errors
/// When the store can't be read.
pub fn list(host: &Context) -> Result<Listing> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let rows = host.read(|rows| rows.checks())?.unwrap_or_default();
    Ok(Listing { rows, in_force: host.is_attached() })
}

/// A reason, with the present states of its check.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The reason.
    pub reason: Reason,
    /// The state for devices, and for each trunk; none where there is no check to be switched.
    pub states: Vec<(CheckScope, CheckState)>,
    /// Whether a guard is attached.
    pub in_force: bool,
    /// Why the present states are not told, where they are not.
    pub untold: Option<String>,
}

/// What there is to be said of a reason without a look at any guard. `untold`: why there was none.
#[must_use]
pub fn documented(reason: Reason, untold: String) -> Explained {
    let untold = reason.is_check().then_some(untold);
    Explained { reason, states: Vec::new(), in_force: true, untold }
}

/// What there is to be said of a reason, with what holds now.
///
/// # Errors
/// When the store can't be read.
pub fn explain(host: &Context, reason: Reason) -> Result<Explained> {
    if !reason.is_check() {
        return Ok(Explained { reason, states: Vec::new(), in_force: true, untold: None });
    }
    let states = |rows: &StoreTables<'_>| {
        let switches = rows.switches()?;
        let trunks = rows.trunks()?.into_iter().map(|trunk| CheckScope::Trunk(trunk.name));
        let state = |scope: CheckScope| {
            let state = check::state(&switches, &scope, reason);
            (scope, state)
        };
        Ok([CheckScope::Devices].into_iter().chain(trunks).map(state).collect())
    };
    let states = host.read(states)?.unwrap_or_else(|| vec![(CheckScope::Devices, CheckState::Refuse)]);
    Ok(Explained { reason, states, in_force: host.is_attached(), untold: None })
}
