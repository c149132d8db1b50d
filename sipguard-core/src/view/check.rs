//! The checks of messages that do not refuse, and what there is to be said of a check.

use serde::{Deserialize, Serialize};

use super::time;
use crate::check::{CheckScope, CheckState, Switch};
use crate::modes::Modes;
use crate::store::CheckRow;

/// What becomes of the faults of a check, for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStateView {
    /// The check, by the reason of its faults.
    pub reason: String,
    /// Whose messages: `everybody`, `devices`, or `trunk`.
    pub scope: String,
    /// The trunk; null for a scope that is none.
    pub trunk: Option<String>,
    /// `refuse`, `monitor` or `off`.
    pub state: String,
}

/// A switch that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// The check, by the reason of its faults.
    pub reason: String,
    /// Whose messages: `everybody`, `devices`, or `trunk`.
    pub scope: String,
    /// The trunk; null for a scope that is none.
    pub trunk: Option<String>,
    /// `refuse`, `monitor` or `off`.
    pub state: String,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// When it was set.
    pub created_at: String,
    /// `guard` or `trunk`: whose mode is `monitor`, so that whatever is refused is only counted; null where it is nobody's.
    #[serde(default)]
    pub monitored_by: Option<String>,
    /// Whether the kernel has it.
    pub in_force: bool,
}

impl CheckStateView {
    /// Of a check for somebody.
    #[must_use]
    pub fn new(reason: &str, scope: &CheckScope, state: CheckState) -> CheckStateView {
        let trunk = if let CheckScope::Trunk(name) = scope { Some(name.clone()) } else { None };
        CheckStateView {
            reason: reason.to_owned(),
            scope: scope.word().to_owned(),
            trunk,
            state: state.name().to_owned(),
        }
    }
}

impl From<&Switch> for CheckStateView {
    fn from(switch: &Switch) -> CheckStateView {
        CheckStateView::new(switch.reason.name(), &switch.scope, switch.state)
    }
}

impl CheckView {
    /// Of a stored switch. `in_force`: something is attached.
    #[must_use]
    pub fn new(row: &CheckRow, modes: &Modes, in_force: bool) -> CheckView {
        let CheckStateView { reason, scope, trunk, state } = CheckStateView::from(&row.switch);
        CheckView {
            reason,
            scope,
            trunk,
            state,
            author: row.author.clone(),
            created_at: time(row.created_ms),
            monitored_by: modes.monitored_by(&row.switch.scope).map(|whose| whose.name().to_owned()),
            in_force,
        }
    }
}
