//! What a verb can do to the rows, inside the transaction of a change.

use std::collections::HashSet;
use std::mem::take;

use anyhow::Result;

use super::apply::{DirtyEntry, DirtySet};
use super::audit::{self, AuditRecord};
use super::bulk::{BulkProgress, Slice};
use super::desired::{Allowed, desired_of};
use super::origin::is_operators;
use super::rows::{BATCH, RuleKey, RulePosition, RuleRow, StoreTables, key};
use crate::blocks::DesiredEntry;
use crate::clock::Clock;
use crate::rule::{RuleMode, RuleVerb};
use crate::settings::EffectiveSettings;
use crate::target::Target;

/// Rows that are removed together.
const PAGE: usize = 256;

/// What a change did, in targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Have a rule now and had none.
    pub added: usize,
    /// Whose rule has another end, mode or reason now, or says the opposite.
    pub moved: usize,
    /// Were as wanted already.
    pub same: usize,
    /// Lost their rule.
    pub removed: usize,
    /// Lie in an allowance or are a trunk's, which nothing automatic touches.
    pub skipped: usize,
    /// Have an operator's rule of the other verb, which holds no more as long as this one does.
    pub overruled: usize,
    /// Lost their rule, so that an operator's rule of the other verb holds again.
    pub again: usize,
}

impl Counts {
    /// Takes lifted bans into account: what was not blocked may have been banned.
    pub fn lift(&mut self, bans: usize) {
        self.removed += bans;
        self.same -= self.same.min(bans);
    }
}

/// A rule as it is asked for.
#[derive(Clone, Debug)]
pub struct RuleSpec {
    /// Who sets it.
    pub origin: String,
    /// What is to be done.
    pub verb: RuleVerb,
    /// Whether a block stops.
    pub mode: RuleMode,
    /// Why; `None` leaves a reason that is there.
    pub reason: Option<String>,
    /// When it ends (milliseconds since 1970, UTC); `None` for a permanent one.
    pub expires_ms: Option<i64>,
    /// When it was set first, where that is known; else now.
    pub created_ms: Option<i64>,
    /// Whose hand it was, where that is known; else ours.
    pub author: Option<String>,
}

impl RuleSpec {
    /// A permanent rule, without a reason.
    #[must_use]
    pub fn new(origin: &str, verb: RuleVerb) -> RuleSpec {
        RuleSpec {
            origin: origin.to_owned(),
            verb,
            mode: RuleMode::Enforce,
            reason: None,
            expires_ms: None,
            created_ms: None,
            author: None,
        }
    }
}

/// The rows under change.
pub struct Change<'c> {
    /// The rows.
    pub rows: StoreTables<'c>,
    /// One moment for all of the change.
    pub clock: Clock,
    /// What was done so far.
    pub counts: Counts,
    /// The guard's settings that are to be put in force with the rules, or `None` when they stay.
    pub settings: Option<EffectiveSettings>,
    pub(super) dirty: DirtySet,
    pub(super) version: i64,
    pub(super) author: String,
    pub(super) allowed: Allowed,
    /// Rows that are not written yet: those of a long list, of which nobody asks.
    pending: Vec<RuleRow>,
    /// Whether nothing but blocks are set, none of which another one changes.
    only_blocks: bool,
    /// Indices of trunks that this change makes: whatever was counted there is of a trunk that is gone.
    pub(super) new_trunks: Vec<u16>,
    /// Trunks that this change removes: one that comes back in it under its index goes on counting.
    pub(super) removed_trunks: Vec<(String, u16)>,
    /// Whose bans are lifted.
    pub(super) lifted: Vec<Target>,
    /// Whether the store had no rows: then what comes in the order of the store is new without a look.
    empty: bool,
    highest: Option<RuleKey>,
    /// The time of this part of a long list. What it replaces or removes is kept until the list is through.
    slice: Option<Slice>,
}

