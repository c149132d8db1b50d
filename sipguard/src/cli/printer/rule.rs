//! What a change of rules did, in one JSON form for all kinds of rules.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sipguard_core::duration;
use sipguard_core::ops::rule::{LiftRules, RulesSet, SetRules};
use sipguard_core::ops::{Counts, RuleChange, RuleVerb};

use super::{Format, notices, object, plural};

const SCHEMA: &str = "sipguard.change/2";

/// A change of rules, in targets or in whatever else has rules.
#[derive(Serialize)]
struct ChangeDocument {
    /// Have a rule now and had none.
    added: usize,
    /// Whose rule is another one now.
    changed: usize,
    /// Lost their rule.
    removed: usize,
    /// Were so already.
    unchanged: usize,
    /// Are allowed or a trunk's, which nothing automatic touches.
    skipped: usize,
    /// Have an operator's rule of the other kind, which does not decide any more.
    overruled: usize,
    /// Have such a rule, which decides again.
    restored: usize,
    /// Whether it is in force, and not only stored.
    in_force: bool,
}

/// Prints a change. `sentence` is for people, without its end.
pub fn change(format: Format, change: &RuleChange, sentence: impl FnOnce() -> String) -> Result<()> {
    notices(&change.notices);
    let Counts { added, moved, removed, same, skipped, overruled, again } = change.counts;
    let document = ChangeDocument {
        added,
        changed: moved,
        removed,
        unchanged: same,
        skipped,
        overruled,
        restored: again,
        in_force: change.in_force,
    };
    object(format, SCHEMA, &document, || sentence() + "\n")
}

/// Prints a change of one thing: `did` when there was one, `same` when it was so already.
pub fn change_of_one(format: Format, done: &RuleChange, did: &str, same: &str) -> Result<()> {
    change(format, done, || match done.is_any() {
        true => did.to_owned() + later(done.in_force),
        false => format!("nothing changed, {same}"),
    })
}

/// The end of a sentence about what is not in force.
pub fn later(in_force: bool) -> &'static str {
    if in_force { "" } else { "; not attached: takes effect with the next `sipguard attach`" }
}

pub fn set(format: Format, request: &SetRules, done: &RulesSet) -> Result<()> {
    let hint = if done.only_counts {
        "; the mode is monitor: it is only counted, `sipguard mode enforce` stops it"
    } else {
        ""
    };
    change(format, &done.change, || set_sentence(request, done.counts()) + hint + end(&done.change))
}

pub fn lifted(format: Format, request: &LiftRules, done: &RuleChange) -> Result<()> {
    change(format, done, || lifted_sentence(request.kind, &done.counts) + end(done))
}

pub fn imported(format: Format, done: &RuleChange) -> Result<()> {
    let counts = &done.counts;
    let parts = [(counts.added, "added"), (counts.moved, "changed"), (counts.removed, "lifted")];
    let did = parts.iter().filter(|(count, _)| *count > 0);
    let did = did.map(|(count, did)| format!("{did} {}", plural(*count, "rule"))).collect();
    change(format, done, || sentence(did, counts, "as wanted already") + end(done))
}

fn end(done: &RuleChange) -> &'static str {
    let came = done.counts.added + done.counts.moved > 0;
    later(done.in_force || !came)
}

/// What rules that were set did.
pub fn set_sentence(request: &SetRules, counts: &Counts) -> String {
    let (did, thing, undo, other, state) = match request.kind {
        RuleVerb::Block => ("blocked", "block", "unblock", "allowance", "blocked so already"),
        RuleVerb::Allow => ("allowed", "rule", "unallow", "block", "allowed so already"),
    };
    let mut parts = Vec::new();
    if counts.added > 0 {
        parts.push(format!("{did} {} {}", plural(counts.added, "source"), until(request.lasts)));
    }
    if counts.moved > 0 {
        parts.push(format!("changed {}", plural(counts.moved, thing)));
    }
    if counts.overruled > 0 {
        parts.push(format!("overruled {} until `sipguard {undo}`", plural(counts.overruled, other)));
    }
    sentence(parts, counts, state)
}

/// What lifting rules did.
pub fn lifted_sentence(kind: RuleVerb, counts: &Counts) -> String {
    let (did, other, state) = match kind {
        RuleVerb::Block => ("unblocked", "allowance", "not blocked"),
        RuleVerb::Allow => ("ended the allowance of", "block", "not allowed"),
    };
    let mut parts = Vec::new();
    if counts.removed > 0 {
        parts.push(format!("{did} {}", plural(counts.removed, "source")));
    }
    if counts.again > 0 {
        let verb = if counts.again == 1 { "holds" } else { "hold" };
        parts.push(format!("{} {verb} again", plural(counts.again, other)));
    }
    sentence(parts, counts, state)
}

/// What was done, and to how many targets nothing had to be done.
fn sentence(did: Vec<String>, counts: &Counts, state: &str) -> String {
    let mut parts = did;
    if parts.is_empty() {
        parts.push("nothing changed".to_owned());
    }
    if counts.same > 0 {
        parts.push(format!("{} {state}", plural(counts.same, "source")));
    }
    if counts.skipped > 0 {
        parts.push(format!("skipped {}, allowed or of a trunk", plural(counts.skipped, "source")));
    }
    parts.join(", ")
}

/// `permanently` or `for 15m`.
fn until(lasts: Option<Duration>) -> String {
    lasts.map_or("permanently".to_owned(), |span| format!("for {}", duration::shown(span)))
}
