//! One reading of a feed, applied as a difference.

use std::collections::BTreeMap;

use anyhow::Result;

use super::read::{Fetch, Reading, read};
use super::{find, unknown};
use crate::address::Source;
use crate::clock::Clock;
use crate::error::{Failure, FailureKind};
use crate::feed::{FeedForm, MOST_ENTRIES, Plan, is_special, plan};
use crate::ops::rule::{HeldBack, Protection, WhyProtected};
use crate::ops::{Context, RuleChange};
use crate::rule::RuleVerb;
use crate::store::{Allowed, Counts, FeedRow, RuleQuery, RuleSpec};
use crate::target::Target;

/// How long what came of a reading may go without being written down while nothing changes: a write costs the disk.
const NOTE_MS: i64 = 60_000;
/// How often all of a stream is read, and not only what has changed: what was lost in between comes back.
const WHOLE_MS: i64 = 600_000;

/// Which feed is read, and how.
#[derive(Clone, Copy, Debug)]
pub struct Refresh<'r> {
    /// Its name.
    pub name: &'r str,
    /// Takes also a change that is too large to be right.
    pub force: bool,
    /// Whether this process has read it to an end before.
    pub is_known: bool,
}

/// How a feed is read.
pub(super) struct How {
    /// It is added with it.
    pub adds: bool,
    /// Also a change that is too large to be right.
    pub force: bool,
    /// It was written down that it begins, so its end is too.
    pub is_begun: bool,
}

/// What reading a feed did.
#[derive(Clone, Debug, Default)]
pub struct FeedRefreshed {
    /// The change of its rules.
    pub change: RuleChange,
    /// What is not blocked although the feed has it.
    pub held_back: Vec<HeldBack>,
    /// Entries that can't be blocks, such as CrowdSec's decisions about countries.
    pub passed_over: usize,
    /// Decisions that are not blocked since the feed has as many as it may.
    pub left_out: usize,
    /// Whether all of it was read, and not only what had changed.
    pub is_whole: bool,
}

/// Reads a feed, and applies what has changed. Why it failed is kept, for `feed list`. Before, it is written down that it begins: at the first
/// time of a process, and then once a minute.
///
/// # Errors
/// When there is none of that name, it can't be read, has a mistake or no entry, changes more than half of what it had (unless `force`), or the
/// store or the kernel refuses. Then its rules stay as they were.
pub fn refresh(host: &Context, request: &Refresh<'_>, fetch: Option<Fetch>) -> Result<FeedRefreshed> {
    let Refresh { name, force, is_known } = *request;
    let feed = find(host, name)?;
    let now_ms = Clock::now()?.wall_ms();
    let is_recent = feed.tried_ms.is_some_and(|tried| (0..NOTE_MS).contains(&(now_ms - tried)));
    let is_begun = !is_known || !is_recent;
    if is_begun {
        host.change(|change| change.begin_feed(name))?;
    }
    let outcome = attempt(host, &feed, fetch, &How { adds: false, force, is_begun });
    if let Err(error) = &outcome {
        let why = format!("{error:#}");
        if is_begun || feed.failure != why {
            host.change(|change| change.note_feed(name, false, Some(&why)))?;
        }
    }
    outcome
}

pub(super) fn attempt(
    host: &Context,
    feed: &FeedRow,
    fetch: Option<Fetch>,
    how: &How,
) -> Result<FeedRefreshed> {
    let now_ms = Clock::now()?.wall_ms();
    let is_recent = |when: Option<i64>, most| when.is_some_and(|when| (0..most).contains(&(now_ms - when)));
    let whole = how.force || !feed.failure.is_empty() || !is_recent(feed.whole_ms, WHOLE_MS);
    let mut reading = read(feed, whole, fetch, now_ms)?;
    let is_list = feed.form != FeedForm::Crowdsec;
    if is_list && reading.new.is_empty() {
        return Err(refusal("there is no entry in it", ""));
    }
    let (passed_over, is_whole) = (reading.passed_over, reading.is_whole);
    let mut done = FeedRefreshed { passed_over, is_whole, ..FeedRefreshed::default() };
    if !reading.is_whole
        && reading.new.is_empty()
        && reading.gone.is_empty()
        && is_recent(feed.refreshed_ms, NOTE_MS)
        && !how.is_begun
    {
        done.change.in_force = host.is_attached();
        return Ok(done);
    }
    done.held_back = hold_back(host, &mut reading, is_list, now_ms)?;
    let origin = feed.origin();
    let before = host.read(|rows| match reading.touched() {
        // Of a few no more is looked at than they.
        Some(few) => rows.blocked_among(&origin, &few, now_ms),
        None => rows.blocked_by(&origin, now_ms),
    })?;
    let before = before.unwrap_or_default();
    let entries = reading.new.len();
    let at_work = reading.at_work.take();
    let mut plan = planned(&before, reading, feed, now_ms);
    if let (true, false, Err(why)) = (is_list, how.force, plan.expect_usual()) {
        let way = match how.adds {
            true => "; `--force` behind the same `feed add` takes it".to_owned(),
            false => format!("; `sipguard feed refresh {} --force` takes it", feed.name),
        };
        return Err(refusal(&why.to_string(), &way));
    }
    if plan.new > 0 {
        let held = if is_whole { before.len() } else { entries_of(host, &origin, now_ms)? };
        let room = MOST_ENTRIES.saturating_sub(held.saturating_sub(plan.gone.len()));
        done.left_out = plan.fit(&before, room);
    }
    let is_note = plan.set.is_empty() && plan.gone.is_empty() && is_recent(feed.refreshed_ms, NOTE_MS);
    if is_note && !whole && !how.adds && !how.is_begun {
        done.change.in_force = host.is_attached();
    } else {
        done.change = apply(host, feed, &plan, whole, how)?;
    }
    done.change.counts.same = entries - plan.set.len() - done.left_out;
    drop(at_work);
    Ok(done)
}

