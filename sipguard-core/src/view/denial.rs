//! What a class of senders may not send.

use serde::{Deserialize, Serialize};

use super::time;
use crate::store::Denial;

/// A denial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialView {
    /// To whom: `trunks` or `devices`.
    pub from: String,
    /// What: a transport, or a method over a transport, such as `register/tcp`.
    pub what: String,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// An operator's free text; may be empty.
    pub comment: String,
    /// When it was set.
    pub created_at: String,
    /// Whether the kernel has it.
    pub in_force: bool,
}

impl DenialView {
    /// Of a stored denial. `in_force`: something is attached.
    #[must_use]
    pub fn new(denial: &Denial, in_force: bool) -> DenialView {
        DenialView {
            from: denial.whom.name().to_owned(),
            what: denial.what.to_string(),
            author: denial.author.clone(),
            comment: denial.reason.clone(),
            created_at: time(denial.created_ms),
            in_force,
        }
    }
}
