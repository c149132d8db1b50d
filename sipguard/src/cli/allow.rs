//! `sipguard allow` and `sipguard unallow`

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;

use super::block::{again, report, sentence, until};
use super::targets::read_sources;
use super::{Span, parse_duration, plural};
use crate::clock::Clock;
use crate::output::Format;
use crate::pins::Pins;
use crate::store::{Changed, Counts, OPERATOR, RuleRemoval, RuleSpec, RuleVerb, bulk};
use crate::store::{parse_origin, parse_reason};
use crate::target::Target;

#[derive(Debug, clap::Args)]
pub struct AllowArgs {
    /// Addresses or prefixes; `-` reads them from standard input
    #[arg(required = true, value_name = "ADDR|CIDR|-")]
    targets: Vec<String>,

    /// For how long: seconds, or such as 15m, 1d, 29m59.4s, or permanent
    #[arg(long = "for", value_name = "DURATION", default_value = "permanent", value_parser = parse_duration)]
    span: Span,

    /// Why, for `list` and `lookup`
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: Option<String>,

    /// Who allows, such as the name of a list
    #[arg(long = "source", value_name = "NAME", default_value = OPERATOR, value_parser = parse_origin)]
    origin: String,
}

#[derive(Debug, clap::Args)]
pub struct UnallowArgs {
    /// Addresses or prefixes; `-` reads them from standard input
    #[arg(required_unless_present = "all", value_name = "ADDR|CIDR|-")]
    targets: Vec<String>,

    /// Every allowance
    #[arg(long, conflicts_with = "targets")]
    all: bool,

    /// Only the allowances of this source; else those of all sources
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,
}

impl AllowArgs {
    /// What the operator asks for without typing a command.
    pub fn of(target: Target, span: Span, reason: &str) -> AllowArgs {
        let reason = (!reason.is_empty()).then(|| reason.to_owned());
        AllowArgs { targets: vec![target.to_string()], span, reason, origin: OPERATOR.to_owned() }
    }
}

pub fn allow(pins: &Pins, path: &Path, format: Format, args: &AllowArgs) -> Result<()> {
    let done = make(pins, path, args)?;
    report(format, &done, |counts| made(counts, args.span))
}

/// Makes the allowances.
pub fn make(pins: &Pins, path: &Path, args: &AllowArgs) -> Result<Changed<Counts>> {
    let targets = read_sources(&args.targets, "allow")?;
    let spec = RuleSpec {
        reason: args.reason.clone(),
        expires_ms: Clock::now()?.wall_ms_after(args.span.0),
        ..RuleSpec::new(&args.origin, RuleVerb::Allow)
    };
    let mut left = targets.iter();
    bulk(path, pins, targets.len(), |change| {
        for target in left.by_ref() {
            change.upsert(target, &spec)?;
            if change.is_due() {
                return Ok(None);
            }
        }
        change.record("allow", &args.origin, &targets, args.reason.as_deref().unwrap_or_default())?;
        Ok(Some(change.counts))
    })
}

/// What that was, for people.
pub fn made(counts: &Counts, span: Span) -> String {
    let mut did = Vec::new();
    if counts.added > 0 {
        did.push(format!("allowed {} {}", plural(counts.added, "source"), until(span)));
    }
    if counts.moved > 0 {
        did.push(format!("changed {}", plural(counts.moved, "rule")));
    }
    if counts.overruled > 0 {
        did.push(format!("overruled {} until `sipguard unallow`", plural(counts.overruled, "block")));
    }
    sentence(did, counts, "allowed so already")
}

impl UnallowArgs {
    /// The same for a target, of whichever source its allowances are.
    pub fn of(target: Target) -> UnallowArgs {
        UnallowArgs { targets: vec![target.to_string()], all: false, origin: None }
    }
}

pub fn unallow(pins: &Pins, path: &Path, format: Format, args: &UnallowArgs) -> Result<()> {
    let done = end(pins, path, args)?;
    report(format, &done, ended)
}

/// Ends the allowances.
pub fn end(pins: &Pins, path: &Path, args: &UnallowArgs) -> Result<Changed<Counts>> {
    let targets = read_sources(&args.targets, "unallow")?;
    let origin = args.origin.as_deref();
    let mut left = targets.iter();
    let mut gone = RuleRemoval::default();
    bulk(path, pins, if args.all { usize::MAX } else { targets.len() }, |change| {
        if args.all && !change.retract_all(&mut gone, RuleVerb::Allow, origin, &HashSet::new())? {
            return Ok(None);
        }
        for target in left.by_ref() {
            gone.add(*target);
            change.retract(target, RuleVerb::Allow, origin)?;
            if change.is_due() {
                return Ok(None);
            }
        }
        change.record_all("unallow", origin.unwrap_or(OPERATOR), gone.what(), "")?;
        Ok(Some(change.counts))
    })
}

/// What that was, for people.
pub fn ended(counts: &Counts) -> String {
    let mut did = Vec::new();
    if counts.removed > 0 {
        did.push(format!("ended the allowance of {}", plural(counts.removed, "source")));
    }
    did.extend(again(counts, "block"));
    sentence(did, counts, "not allowed")
}