/// How many blocks of an origin hold.
fn entries_of(host: &Context, origin: &str, now_ms: i64) -> Result<usize> {
    let query = RuleQuery { verb: Some(RuleVerb::Block), origin: Some(origin), now_ms, ends_by_ms: None };
    Ok(host.read(|rows| rows.count(&query))?.unwrap_or_default())
}

fn refusal(why: &str, way: &str) -> anyhow::Error {
    Failure::with(FailureKind::Failed, format!("{why}: nothing was changed{way}"))
}

/// Takes out what a feed does not block. A list of the internet says nothing of this network; what is decided on this host does.
fn hold_back(host: &Context, reading: &mut Reading, is_list: bool, now_ms: i64) -> Result<Vec<HeldBack>> {
    let protection = Protection::now();
    let allowed =
        host.read(|rows| Ok(Allowed::of(&rows.allowing()?, rows.peers()?, now_ms)))?.unwrap_or_default();
    let mut held_back = Vec::new();
    reading.new.retain(|block| {
        let target = Target::Source(block.source);
        let why = protection.why(&target).or_else(|| {
            let special = (is_list && is_special(&block.source)).then_some(WhyProtected::Special);
            special.or_else(|| allowed.exempts(&target).then_some(WhyProtected::Exempt))
        });
        held_back.extend(why.map(|why| HeldBack { target, why }));
        held_back.last().is_none_or(|last| last.target != target)
    });
    Ok(held_back)
}

fn planned(before: &BTreeMap<Source, Option<i64>>, reading: Reading, feed: &FeedRow, now_ms: i64) -> Plan {
    if reading.is_whole {
        return plan(before, &reading.new, feed.keep, now_ms);
    }
    let mut changes = plan(before, &reading.new, feed.keep, now_ms);
    let mut gone = reading.gone;
    gone.sort_unstable();
    gone.dedup();
    gone.retain(|source| {
        before.contains_key(source) && reading.new.binary_search_by_key(source, |block| block.source).is_err()
    });
    changes.gone = gone;
    changes
}

fn apply(host: &Context, feed: &FeedRow, plan: &Plan, whole: bool, how: &How) -> Result<RuleChange> {
    let origin = feed.origin();
    let (mut set, mut gone) = (plan.set.iter(), plan.gone.iter());
    let done = host.bulk(plan.set.len() + plan.gone.len(), |change| {
        if how.adds {
            change.set_feed(feed)?;
        } else if !change.rows.feeds()?.iter().any(|other| other.name == feed.name) {
            // Somebody has removed it while it was read.
            return Err(unknown(&feed.name));
        }
        change.only_blocks();
        for (source, end_ms) in set.by_ref() {
            let spec = RuleSpec { expires_ms: Some(*end_ms), ..RuleSpec::new(&origin, RuleVerb::Block) };
            change.upsert(&Target::Source(*source), &spec)?;
            if change.is_due() {
                return Ok(None);
            }
        }
        change.flush()?;
        for source in gone.by_ref() {
            change.retract(&Target::Source(*source), RuleVerb::Block, Some(&origin))?;
            if change.is_due() {
                return Ok(None);
            }
        }
        change.note_feed(&feed.name, whole, None)?;
        let targets: Vec<&Source> = plan.set.iter().map(|(source, _)| source).chain(&plan.gone).collect();
        change.record("feed refresh", &origin, &targets, "")?;
        Ok(Some(change.counts))
    })?;
    let counts = Counts { same: 0, ..done.value };
    Ok(RuleChange { counts, ..RuleChange::of(&done) })
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
