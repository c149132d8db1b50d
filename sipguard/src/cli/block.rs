//! `sipguard block` and `sipguard unblock`

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use sipguard_common::abi::MODE_MONITOR;

use super::targets::{read_checked, read_targets};
use super::{Span, parse_duration, plural};
use crate::claim::UserAgent;
use crate::clock::Clock;
use crate::error::{Failure, Status};
use crate::maps;
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::protect::{hit, protected};
use crate::settings::{DEFAULT_PORT, DEFAULT_TLS_PORT};
use crate::store::{self, Counts, GUARD, OPERATOR, RuleMode, RuleRemoval, RuleSpec, RuleVerb, bulk};
use crate::store::{parse_origin, parse_reason};
use crate::target::{Target, device_without_brackets};

#[derive(Debug, clap::Args)]
pub struct BlockArgs {
    /// Addresses, prefixes, one device of an address (ADDR:PORT) or a SIP identity, both on guarded ports; `-` reads them from standard
    /// input, separated by white space, `#` begins a comment
    #[arg(required_unless_present = "agents", value_name = "ADDR|CIDR|ADDR:PORT|sip:USER@HOST|-")]
    targets: Vec<String>,

    /// Requests whose User-Agent begins so, in upper or lower case; repeatable
    #[arg(long = "user-agent", value_name = "TEXT", value_parser = UserAgent::parse)]
    agents: Vec<UserAgent>,

    /// For how long: seconds, or such as 15m, 1d, 29m59.4s, or permanent
    #[arg(long = "for", value_name = "DURATION", default_value = "permanent", value_parser = parse_duration)]
    span: Span,

    /// Why, for `list` and `lookup`
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: Option<String>,

    /// Who blocks, such as fail2ban; each source has its own block of an address, and all but `cli` and `config` leave allowed addresses alone
    #[arg(long = "source", value_name = "NAME", default_value = OPERATOR, value_parser = parse_origin)]
    origin: String,

    /// Only count what would be stopped
    #[arg(long)]
    monitor: bool,