impl<'c> Change<'c> {
    pub(super) fn new(
        rows: StoreTables<'c>,
        clock: Clock,
        version: i64,
        progress: Option<&BulkProgress>,
    ) -> Result<Change<'c>> {
        let allowed = Allowed::of(&rows.allowing()?, rows.peers()?, clock.wall_ms());
        let mut change = Change {
            empty: rows.is_empty()?,
            rows,
            clock,
            counts: Counts::default(),
            settings: None,
            dirty: DirtySet::default(),
            pending: Vec::new(),
            only_blocks: false,
            version,
            author: author(),
            allowed,
            new_trunks: Vec::new(),
            removed_trunks: Vec::new(),
            lifted: Vec::new(),
            highest: None,
            slice: progress.map(|_| Slice::begin()),
        };
        if let Some(progress) = progress {
            change.rows.note_bulk(version)?;
            change.counts = progress.counts;
            // Whatever came in between may be about any target.
            if progress.version + 1 == version {
                (change.empty, change.highest) = (progress.empty, progress.highest.clone());
            }
        }
        Ok(change)
    }

    /// What the next part of a long list goes on with.
    pub(super) fn progress(&self) -> BulkProgress {
        BulkProgress {
            counts: self.counts,
            version: self.version,
            empty: self.empty,
            highest: self.highest.clone(),
        }
    }

    /// Whether this part of a long list has worked for long enough. A change that is none has all the time it takes.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.slice.is_some_and(|slice| slice.is_over())
    }

    /// Whether nothing automatic touches a target: it lies in an allowance or is a trunk's.
    #[must_use]
    pub(crate) fn exempts(&self, target: &Target) -> bool {
        self.allowed.exempts(target)
    }

    /// Whether a rule is an automatic block of what nothing automatic touches.
    #[must_use]
    pub(crate) fn skips(&self, target: &Target, spec: &RuleSpec) -> bool {
        spec.verb == RuleVerb::Block && !is_operators(&spec.origin) && self.exempts(target)
    }

    /// Sets the rule of a source about a target.
    pub(crate) fn upsert(&mut self, target: &Target, spec: &RuleSpec) -> Result<()> {
        let now_ms = self.clock.wall_ms();
        if self.skips(target, spec) {
            self.counts.skipped += 1;
            return Ok(());
        }
        self.supersede(target)?;
        let mut rows = self.before(target)?;
        let is_same = |row: &RuleRow| row.origin == spec.origin && row.verb == spec.verb;
        let old = rows.iter().find(|row| is_same(row) && row.is_active(now_ms)).cloned();
        let mut row = RuleRow {
            target: *target,
            origin: spec.origin.clone(),
            verb: spec.verb,
            mode: spec.mode,
            reason: spec.reason.clone().unwrap_or_default(),
            author: spec.author.as_ref().unwrap_or(&self.author).clone(),
            created_ms: spec.created_ms.unwrap_or(now_ms),
            expires_ms: spec.expires_ms,
            version: self.version,
        };
        if let Some(old) = &old {
            if spec.reason.is_none() {
                row.reason.clone_from(&old.reason);
            }
            let said = (old.mode, old.expires_ms, &old.reason);
            let is_news = is_overruled(old, &rows);
            if said == (row.mode, row.expires_ms, &row.reason) && !is_news {
                self.counts.same += 1;
                return Ok(());
            }
            // What was overruled is decided anew: of an exported list the later one decides.
            if !is_news {
                row.created_ms = old.created_ms;
            }
            self.counts.moved += 1;
        } else {
            self.counts.added += 1;
        }
        let waits = rows.is_empty() && self.only_blocks;
        if !waits {
            self.keep(rows.iter().find(|row| is_same(row)))?;
            self.rows.write(&row)?;
        }
        rows.retain(|row| !is_same(row));
        self.counts.overruled +=
            usize::from(row.is_operators() && rows.iter().any(|other| opposes(other, row.verb, now_ms)));
        rows.push(row);
        // An allowance may be another one when the change is done, so what it decides is asked then.
        let allows = |row: &RuleRow| row.verb == RuleVerb::Allow;
        let plain = !rows.iter().chain(&old).any(allows);
        let known = plain.then(|| desired_of(target, &rows, &self.allowed, &self.clock));
        self.touch(*target, !plain, known);
        if waits {
            self.pending.append(&mut rows);
        }
        if self.pending.len() == BATCH { self.flush() } else { Ok(()) }
    }

    /// Writes the rows that wait.
    pub fn flush(&mut self) -> Result<()> {
        self.rows.write_all(&take(&mut self.pending))
    }

    /// The rows of a target so far.
    fn before(&mut self, target: &Target) -> Result<Vec<RuleRow>> {
        if self.empty {
            let key = key(target);
            if self.highest.as_ref().is_none_or(|highest| *highest < key) {
                self.highest = Some(key);
                return Ok(Vec::new());
            }
        }
        self.flush()?;
        self.rows.of(target)
    }

    /// Takes rows away.
    pub fn remove(&mut self, rows: &[RuleRow]) -> Result<()> {
        for row in rows {
            self.keep(Some(row))?;
            self.rows.remove(row)?;
            self.touch(row.target, row.verb == RuleVerb::Allow, None);
        }
        Ok(())
    }

    /// Retracts the rules with a verb about a target, by one source or by all, and counts the target.
    pub(crate) fn retract(&mut self, target: &Target, verb: RuleVerb, origin: Option<&str>) -> Result<()> {
        self.supersede(target)?;
        let mut rows = self.rows.of(target)?;
        let is_opposed = rows.iter().any(|row| opposes(row, verb, self.clock.wall_ms()));
        rows.retain(|row| row.verb == verb && origin.is_none_or(|origin| row.origin == origin));
        self.remove(&rows)?;
        if rows.is_empty() {
            self.counts.same += 1;
        } else {
            self.counts.removed += 1;
            self.counts.again += usize::from(is_opposed);
        }
        Ok(())
    }

    /// Retracts all rules with a verb, by one source or by all, except about some targets, in as many parts as it takes. Whether it is
    /// through.
    pub(crate) fn retract_all(
        &mut self,
        gone: &mut RuleRemoval,
        verb: RuleVerb,
        origin: Option<&str>,
        kept: &HashSet<Target>,
    ) -> Result<bool> {
        loop {
            let page = self.rows.said(verb, origin, gone.after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(true) };
            let before = gone.after.replace((
                last.target.kind().to_owned(),
                last.target.to_string(),
                last.origin.clone(),
            ));
            let going: Vec<&RuleRow> = page.iter().filter(|row| !kept.contains(&row.target)).collect();
            for row in &going {
                if gone.add(row.target) {
                    self.counts.removed += 1;
                    // Of blocks there may be a million, allowances are few.
                    let may_oppose = verb == RuleVerb::Allow || self.allowed.has(&row.target);
                    let others = if may_oppose { self.rows.of(&row.target)? } else { Vec::new() };
                    let opposes = |other: &RuleRow| opposes(other, verb, self.clock.wall_ms());
                    self.counts.again += usize::from(others.iter().any(opposes));
                }
            }
            if going.len() == page.len() {
                // All between the two: two statements instead of two a row.
                self.rows.remove_between(
                    verb,
                    origin,
                    before.as_ref(),
                    gone.after.as_ref(),
                    self.slice.is_some(),
                )?;
                page.iter().for_each(|row| self.touch(row.target, row.verb == RuleVerb::Allow, None));
            } else {
                going.into_iter().try_for_each(|row| self.remove(std::slice::from_ref(row)))?;
            }
            if self.is_due() {
                return Ok(false);
            }
        }
    }

    /// Keeps a row that is replaced or removed, for when the long list of which this is a part is taken back.
    fn keep(&self, row: Option<&RuleRow>) -> Result<()> {
        match row {
            Some(row) if self.slice.is_some() => self.rows.keep(row),
            _ => Ok(()),
        }
    }

    /// A rule that is set during a long list stays, also when that list is taken back.
    fn supersede(&self, target: &Target) -> Result<()> {
        if self.slice.is_some() { Ok(()) } else { self.rows.forget_all(target) }
    }

    /// Takes a row away that a long list had added.
    pub(super) fn take_away(&mut self, row: &RuleRow) -> Result<()> {
        self.rows.remove(row)?;
        self.touch(row.target, row.verb == RuleVerb::Allow, None);
        Ok(())
    }

    /// Puts a row back that a long list had taken, unless somebody has set another one since.
    pub(super) fn put_back(&mut self, row: &RuleRow) -> Result<()> {
        if !self
            .rows
            .of(&row.target)?
            .iter()
            .any(|other| (&other.origin, other.verb) == (&row.origin, row.verb))
        {
            self.rows.write(row)?;
        }
        self.rows.forget(row)?;
        self.touch(row.target, row.verb == RuleVerb::Allow, None);
        Ok(())
    }

    /// Lets all of the maps be compared with the store.
    pub(super) fn compare_all(&mut self) {
        self.dirty.all = true;
    }

    /// Writes the row of the trail, when anything was done.
    pub fn record<T: ToString>(&self, verb: &str, origin: &str, targets: &[T], reason: &str) -> Result<()> {
        self.record_all(verb, origin, audit::what(targets), reason)
    }

    /// The same, with the targets as the trail tells them.
    pub(crate) fn record_all(&self, verb: &str, origin: &str, what: String, reason: &str) -> Result<()> {
        if self.counts.added + self.counts.moved + self.counts.removed == 0 {
            return Ok(());
        }
        audit::write(
            self.rows.db(),
            &AuditRecord {
                at_ms: self.clock.wall_ms(),
                author: self.author.clone(),
                origin: origin.to_owned(),
                verb: verb.to_owned(),
                what,
                reason: reason.to_owned(),
                counts: self.counts,
            },
        )
    }

    /// An allowance of a prefix concerns all within it.
    fn touch(&mut self, target: Target, allows: bool, known: Option<Option<DesiredEntry>>) {
        if let (true, Target::Source(net)) = (allows, target)
            && !net.is_host()
        {
            self.dirty.within.push(net);
        }
        self.dirty.some.push(DirtyEntry { target, known });
    }

    /// Nothing but blocks will be set, none of which another one changes: rows are written many at a time.
    pub(crate) fn only_blocks(&mut self) {
        self.only_blocks = true;
    }
}

