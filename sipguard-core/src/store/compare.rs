//! Compares all of the store with all of the maps, and reconciles them. A million rules take seconds, so it is done in as many changes as it
//! takes, and others get their turn in between: each of them keeps store and maps equal, so what was compared stays so.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use anyhow::Result;

use super::apply::Apply;
use super::desired::{Allowed, desired_of};
use super::rows::{RuleKey, RuleRow, StoreTables, key};
use crate::target::Target;

/// Rows that are read together.
const PAGE: usize = 1024;

/// How far a comparison is.
pub(super) struct Compare {
    stage: Stage,
    /// Of whom the store has a row, as hashes: by the million they must be small. Two targets of one hash leave an entry too many until the next
    /// comparison, once in 10^7 comparisons of a million rules.
    known: HashSet<u64>,
    hasher: RandomState,
}

enum Stage {
    /// Which targets the store knows, from the row behind this one on.
    Known(Option<RuleKey>),
    /// Entries of targets that the store did not know a moment ago. They go first, and make room.
    Strangers(Vec<Target>),
    /// The entries of the peers of trunks.
    Peers,
    /// The entries of the rows behind this one.
    Rows(Option<RuleKey>),
}

impl Compare {
    pub(super) fn new() -> Compare {
        Compare { stage: Stage::Known(None), known: HashSet::new(), hasher: RandomState::new() }
    }

    /// Goes on until it is through (`true`) or `is_due` says that it was long enough.
    ///
    /// # Errors
    /// When the store can't be read, or the kernel refuses an entry.
    pub(super) fn go(
        &mut self,
        apply: &mut Apply<'_>,
        rows: &StoreTables<'_>,
        is_due: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let allowed = Allowed::of(&rows.allowing()?, rows.peers()?, apply.clock.wall_ms());
        while !is_due() {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Peers) {
                Stage::Known(None) if apply.maps.rules.is_empty()? => Stage::Peers,
                Stage::Known(after) => {
                    let (page, last) = page(rows, after.as_ref())?;
                    self.known.extend(page.iter().map(|row| self.hasher.hash_one(row.target)));
                    match last {
                        Some(last) => Stage::Known(Some(last)),
                        None => Stage::Strangers(self.strangers(apply, &allowed)?),
                    }
                }
                Stage::Strangers(mut strangers) => match strangers.pop() {
                    None => Stage::Peers,
                    Some(target) => {
                        let desired = desired_of(&target, &rows.of(&target)?, &allowed, &apply.clock);
                        apply.put_where_it_differs(&target, desired)?;
                        Stage::Strangers(strangers)
                    }
                },
                Stage::Peers => {
                    for peer in allowed.peers() {
                        let target = Target::Source(peer);
                        let desired = desired_of(&target, &rows.of(&target)?, &allowed, &apply.clock);
                        apply.put_where_it_differs(&target, desired)?;
                    }
                    Stage::Rows(None)
                }
                Stage::Rows(after) => {
                    let (page, last) = page(rows, after.as_ref())?;
                    for rows in page.chunk_by(|one, other| one.target == other.target) {
                        let desired = desired_of(&rows[0].target, rows, &allowed, &apply.clock);
                        apply.put_where_it_differs(&rows[0].target, desired)?;
                    }
                    match last {
                        Some(last) => Stage::Rows(Some(last)),
                        None => return Ok(true),
                    }
                }
            };
        }
        Ok(false)
    }

    fn strangers(&self, apply: &Apply<'_>, allowed: &Allowed) -> Result<Vec<Target>> {
        let mut strangers = Vec::new();
        apply.maps.rules.each_target(&mut |target| {
            let is_peer = matches!(target, Target::Source(source) if allowed.is_peer(&source));
            if !is_peer && !self.known.contains(&self.hasher.hash_one(target)) {
                strangers.push(target);
            }
        })?;
        Ok(strangers)
    }
}

/// The next rows behind a target, all of each target's, and the last target when there are more.
fn page(rows: &StoreTables<'_>, after: Option<&RuleKey>) -> Result<(Vec<RuleRow>, Option<RuleKey>)> {
    let mut page = rows.page(after, PAGE)?;
    if page.len() < PAGE {
        return Ok((page, None));
    }
    // The rows of the last one may go on.
    let last = page.pop().map(|row| row.target);
    while page.last().map(|row| row.target) == last {
        page.pop();
    }
    if let (true, Some(target)) = (page.is_empty(), last) {
        // All of them are one target's.
        page = rows.of(&target)?;
    }
    let last = page.last().map(|row| key(&row.target));
    Ok((page, last))
}
