//! Lifts blocks or allowances; with blocks also bans.

use std::collections::HashSet;

use anyhow::Result;

use crate::ops::{Context, RuleChange};
use crate::rule::RuleVerb;
use crate::store::{GUARD, OPERATOR, RuleRemoval};
use crate::target::Target;

/// Whose rules are lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of these targets, each once.
    Of(Vec<Target>),
    /// Of everybody.
    All,
}

/// Which rules are lifted.
#[derive(Clone, Debug)]
pub struct LiftRules {
    /// Blocks, with bans, or allowances.
    pub kind: RuleVerb,
    /// Whose.
    pub whose: Whose,
    /// Only those that this origin set; `None` is all origins.
    pub origin: Option<String>,
}

impl LiftRules {
    /// The rules of a target, of all origins.
    #[must_use]
    pub fn of(kind: RuleVerb, target: Target) -> LiftRules {
        LiftRules { kind, whose: Whose::Of(vec![target]), origin: None }
    }
}

/// Lifts them, all or none.
///
/// # Errors
/// When the store or the kernel refuses.
pub fn lift(host: &Context, request: &LiftRules) -> Result<RuleChange> {
    let LiftRules { kind, whose, origin } = request;
    let (kind, origin) = (*kind, origin.as_deref());
    let targets = match whose {
        Whose::Of(targets) => targets.as_slice(),
        Whose::All => &[],
    };
    let all = *whose == Whose::All;
    let lifts_bans = kind == RuleVerb::Block && origin.is_none_or(|origin| origin == GUARD);
    let mut left = targets.iter();
    let (mut gone, mut bans) = (RuleRemoval::default(), None);
    let done = host.bulk(if all { usize::MAX } else { targets.len() }, |change| {
        let bans = match &mut bans {
            Some(bans) => bans,
            None if lifts_bans => bans.insert(change.lift((!all).then_some(targets))?),
            None => bans.insert(Vec::new()),
        };
        if all && !change.retract_all(&mut gone, kind, origin, &HashSet::new())? {
            return Ok(None);
        }
        for target in left.by_ref() {
            change.retract(target, kind, origin)?;
            if change.is_due() {
                return Ok(None);
            }
        }
        for target in targets.iter().chain(bans.iter().filter(|ban| !targets.contains(ban))) {
            gone.add(*target);
        }
        change.counts.lift(bans.len());
        let verb = match kind {
            RuleVerb::Block => "unblock",
            RuleVerb::Allow => "unallow",
        };
        change.record_all(verb, origin.unwrap_or(OPERATOR), gone.what(), "")?;
        Ok(Some(change.counts))
    })?;
    Ok(RuleChange::of(&done))
}