/// How far taking away all rules of one kind is.
#[derive(Clone, Debug, Default)]
pub struct RuleRemoval {
    /// The last row that was looked at: kind, target and source.
    after: Option<RulePosition>,
    /// The first targets.
    first: Vec<Target>,
    last: Option<Target>,
    /// How many targets.
    count: usize,
}

impl RuleRemoval {
    /// One more target; `false` when it was the last one too.
    pub fn add(&mut self, target: Target) -> bool {
        if self.last == Some(target) {
            return false;
        }
        self.last = Some(target);
        self.count += 1;
        if self.first.len() < audit::NAMED {
            self.first.push(target);
        }
        true
    }

    /// The first targets, for the trail.
    #[must_use]
    pub fn what(&self) -> String {
        audit::named(&self.first, self.count)
    }
}

/// Whether a row is an operator's rule of the other verb, and holds.
fn opposes(row: &RuleRow, verb: RuleVerb, now_ms: i64) -> bool {
    row.verb != verb && row.is_operators() && row.is_active(now_ms)
}

/// Whether another decision came later, so that setting the same again is a change.
fn is_overruled(row: &RuleRow, rows: &[RuleRow]) -> bool {
    let later =
        |other: &RuleRow| other.is_operators() && other.verb != row.verb && other.version > row.version;
    row.is_operators() && rows.iter().any(later)
}

/// Who is at the keyboard.
pub(super) fn author() -> String {
    let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    named("SUDO_USER").or_else(|| named("USER")).unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}
