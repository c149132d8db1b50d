//! What a change of rules did.

use crate::notice::Notice;
use crate::store::{Changed, Counts};

/// What a change of rules did, whatever its kind: blocks, allowances, denials, trunks, limits or the rule of bans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChange {
    /// What was added, changed, removed and left as it was.
    pub counts: Counts,
    /// Whether it is in force; otherwise the next `attach` brings it.
    pub in_force: bool,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
}

impl RuleChange {
    /// Of a change without notices.
    #[must_use]
    pub fn of(done: &Changed<Counts>) -> RuleChange {
        RuleChange { counts: done.value, in_force: done.in_force, notices: Vec::new() }
    }

    /// Whether anything is other than before.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.counts.added + self.counts.moved + self.counts.removed > 0
    }
}
