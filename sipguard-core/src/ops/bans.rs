//! `bans`: when a sender of malformed streams is banned.

use anyhow::Result;

use super::{Context, RuleChange};
use crate::ban_rule::{BanRequest, BanRule, DEFAULT};
use crate::duration;
use crate::error::{Failure, FailureKind};
use crate::store::{Changed, OPERATOR};

/// What is asked of the rule.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// Ban nobody.
    Off,
    /// What is not named stays.
    Set(BanRequest),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The counts.
    pub change: RuleChange,
    /// The rule that holds now.
    pub rule: BanRule,
}

/// Changes the rule.
///
/// # Errors
/// When the first ban would be longer than the longest, or the store or the kernel refuses.
pub fn set(host: &Context, request: &Request) -> Result<Outcome> {
    let verb = match request {
        Request::Off => "bans off",
        Request::Set(_) => "bans set",
    };
    let done = host.change(|change| {
        let old = change.rows.ban_rule()?.unwrap_or(DEFAULT);
        let rule = match request {
            Request::Off => BanRule { after: 0, ..old },
            Request::Set(request) => merged(&old, request)?,
        };
        change.set_ban_rule(&rule)?;
        change.record(verb, OPERATOR, &[sentence(&rule)], "")?;
        Ok((change.counts, rule))
    })?;
    let Changed { value: (counts, rule), in_force } = done;
    Ok(Outcome { change: RuleChange { counts, in_force, ..RuleChange::default() }, rule })
}

/// The rule that holds.
///
/// # Errors
/// When the store can't be read.
pub fn show(host: &Context) -> Result<BanRule> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let rule = host.read(|rows| rows.ban_rule())?;
    Ok(rule.flatten().unwrap_or(DEFAULT))
}

/// Writes the bans in force to the store, as every change of a rule does. How many there are.
///
/// # Errors
/// When the store can't be written.
pub fn save(host: &Context) -> Result<usize> {
    Ok(host.change(|change| Ok(change.rows.bans(&change.clock)?.len()))?.value)
}

fn merged(old: &BanRule, request: &BanRequest) -> Result<BanRule> {
    let rule = request.of(old);
    if rule.first > rule.longest {
        let text = "the first ban would be longer than the longest: name both, `--first` and `--longest`";
        return Err(Failure::with(FailureKind::Usage, text));
    }
    Ok(rule)
}

/// `banned is an address and port after 3 malformed streams ...`
#[must_use]
pub fn sentence(rule: &BanRule) -> String {
    let span = duration::shown;
    if rule.after == 0 {
        return "nobody is banned; malformed streams are cut all the same".to_owned();
    }
    format!(
        "banned is an address and port after {} malformed streams within {}, and an address after {} when nothing well-formed came from it for {}, \
         which the guard must have been attached for; for {} at first, each time twice as long, {} at the most",
        rule.after,
        span(rule.within),
        rule.address_after,
        span(rule.quiet),
        span(rule.first),
        span(rule.longest)
    )
}
