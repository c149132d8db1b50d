//! A rule: a block, an allowance or a ban.

use serde::{Deserialize, Serialize};
use sipguard_common::abi::{Ban, Rule};

use super::{exact_time, time};
use crate::clock::Clock;
use crate::lookup::ListedRule;
use crate::store::{RuleRow, ban_row};
use crate::target::Target;

/// A rule, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Whom it is about: an address, a prefix, a device, an identity or a user agent.
    pub target: String,
    /// `block`, `allow` or `ban`.
    pub rule: String,
    /// `enforce`, or `monitor` for a block that only counts.
    pub mode: String,
    /// Who set it: `cli`, `config`, `guard`, `recovered`, or such as `fail2ban`.
    pub origin: String,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// An operator's free text; may be empty.
    pub comment: String,
    /// When it was set first.
    pub created_at: String,
    /// When it ends; null for a permanent one.
    pub expires_at: Option<String>,
    /// What the kernel knows of it; left out where it was not asked.
    #[serde(flatten)]
    pub state: Option<RuleState>,
    /// Why it does not decide, in the answer of a lookup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What the kernel knows of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleState {
    /// Whether it is the one that decides among those of its target.
    pub decides: bool,
    /// Whether the kernel has it.
    pub in_force: bool,
    /// Packets that it decided about.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
}

impl RuleView {
    /// Of a stored rule, with times to the second.
    #[must_use]
    pub fn of_row(row: &RuleRow) -> RuleView {
        RuleView::with_times(row, time)
    }

    /// Of a stored rule with times to the millisecond, so that it can be imported again as it was.
    #[must_use]
    pub fn exported(row: &RuleRow) -> RuleView {
        RuleView::with_times(row, exact_time)
    }

    /// Of a ban.
    #[must_use]
    pub(crate) fn of_ban(target: Target, ban: &Ban, clock: &Clock) -> RuleView {
        RuleView { rule: "ban".to_owned(), ..RuleView::of_row(&ban_row(target, ban, clock)) }
    }

    fn with_times(row: &RuleRow, time: fn(i64) -> String) -> RuleView {
        RuleView {
            target: row.target.to_string(),
            rule: row.verb.name().to_owned(),
            mode: row.mode.name().to_owned(),
            origin: row.origin.clone(),
            author: row.author.clone(),
            comment: row.reason.clone(),
            created_at: time(row.created_ms),
            expires_at: row.expires_ms.map(time),
            state: None,
            why: None,
        }
    }
}

impl From<&ListedRule> for RuleView {
    fn from(listed: &ListedRule) -> RuleView {
        let (packets, bytes) = listed.entry.map_or((0, 0), |Rule { packets, bytes, .. }| (packets, bytes));
        let in_force = listed.entry.is_some();
        RuleView {
            rule: listed.name().to_owned(),
            state: Some(RuleState { decides: listed.decides, in_force, packets, bytes }),
            ..RuleView::of_row(&listed.row)
        }
    }
}
