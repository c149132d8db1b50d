//! Sets blocks or allowances.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::protection::{OnProtected, Protection, WhyProtected, refusal, why_in_store};
use crate::address::Source;
use crate::clock::Clock;
use crate::maps;
use crate::notice::Notice;
use crate::ops::{Context, RuleChange};
use crate::rule::{RuleMode, RuleVerb};
use crate::senders::{self, SenderRow, TalliedKind};
use crate::store::{Change, Counts, OPERATOR, RuleSpec};
use crate::target::Target;
use sipguard_common::abi::MODE_MONITOR;

/// Of more addresses than these nobody looks at what each of them sent.
const LOOKED_AT: usize = 16;

/// Blocks or allowances of some targets.
#[derive(Clone, Debug)]
pub struct SetRules {
    /// Block or allow.
    pub kind: RuleVerb,
    /// Whom it is about, each once. What is allowed is an address or a prefix.
    pub targets: Vec<Target>,
    /// For how long; `None` is permanent.
    pub lasts: Option<Duration>,
    /// Why; `None` leaves a comment that is there.
    pub comment: Option<String>,
    /// Who sets it. Each origin has its own rule of a target.
    pub origin: String,
    /// A block that only counts.
    pub monitor: bool,
    /// What becomes of protected targets of a block.
    pub on_protected: OnProtected,
    /// Whether what is allowed or a trunk's is protected like the machine itself. Otherwise an automatic block of it is skipped and counted.
    pub no_skip: bool,
    /// Who sends what the targets stand for: as protected as the targets are. Nobody needs to be named for an address.
    pub sender: Option<IpAddr>,
}

impl SetRules {
    /// A permanent rule by the operator, who is asked about protected targets.
    #[must_use]
    pub fn new(kind: RuleVerb, targets: Vec<Target>) -> SetRules {
        SetRules {
            kind,
            targets,
            lasts: None,
            comment: None,
            origin: OPERATOR.to_owned(),
            monitor: false,
            on_protected: OnProtected::Refuse,
            no_skip: false,
            sender: None,
        }
    }

    fn spec(&self) -> Result<RuleSpec> {
        Ok(RuleSpec {
            mode: if self.monitor { RuleMode::Monitor } else { RuleMode::Enforce },
            reason: self.comment.clone(),
            expires_ms: Clock::now()?.wall_ms_after(self.lasts),
            ..RuleSpec::new(&self.origin, self.kind)
        })
    }
}

/// A target that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// Which.
    pub target: Target,
    /// Why.
    pub why: WhyProtected,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct RulesSet {
    /// What was done.
    pub change: RuleChange,
    /// Whether the guard's mode is monitor, so that what is blocked is only counted.
    pub only_counts: bool,
    /// Protected targets that were left out.
    pub held_back: Vec<HeldBack>,
}

/// Sets them, all or none.
///
/// # Errors
/// When a target is protected and that is refused, or the store or the kernel refuses.
pub fn set(host: &Context, request: &SetRules) -> Result<RulesSet> {
    let mut held_back = Vec::new();
    let targets = unprotected(request, &mut held_back)?;
    let spec = request.spec()?;
    let mut left = targets.iter();
    let done = host.bulk(targets.len(), |change| {
        for target in left.by_ref() {
            if let Some(why) = why_in(change, target, request, &spec)? {
                hold_back(request, target, why, &mut held_back)?;
                continue;
            }
            change.upsert(target, &spec)?;
            if change.is_due() {
                return Ok(None);
            }
        }
        let comment = request.comment.as_deref().unwrap_or_default();
        change.record(request.kind.name(), &request.origin, &targets, comment)?;
        Ok(Some(change.counts))
    })?;
    let mut result = RuleChange::of(&done);
    result.notices.extend(neighbours(host, request));
    let monitors = || maps::settings(&host.pins).is_ok_and(|settings| settings.mode == MODE_MONITOR);
    Ok(RulesSet {
        only_counts: request.kind == RuleVerb::Block && done.in_force && monitors(),
        change: result,
        held_back,
    })
}

/// That something well-formed came from an address that an operator has blocked: others may be behind it.
fn neighbours(host: &Context, request: &SetRules) -> Option<Notice> {
    let blocks = request.kind == RuleVerb::Block && !request.monitor && request.origin == OPERATOR;
    let sources: Vec<Source> = request.targets.iter().filter_map(source).collect();
    if !blocks || sources.is_empty() || sources.len() > LOOKED_AT || !host.pins.exist() {
        return None;
    }
    // The block holds, whether this can be told or not.
    let senders = senders::read(&host.pins, &[], TalliedKind::Messages).ok()?;
    let is_of = |one: Source| sources.iter().any(|source| source.covers(&one) || one.covers(source));
    let is_within = |row: &&SenderRow| row.source.is_some_and(is_of);
    let good: u64 =
        senders.iter().filter(is_within).map(|row| row.totals[TalliedKind::Messages as usize]).sum();
    let (messages, who) = match good {
        0 => return None,
        1 => ("1 well-formed message came".to_owned(), "whoever sent it"),
        good => (format!("{good} well-formed messages came"), "whoever sent them"),
    };
    let whence = if sources.len() == 1 { sources[0].to_string() } else { "what is blocked".to_owned() };
    let text = format!(
        "{messages} from {whence} since the attach: {who} is stopped too; `sipguard unblock` takes it back"
    );
    Some(Notice(text))
}

/// Addresses and prefixes alone.
fn source(target: &Target) -> Option<Source> {
    if let Target::Source(source) = target { Some(*source) } else { None }
}

/// The targets without those of a block that the machine's own state protects.
fn unprotected(request: &SetRules, held_back: &mut Vec<HeldBack>) -> Result<Vec<Target>> {
    if request.kind != RuleVerb::Block || request.on_protected == OnProtected::Override {
        return Ok(request.targets.clone());
    }
    let protection = Protection::now();
    let sender = request.sender.and_then(|sender| protection.why_of_sender(sender));
    let mut targets = Vec::with_capacity(request.targets.len());
    for target in &request.targets {
        match sender.clone().or_else(|| protection.why(target)) {
            Some(why) => hold_back(request, target, why, held_back)?,
            None => targets.push(*target),
        }
    }
    Ok(targets)
}

/// Why the store protects a target.
fn why_in(
    change: &Change<'_>,
    target: &Target,
    request: &SetRules,
    spec: &RuleSpec,
) -> Result<Option<WhyProtected>> {
    if request.on_protected == OnProtected::Override {
        return Ok(None);
    }
    // An identity lies in no allowance, but whoever has it may.
    if request.sender.is_some_and(|sender| change.exempts(&sender.into())) {
        return Ok(Some(WhyProtected::Exempt));
    }
    if request.no_skip && change.skips(target, spec) {
        return Ok(Some(WhyProtected::Exempt));
    }
    why_in_store(change, target, spec)
}

fn hold_back(
    request: &SetRules,
    target: &Target,
    why: WhyProtected,
    held_back: &mut Vec<HeldBack>,
) -> Result<()> {
    if request.on_protected == OnProtected::Refuse {
        return Err(refusal(target, &why));
    }
    held_back.push(HeldBack { target: *target, why });
    Ok(())
}

impl RulesSet {
    /// What was done, in targets.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.change.counts
    }
}
