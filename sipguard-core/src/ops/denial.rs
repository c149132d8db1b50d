//! `deny` and `permit`: what trunks, or devices, may not send.

use anyhow::Result;

use super::{Context, RuleChange};
use crate::denial::{DeniedTraffic, Whom};
use crate::store::{Changed, OPERATOR};
pub use crate::store::{Denial, DenialChange};

/// Denies something, or permits it again.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whom.
    pub whom: Whom,
    /// What, each once.
    pub what: Vec<DeniedTraffic>,
    /// Whether it is denied, with a comment; `None` permits.
    pub denied: Option<Denied>,
}

/// That it is denied.
#[derive(Clone, Debug, Default)]
pub struct Denied {
    /// Why; `None` leaves a comment that is there.
    pub comment: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The counts.
    pub change: RuleChange,
    /// What changed, what was so already, and what is still denied.
    pub done: DenialChange,
}

/// Changes what is denied.
///
/// # Errors
/// When the store or the kernel refuses.
pub fn run(host: &Context, request: &Request) -> Result<Outcome> {
    let Request { whom, what, denied } = request;
    let done = host.change(|change| {
        let comment = denied.as_ref().and_then(|denied| denied.comment.as_deref());
        let (done, verb) = match denied {
            Some(_) => (change.deny(*whom, what, comment)?, "deny"),
            None => (change.permit(*whom, what)?, "permit"),
        };
        let trail: Vec<String> =
            done.changed.iter().map(|what| format!("{what} from {}", whom.name())).collect();
        change.record(verb, OPERATOR, &trail, comment.unwrap_or_default())?;
        Ok((done, change.counts))
    })?;
    let Changed { value: (what, counts), in_force } = done;
    let change = RuleChange { counts, in_force, ..RuleChange::default() };
    Ok(Outcome { change, done: what })
}

/// What is denied.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Each denial.
    pub denials: Vec<Denial>,
    /// Whether a guard is attached.
    pub in_force: bool,
}

/// Lists what is denied.
///
/// # Errors
/// When the store can't be read.
pub fn list(host: &Context) -> Result<Listing> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let denials = host.read(|rows| rows.denials())?.unwrap_or_default();
    Ok(Listing { denials, in_force: host.is_attached() })
}
