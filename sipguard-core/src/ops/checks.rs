//! `checks`: which faults of messages are refused, which are only counted, and which are not looked for.

use anyhow::Result;
use sipguard_common::Reason;

use super::{Context, RuleChange, limit, mode};
use crate::check::{self, CheckScope, Switch};
use crate::error::{Failure, FailureKind};
use crate::modes::Modes;
pub use crate::store::CheckRow;
use crate::store::{Change, OPERATOR};

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

/// What taking switches away did.
#[derive(Clone, Debug)]
pub struct ClearedChecks {
    /// The change.
    pub change: RuleChange,
    /// What is set of the same check, or of any, for somebody else.
    pub stays: Vec<Switch>,
}

/// Takes switches away, of one check or of all: the guard's switch holds again, and without one the check refuses.
///
/// # Errors
/// When there is no such trunk, or the store or the kernel refuses.
pub fn clear(host: &Context, scope: &CheckScope, reason: Option<Reason>) -> Result<ClearedChecks> {
    let mut stays = Vec::new();
    let done = host.change(|change| {
        known(change, scope)?;
        stays = change.rows.switches()?;
        stays.retain(|one| one.scope != *scope && reason.is_none_or(|reason| one.reason == reason));
        change.clear_checks(scope, reason)?;
        let what = format!("{} for {scope}", reason.map_or("all", Reason::name));
        change.record("checks clear", OPERATOR, &[what], "")?;
        Ok(change.counts)
    })?;
    Ok(ClearedChecks { change: RuleChange::of(&done), stays })
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
    /// Who only counts.
    pub modes: Modes,
    /// Whether a guard is attached.
    pub in_force: bool,
}

/// Lists the switches that are set.
///
/// # Errors
/// When the store, or the mode of the guard, can't be read.
pub fn list(host: &Context) -> Result<Listing> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let rows = host.read(|rows| rows.checks())?.unwrap_or_default();
    Ok(Listing { rows, modes: mode::modes(host)?, in_force: host.is_attached() })
}
