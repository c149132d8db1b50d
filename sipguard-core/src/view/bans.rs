//! When a sender is banned.

use serde::{Deserialize, Serialize};

use crate::ban_rule::BanRule;

/// The rule by which the guard bans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BanView {
    /// So many malformed streams ban an address and port; 0 bans nobody.
    pub after: u32,
    /// So many malformed streams ban an address.
    pub address_after: u32,
    /// The time within which they are counted.
    pub within_seconds: f64,
    /// How long the first ban is; each further one is twice as long.
    pub first_seconds: f64,
    /// How long a ban is at the most.
    pub longest_seconds: f64,
    /// An address is banned only when nothing well-formed came from it for this time.
    pub quiet_seconds: f64,
}

impl From<&BanRule> for BanView {
    fn from(rule: &BanRule) -> BanView {
        BanView {
            after: rule.after,
            address_after: rule.address_after,
            within_seconds: rule.within.as_secs_f64(),
            first_seconds: rule.first.as_secs_f64(),
            longest_seconds: rule.longest.as_secs_f64(),
            quiet_seconds: rule.quiet.as_secs_f64(),
        }
    }
}