    /// Block also the peer of an SSH session, a gateway, an own address, a trunk, a prefix shorter than /8 (IPv6: /16) or a family of phones or PBXs
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub struct UnblockArgs {
    /// Addresses, prefixes, devices, whose bans are lifted as well, or SIP identities; `-` reads them from standard input
    #[arg(required_unless_present_any = ["all", "agents"], value_name = "ADDR|CIDR|ADDR:PORT|sip:USER@HOST|-")]
    targets: Vec<String>,

    /// User agents that begin so
    #[arg(long = "user-agent", value_name = "TEXT", value_parser = UserAgent::parse)]
    agents: Vec<UserAgent>,

    /// Every block and ban
    #[arg(long, conflicts_with_all = ["targets", "agents"])]
    all: bool,

    /// Only the blocks of this source; else those of all sources
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,
}

impl BlockArgs {
    /// What the operator asks for without typing a command.
    pub fn of(target: Target, span: Span, reason: &str) -> BlockArgs {
        let reason = (!reason.is_empty()).then(|| reason.to_owned());
        let text = match target {
            // Nobody has typed it, so it is no device without brackets.
            Target::Source(source) if source.is_host() && !source.is_ipv4() => format!("{source}/128"),
            _ => target.to_string(),
        };
        let (targets, origin) = (vec![text], OPERATOR.to_owned());
        BlockArgs { targets, agents: Vec::new(), span, reason, origin, monitor: false, force: false }
    }
}

pub fn block(pins: &Pins, path: &Path, format: Format, args: &BlockArgs) -> Result<()> {
    let done = make(pins, path, args)?;
    let monitors = done.in_force && maps::settings(pins).is_ok_and(|settings| settings.mode == MODE_MONITOR);
    let hint = if monitors {
        "; the mode is monitor: it is only counted, `sipguard mode enforce` stops it"
    } else {
        ""
    };
    report(format, &done, |counts| made(counts, args.span) + hint)
}

/// Makes the blocks.
pub fn make(pins: &Pins, path: &Path, args: &BlockArgs) -> Result<store::Changed<Counts>> {
    // What a program blocks is what it has seen.
    let is_typed = args.origin == OPERATOR && !args.force;
    let ports = if is_typed { sip_ports(pins) } else { Vec::new() };
    let read = read_checked(&args.targets, &|word| match device_without_brackets(word, &ports) {
        None => Ok(()),
        Some(device) => Err(format!(
            "`{word}` is one IPv6 address, and looks like the device {device}: write that, or `{word}/128` (or `--force`) for the address"
        )),
    });
    let targets = with_agents(read?, &args.agents);
    if !args.force {
        refuse_protected(&targets)?;
    }
    let mode = if args.monitor { RuleMode::Monitor } else { RuleMode::Enforce };
    let expires_ms = Clock::now()?.wall_ms_after(args.span.0);
    let spec = RuleSpec {
        mode,
        reason: args.reason.clone(),
        expires_ms,
        ..RuleSpec::new(&args.origin, RuleVerb::Block)
    };
    let mut left = targets.iter();
    bulk(path, pins, targets.len(), |change| {
        for target in left.by_ref() {
            if let Some(trunk) = change.blocked_trunk(target, &spec)?.filter(|_| !args.force) {
                return Err(Failure::with(
                    Status::Failed,
                    format!(
                        "{target} stops the trunk {trunk}: nothing was blocked; `--force` blocks it all the same"
                    ),
                ));
            }
            change.upsert(target, &spec)?;
            if change.is_due() {
                return Ok(None);
            }
        }
        change.record("block", &args.origin, &targets, args.reason.as_deref().unwrap_or_default())?;
        Ok(Some(change.counts))
    })
}

/// What that was, for people.
pub fn made(counts: &Counts, span: Span) -> String {
    let mut did = Vec::new();
    if counts.added > 0 {
        did.push(format!("blocked {} {}", plural(counts.added, "source"), until(span)));
    }
    if counts.moved > 0 {
        did.push(format!("changed {}", plural(counts.moved, "block")));
    }
    if counts.overruled > 0 {
        did.push(format!("overruled {} until `sipguard unblock`", plural(counts.overruled, "allowance")));
    }
    sentence(did, counts, "blocked so already")
}

impl UnblockArgs {
    /// The same for a target, of whichever source its blocks are.
    pub fn of(target: Target) -> UnblockArgs {
        UnblockArgs { targets: vec![target.to_string()], agents: Vec::new(), all: false, origin: None }
    }
}

pub fn unblock(pins: &Pins, path: &Path, format: Format, args: &UnblockArgs) -> Result<()> {
    let done = lift(pins, path, args)?;
    report(format, &done, lifted)
}

/// Lifts the blocks.
pub fn lift(pins: &Pins, path: &Path, args: &UnblockArgs) -> Result<store::Changed<Counts>> {
    let targets = with_agents(read_targets(&args.targets)?, &args.agents);
    let origin = args.origin.as_deref();
    let mut left = targets.iter();
    let (mut gone, mut bans) = (RuleRemoval::default(), None);
    bulk(path, pins, if args.all { usize::MAX } else { targets.len() }, |change| {
        let bans = match &mut bans {
            Some(bans) => bans,
            None if origin.is_none_or(|origin| origin == GUARD) => {
                bans.insert(change.lift((!args.all).then_some(&targets))?)
            }
            None => bans.insert(Vec::new()),
        };
        if args.all && !change.retract_all(&mut gone, RuleVerb::Block, origin, &HashSet::new())? {
            return Ok(None);
        }
        for target in left.by_ref() {
            change.retract(target, RuleVerb::Block, origin)?;
            if change.is_due() {
                return Ok(None);
            }
        }
        for target in targets.iter().chain(bans.iter().filter(|ban| !targets.contains(ban))) {
            gone.add(*target);
        }
        change.counts.lift(bans.len());
        change.record_all("unblock", origin.unwrap_or(OPERATOR), gone.what(), "")?;
        Ok(Some(change.counts))
    })
}

/// What that was, for people.
pub fn lifted(counts: &Counts) -> String {
    let mut did = Vec::new();
    if counts.removed > 0 {
        did.push(format!("unblocked {}", plural(counts.removed, "source")));
    }
    did.extend(again(counts, "allowance"));
    sentence(did, counts, "not blocked")
}

/// Which rules of the other verb hold again.
pub fn again(counts: &Counts, thing: &str) -> Option<String> {
    let verb = if counts.again == 1 { "holds" } else { "hold" };
    (counts.again > 0).then(|| format!("{} {verb} again", plural(counts.again, thing)))
}

/// The targets with user agents, each once.
fn with_agents(mut targets: Vec<Target>, agents: &[UserAgent]) -> Vec<Target> {
    targets.extend(agents.iter().map(|agent| Target::UserAgent(*agent)));
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// Ports that a device is known by: those that are guarded, and those that SIP has nearly everywhere.
fn sip_ports(pins: &Pins) -> Vec<u16> {
    let guarded = pins.are_attached().then(|| maps::ports(pins).ok()).flatten().unwrap_or_default();
    let known = [DEFAULT_PORT, DEFAULT_TLS_PORT, 5080];
    known.into_iter().chain(guarded.sip).chain(guarded.tls).collect()
}

/// A device or identity is blocked on guarded ports alone, so that no way to the machine is cut with it.
fn refuse_protected(targets: &[Target]) -> Result<()> {
    let protected = protected();
    let what = targets.iter().find_map(|target| {
        match target {
            Target::Source(source) if source.is_wide() => {
                Some(format!("is shorter than /{}", source.least_bits()))
            }
            Target::Source(source) => {
                hit(source, &protected).map(|entry| format!("is {} ({})", entry.role, entry.address))
            }
            Target::UserAgent(agent) => {
                agent.family().map(|family| format!("would stop every user agent of the family {family}"))
            }
            Target::Device(_) | Target::Identity(_) => None,
        }
        .map(|what| format!("{target} {what}"))
    });
    match what {
        None => Ok(()),
        Some(what) => Err(Failure::with(
            Status::Failed,
            format!("{what}: nothing was blocked; `--force` blocks it all the same"),
        )),
    }
}

/// `permanently` or `for 15m`.
pub fn until(span: Span) -> String {
    span.0.map_or("permanently".to_owned(), |span| format!("for {}", humantime::format_duration(span)))
}

/// Prints what a change did.
pub fn report(
    format: Format,
    done: &store::Changed<Counts>,
    sentence: impl FnOnce(&Counts) -> String,
) -> Result<()> {
    let Counts { added, moved, removed, same, skipped, overruled, again } = done.value;
    let value = json!({
        "added": added, "moved": moved, "removed": removed, "unchanged": same, "skipped": skipped,
        "overruled": overruled, "again": again,
        "in_force": done.in_force,
    });
    let later = added + moved > 0 && !done.in_force;
    let later = if later { "; not attached: takes effect with the next `sipguard attach`" } else { "" };
    object(format, "sipguard.change/1", value, || sentence(&done.value) + later + "\n")
}

/// What was done, and to how many targets nothing had to be done.
pub fn sentence(did: Vec<String>, counts: &Counts, state: &str) -> String {
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
