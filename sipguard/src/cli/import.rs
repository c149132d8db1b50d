//! `sipguard import`: rules from a list.

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::block::{report, sentence};
use super::{Span, parse_duration, plural, usage};
use crate::error::{Failure, Status};
use crate::exchange::{self, End, Entry, Form};
use crate::output::Format;
use crate::pins::Pins;
use crate::protect::{hit, protected};
use crate::store::parse_origin;
use crate::store::{Change, RuleRemoval, RuleSpec, RuleVerb, bulk, key};
use crate::target::Target;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The list; `-` is standard input
    #[arg(value_name = "FILE|-")]
    file: String,

    /// Its form [default: as its name or its beginning tells]
    #[arg(long, value_enum)]
    format: Option<Form>,

    /// Who sets the rules [default: who the list says, or else import:NAME with the file's name]
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,

    /// For how long, where the list does not say: seconds, or such as 15m, 1d, 29m59.4s, or permanent
    #[arg(long = "for", value_name = "DURATION", default_value = "permanent", value_parser = parse_duration)]
    span: Span,

    /// Also lift what this source set before and is not in the list any more; an empty list is refused
    #[arg(long)]
    replace: bool,

    /// Take blocks of prefixes shorter than /8 (IPv6: /16) as well; what holds an own address, a gateway or the peer of an SSH session is
    /// skipped all the same
    #[arg(long)]
    force: bool,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    let entries = checked(args)?;
    let own = args.origin.clone().unwrap_or_else(|| named(&args.file));
    if args.replace && entries.is_empty() {
        // What a download that failed leaves behind is such a list.
        return Err(Failure::with(
            Status::Failed,
            format!(
                "there is no rule in {}: nothing was changed. To lift all that it had set: `sipguard unblock --all --source {own}`",
                shown(&args.file)
            ),
        ));
    }
    let mut origins: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.origin.as_deref()).collect();
    if origins.is_empty() {
        origins.insert(&own);
    }
    let origins: Vec<&str> = origins.into_iter().collect();
    let bar = progress(entries.len() as u64);
    let only_blocks = entries.iter().all(|entry| entry.verb == RuleVerb::Block);
    let mut left = entries.iter();
    let mut lifting = if args.replace { lifts(&origins, &entries) } else { Vec::new() };
    let done = bulk(path, pins, if args.replace { usize::MAX } else { entries.len() }, |change| {
        if only_blocks {
            change.only_blocks();
        }
        for entry in left.by_ref() {
            say(change, entry, args.span, &bar)?;
            bar.inc(1);
            if change.is_due() {
                return Ok(None);
            }
        }
        change.flush()?;
        while let Some((origin, verb, kept, gone)) = lifting.last_mut() {
            if !change.retract_all(gone, *verb, Some(origin), kept)? {
                return Ok(None);
            }
            lifting.pop();
        }
        change.record("import", &origins.join(" "), &[&args.file], "")?;
        Ok(Some(change.counts))
    });
    bar.finish_and_clear();
    report(format, &done?, |counts| {
        let parts = [(counts.added, "added"), (counts.moved, "changed"), (counts.removed, "lifted")];
        let did = parts.iter().filter(|(count, _)| *count > 0);
        sentence(
            did.map(|(count, did)| format!("{did} {}", plural(*count, "rule"))).collect(),
            counts,
            "as wanted already",
        )
    })
}

fn say(change: &mut Change<'_>, entry: &Entry, span: Span, bar: &ProgressBar) -> Result<()> {
    let clock = change.clock;
    let expires_ms = match entry.end {
        End::Unsaid => clock.wall_ms_after(span.0),
        End::Never => None,
        End::At(end_ms) => Some(end_ms),
        End::After(seconds) => clock.wall_ms_after(Some(Duration::from_secs(seconds))),
    };
    if expires_ms.is_some_and(|end_ms| end_ms <= clock.wall_ms()) {
        return Ok(());
    }
    let spec = RuleSpec {
        mode: entry.mode,
        reason: entry.reason.clone(),
        expires_ms,
        created_ms: entry.created_ms,
        author: entry.author.clone(),
        ..RuleSpec::new(entry.origin.as_deref().unwrap_or_default(), entry.verb)
    };
    if let Some(trunk) = change.blocked_trunk(&entry.target, &spec)? {
        bar.suspend(|| eprintln!("sipguard: {} stops the trunk {trunk} and was skipped", entry.target));
        return Ok(());
    }
    change.upsert(&entry.target, &spec)
}

