//! `lookup`: which rule decides about somebody.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::{CheckSwitches, MODE_MONITOR};

use super::{Context, trunk};
use crate::check::{self, CheckState};
use crate::clock::Clock;
use crate::error::{Failure, FailureKind};
pub use crate::lookup::{ListedRule, LookupQuery, LookupResult, Overruled};
use crate::maps;
use crate::rule::{RuleMode, RuleVerb};
use crate::status;
use crate::trunk::TrunkMode;

/// What is found about somebody.
pub struct Outcome {
    /// The rule that decides, those that do not, and the trunk.
    pub found: LookupResult,
    /// Whether the packets are stopped, as far as rules decide.
    pub is_blocked: bool,
    /// Whether what is blocked is only counted: the mode of its trunk, or else of the guard, is monitor.
    pub monitors: bool,
    /// The checks of its messages that do not refuse; of an identity or user agent none are told.
    pub checks: Vec<(Reason, CheckState)>,
    /// The moment.
    pub clock: Clock,
}

/// Fails when it is stopped by a rule or a ban, for scripts.
///
/// # Errors
/// [`FailureKind::Stopped`].
pub fn expect_passing(asked: &LookupQuery, outcome: &Outcome) -> Result<()> {
    match &outcome.found.decider {
        Some(decider) if outcome.is_blocked => {
            let (who, by) = (asked.shown(), decider.row.target);
            let text = if outcome.monitors {
                format!("{who} is blocked by {by}, which is only counted in monitor mode")
            } else {
                format!("{who} is stopped by {by}")
            };
            Err(Failure::with(FailureKind::Stopped, text))
        }
        _ => Ok(()),
    }
}

/// The mode of a trunk; that of who is of none is the guard's.
fn trunk_mode(host: &Context, name: Option<&str>) -> Result<TrunkMode> {
    let Some(name) = name else { return Ok(TrunkMode::Inherit) };
    let found = trunk::stored(host)?.into_iter().find(|trunk| trunk.name == name);
    Ok(found.map_or(TrunkMode::Inherit, |trunk| trunk.policy.mode))
}

/// Says which rule decides now.
///
/// # Errors
/// When no guard is attached, or a map or the store can't be read.
pub fn run(host: &Context, asked: &LookupQuery) -> Result<Outcome> {
    host.pins.check()?;
    let clock = Clock::now()?;
    let found = crate::lookup::find(&host.pins, &host.store, asked, &clock)?;
    let stops = |one: &ListedRule| one.row.verb == RuleVerb::Block && one.row.mode == RuleMode::Enforce;
    let is_blocked = found.decider.as_ref().is_some_and(stops);
    let settings = maps::settings(&host.pins)?;
    let entry = match (&found.trunk, asked.address()) {
        (_, None) => CheckSwitches::NONE,
        (None, Some(_)) => settings.checks,
        (Some((name, _)), Some(_)) => status::checks_of_trunk(&host.pins, &host.store, name)?,
    };
    let checks = check::not_refusing(&entry).collect();
    let trunk = found.trunk.as_ref().map(|(name, _)| name.as_str());
    let monitors = match trunk_mode(host, trunk)? {
        TrunkMode::Inherit => settings.mode == MODE_MONITOR,
        mode => mode == TrunkMode::Monitor,
    };
    Ok(Outcome { found, is_blocked, monitors, checks, clock })
}
