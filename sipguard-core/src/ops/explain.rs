//! `explain`: what a reason means, and what holds now.

use anyhow::Result;
use sipguard_common::Reason;

use super::{Context, limit, mode};
use crate::check::{self, CheckScope, CheckState, Switch};
use crate::modes::Modes;
use crate::rate::LimitKind;
use crate::view::LimitView;

/// A reason, with what holds now of its check or its limit.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The reason.
    pub reason: Reason,
    /// The switches of its check that are set.
    pub set: Vec<Switch>,
    /// The state of its check for devices, and for each trunk; none where there is no check to be switched.
    pub states: Vec<(CheckScope, CheckState)>,
    /// The limit for devices, and for each trunk, where it has one; none where the reason is no limit's.
    pub limits: Vec<(CheckScope, Option<LimitView>)>,
    /// Who only counts.
    pub modes: Modes,
    /// Whether a guard is attached.
    pub in_force: bool,
    /// Why what holds now is not told, where it is not.
    pub untold: Option<String>,
}

impl Explained {
    fn bare(reason: Reason) -> Explained {
        let (set, states, limits, modes) = (Vec::new(), Vec::new(), Vec::new(), Modes::default());
        Explained { reason, set, states, limits, modes, in_force: true, untold: None }
    }
}

/// What there is to be said of a reason without a look at any guard. `untold`: why there was none.
#[must_use]
pub fn documented(reason: Reason, untold: String) -> Explained {
    let untold = (reason.is_check() || reason.is_limit()).then_some(untold);
    Explained { untold, ..Explained::bare(reason) }
}

/// What there is to be said of a reason, with what holds now.
///
/// # Errors
/// When the store or the mode of the guard can't be read.
pub fn explain(host: &Context, reason: Reason) -> Result<Explained> {
    let kind = LimitKind::of_reason(reason);
    if !reason.is_check() && kind.is_none() {
        return Ok(Explained::bare(reason));
    }
    let modes = mode::modes(host)?;
    let trunks = modes.trunks.iter().map(|(name, _)| CheckScope::Trunk(name.clone()));
    let scopes: Vec<CheckScope> = [CheckScope::Devices].into_iter().chain(trunks).collect();
    let bare = Explained { modes, in_force: host.is_attached(), ..Explained::bare(reason) };
    if let Some(kind) = kind {
        let listing = limit::list(host)?;
        if !listing.is_stored {
            let begins = limit::default(None, kind).map_or("none".to_owned(), |most| most.to_string());
            let untold = Some(format!("there are no rules yet, and devices begin with {begins}"));
            return Ok(Explained { untold, ..bare });
        }
        let is_of = |scope: &CheckScope, limit: &LimitView| {
            limit.of == kind.name() && CheckScope::of_limit(limit.trunk.as_deref()) == *scope
        };
        let limit = |scope: CheckScope| {
            let limit = listing.limits.iter().find(|limit| is_of(&scope, limit)).cloned();
            (scope, limit)
        };
        return Ok(Explained { limits: scopes.into_iter().map(limit).collect(), ..bare });
    }
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let mut set = host.read(|rows| rows.switches())?.unwrap_or_default();
    set.retain(|switch| switch.reason == reason);
    let state = |scope: CheckScope| {
        let state = check::state(&set, &scope, reason);
        (scope, state)
    };
    let states = scopes.into_iter().map(state).collect();
    Ok(Explained { set, states, ..bare })
}