/// What a list replaces: all that its sources set before and is not in it.
fn lifts<'o>(
    origins: &[&'o str],
    entries: &[Entry],
) -> Vec<(&'o str, RuleVerb, HashSet<Target>, RuleRemoval)> {
    let mut lifts = Vec::new();
    for origin in origins {
        for verb in [RuleVerb::Block, RuleVerb::Allow] {
            let of =
                entries.iter().filter(|entry| entry.verb == verb && entry.origin.as_deref() == Some(origin));
            let kept: HashSet<Target> = of.map(|entry| entry.target).collect();
            lifts.push((*origin, verb, kept, RuleRemoval::default()));
        }
    }
    lifts
}

/// The entries of the list, each target and source once, without what an operator does not want to block by mistake.
fn checked(args: &Args) -> Result<Vec<Entry>> {
    let shown = shown(&args.file);
    let mut bytes = Vec::new();
    if args.file == "-" {
        std::io::stdin().read_to_end(&mut bytes).context("reading standard input")?;
    } else {
        bytes = std::fs::read(&args.file).with_context(|| format!("reading {shown}"))?;
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good =
            String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let (line, column) =
            (good.split('\n').count(), good.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
        usage(format!("{shown}:{line}:{column}: this is no text (UTF-8): nothing was imported"))
    })?;
    let form = args.format.unwrap_or_else(|| exchange::guess(&args.file, &text));
    let mut entries = exchange::read(form, &text, args.force)
        .map_err(|mistake| usage(format!("{shown}:{mistake}: nothing was imported")))?;
    let own = args.origin.clone().unwrap_or_else(|| named(&args.file));
    for entry in &mut entries {
        if args.origin.is_some() || entry.origin.is_none() {
            entry.origin = Some(own.clone());
        }
    }
    // The last word about a target is the list's. In the order of the store its pages are written one after the other.
    entries.reverse();
    let several = entries.windows(2).any(|two| two[0].origin != two[1].origin);
    entries.sort_by_cached_key(|entry| (order(&entry.target), several.then(|| entry.origin.clone())));
    entries.dedup_by(|one, other| {
        // Of two verbs the later one decides, where the list has the times, as an exported one does.
        let is_told = one.verb != other.verb && one.created_ms.is_some() && other.created_ms.is_some();
        (one.target, &one.origin) == (other.target, &other.origin) && !is_told
    });
    if let Some(entry) =
        entries.iter().find(|entry| entry.verb == RuleVerb::Allow && !entry.target.is_source())
    {
        let (target, kind) = (entry.target, entry.target.kind());
        let article = if kind == "identity" { "an" } else { "a" };
        return Err(usage(format!(
            "{shown}: {target}: {article} {kind} can't be allowed, only blocked: nothing was imported"
        )));
    }
    let protected = protected();
    let hit = |target: &Target| match target {
        Target::Source(source) => hit(source, &protected),
        Target::Device(_) | Target::Identity(_) | Target::UserAgent(_) => None,
    };
    entries.retain(|entry| match &entry.target {
        Target::UserAgent(agent) if let Some(family) = agent.family() => {
            eprintln!("sipguard: {agent} would stop every user agent of the family {family} and was skipped");
            false
        }
        _ => true,
    });
    entries.retain(|entry| match hit(&entry.target) {
        Some(found) if entry.verb == RuleVerb::Block => {
            eprintln!("sipguard: {} is {} ({}) and was skipped", entry.target, found.role, found.address);
            false
        }
        _ => true,
    });
    Ok(entries)
}

fn shown(file: &str) -> &str {
    if file == "-" { "standard input" } else { file }
}

/// The order of the store's keys, in numbers as far as it goes: strings are slow to compare by the million.
fn order(target: &Target) -> (u8, u128, String) {
    let (kind, text) = key(target);
    let mut first = [0; 16];
    let length = text.len().min(first.len());
    first[..length].copy_from_slice(&text.as_bytes()[..length]);
    // The kinds differ in their first letters.
    (kind.as_bytes()[0], u128::from_be_bytes(first), text[length..].to_owned())
}

/// `import:` and the file's name without its end.
fn named(file: &str) -> String {
    let stem =
        Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = if file == "-" { "stdin".to_owned() } else { stem };
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let name: String = name.chars().map(|one| if fits(one) { one } else { '_' }).take(50).collect();
    format!("import:{name}")
}

/// A bar on a terminal, nothing elsewhere.
fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{bar:40} {percent}% {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
