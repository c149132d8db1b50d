//! `import`: rules from a list, all of it or none.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::rule::{Protection, WhyProtected, why_in_store};
use super::{Context, RuleChange};
use crate::error::{Failure, FailureKind};
pub use crate::exchange::Form;
use crate::exchange::{self, End, Entry};
use crate::notice::Notice;
use crate::rule::RuleVerb;
use crate::store::{Change, RuleRemoval, RuleSpec, key};
use crate::target::Target;

/// A list to be imported.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name of its file; `-` is standard input.
    pub file: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its form; `None` is told by its name or its beginning.
    pub form: Option<Form>,
    /// Who sets the rules; `None` is whom the list names, or else `import:` and the name of the file.
    pub origin: Option<String>,
    /// For how long, where the list does not say; `None` is permanent.
    pub lasts: Option<Duration>,
    /// Lifts what these origins set before and is not in the list any more.
    pub replace: bool,
    /// Takes blocks of prefixes shorter than /8 (IPv6: /16) as well.
    pub force: bool,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many entries are to be imported.
    Entries(usize),
    /// One more is.
    Step,
}

/// What a list replaces of one origin: the kind of rule, the targets that stay, and how far lifting the others is.
struct Replaced<'o> {
    origin: &'o str,
    kind: RuleVerb,
    kept: HashSet<Target>,
    gone: RuleRemoval,
}

/// Entries that are to become rules.
pub(super) struct List<'l> {
    /// Each with its origin, each target and origin once, and none that is protected.
    pub entries: Vec<Entry>,
    /// Whom the log names where no entry is left.
    pub origin: String,
    /// What the log calls it.
    pub verb: &'static str,
    /// Where they come from.
    pub file: &'l str,
    /// For how long, where an entry does not say; `None` is permanent.
    pub lasts: Option<Duration>,
    /// Lifts what their origins set before and is not among them.
    pub replace: bool,
    /// What was noticed until now.
    pub notices: Vec<Notice>,
}

/// Imports a list. Protected targets of blocks are skipped, with a notice each.
///
/// # Errors
/// When the list has a mistake, or is empty and would replace, or the store or the kernel refuses.
pub fn run(host: &Context, mut request: Request, progress: &mut dyn FnMut(Progress)) -> Result<RuleChange> {
    let origin = request.origin.clone().unwrap_or_else(|| named(&request.file));
    let mut notices = Vec::new();
    let entries = entries(&mut request, &origin, &mut notices)?;
    let Request { file, lasts, replace, .. } = &request;
    if *replace && entries.is_empty() {
        return Err(nothing_to_replace_by(&request, &origin));
    }
    let (lasts, replace) = (*lasts, *replace);
    apply(host, List { entries, origin, verb: "import", file, lasts, replace, notices }, progress)
}

/// Makes rules of a list, of all of it or none.
///
/// # Errors
/// When the store or the kernel refuses.
pub(super) fn apply(
    host: &Context,
    list: List<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<RuleChange> {
    let List { entries, origin, verb, file, lasts, replace, mut notices } = list;
    let mut origins: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.origin.as_deref()).collect();
    if origins.is_empty() {
        origins.insert(&origin);
    }
    let origins: Vec<&str> = origins.into_iter().collect();
    progress(Progress::Entries(entries.len()));
    let only_blocks = entries.iter().all(|entry| entry.verb == RuleVerb::Block);
    let mut left = entries.iter();
    let mut replaced = if replace { replaced(&origins, &entries) } else { Vec::new() };
    let count = if replace { usize::MAX } else { entries.len() };
    let done = host.bulk(count, |change| {
        if only_blocks {
            change.only_blocks();
        }
        for entry in left.by_ref() {
            notices.extend(say(change, entry, lasts)?);
            progress(Progress::Step);
            if change.is_due() {
                return Ok(None);
            }
        }
        change.flush()?;
        while let Some(Replaced { origin, kind, kept, gone }) = replaced.last_mut() {
            if !change.retract_all(gone, *kind, Some(origin), kept)? {
                return Ok(None);
            }
            replaced.pop();
        }
        change.record(verb, &origins.join(" "), &[file], "")?;
        Ok(Some(change.counts))
    })?;
    Ok(RuleChange { notices, ..RuleChange::of(&done) })
}

/// An empty list is what a download that failed leaves behind.
fn nothing_to_replace_by(request: &Request, own: &str) -> anyhow::Error {
    let text = format!(
        "there is no rule in {}: nothing was changed. To lift all that it had set: `sipguard unblock --all --origin {own}`",
        shown(&request.file)
    );
    Failure::with(FailureKind::Failed, text)
}

fn say(change: &mut Change<'_>, entry: &Entry, lasts: Option<Duration>) -> Result<Option<Notice>> {
    let clock = change.clock;
    let expires_ms = match entry.end {
        End::Unsaid => clock.wall_ms_after(lasts),
        End::Never => None,
        End::At(end_ms) => Some(end_ms),
        End::After(seconds) => clock.wall_ms_after(Some(Duration::from_secs(seconds))),
    };
    if expires_ms.is_some_and(|end_ms| end_ms <= clock.wall_ms()) {
        return Ok(None);
    }
    let spec = RuleSpec {
        mode: entry.mode,
        reason: entry.reason.clone(),
        expires_ms,
        created_ms: entry.created_ms,
        author: entry.author.clone(),
        ..RuleSpec::new(entry.origin.as_deref().unwrap_or_default(), entry.verb)
    };
    if let Some(why) = why_in_store(change, &entry.target, &spec)? {
        return Ok(Some(skipped(&entry.target, &why)));
    }
    change.upsert(&entry.target, &spec)?;
    Ok(None)
}

fn skipped(target: &Target, why: &WhyProtected) -> Notice {
    Notice(format!("{target} {why} and was skipped"))
}

/// What a list replaces: all that its origins set before and is not in it.
fn replaced<'o>(origins: &[&'o str], entries: &[Entry]) -> Vec<Replaced<'o>> {
    let mut all = Vec::new();
    for origin in origins {
        for kind in [RuleVerb::Block, RuleVerb::Allow] {
            let of =
                entries.iter().filter(|entry| entry.verb == kind && entry.origin.as_deref() == Some(origin));
            let kept: HashSet<Target> = of.map(|entry| entry.target).collect();
            all.push(Replaced { origin, kind, kept, gone: RuleRemoval::default() });
        }
    }
    all
}

/// The entries of the list, each target and origin once, without what an operator does not want to block by mistake.
fn entries(request: &mut Request, own: &str, notices: &mut Vec<Notice>) -> Result<Vec<Entry>> {
    let text = text(request)?;
    let shown = shown(&request.file);
    let form = request.form.unwrap_or_else(|| exchange::guess(&request.file, &text));
    let mut entries = exchange::read(form, &text, request.force)
        .map_err(|mistake| usage(format!("{shown}:{mistake}: nothing was imported")))?;
    drop(text);
    for entry in &mut entries {
        if request.origin.is_some() || entry.origin.is_none() {
            entry.origin = Some(own.to_owned());
        }
    }
    once_each(&mut entries);
    if let Some(entry) =
        entries.iter().find(|entry| entry.verb == RuleVerb::Allow && !entry.target.is_source())
    {
        let (target, kind) = (entry.target, entry.target.kind());
        let article = if kind == "identity" { "an" } else { "a" };
        return Err(usage(format!(
            "{shown}: {target}: {article} {kind} can't be allowed, only blocked: nothing was imported"
        )));
    }
    skip_protected(&mut entries, notices);
    Ok(entries)
}

/// Takes out blocks of what a list may not block.
pub(super) fn skip_protected(entries: &mut Vec<Entry>, notices: &mut Vec<Notice>) {
    let protection = Protection::now();
    entries.retain(|entry| {
        let why = protection.why_in_list(&entry.target).filter(|_| entry.verb == RuleVerb::Block);
        notices.extend(why.as_ref().map(|why| skipped(&entry.target, why)));
        why.is_none()
    });
}

fn text(request: &mut Request) -> Result<String> {
    String::from_utf8(std::mem::take(&mut request.bytes)).map_err(|error| {
        let good =
            String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let (line, column) =
            (good.split('\n').count(), good.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
        let shown = shown(&request.file);
        usage(format!("{shown}:{line}:{column}: this is no text (UTF-8): nothing was imported"))
    })
}

/// The last word about a target is the list's. In the order of the store its pages are written one after the other.
fn once_each(entries: &mut Vec<Entry>) {
    entries.reverse();
    let several = entries.windows(2).any(|two| two[0].origin != two[1].origin);
    entries.sort_by_cached_key(|entry| (order(&entry.target), several.then(|| entry.origin.clone())));
    entries.dedup_by(|one, other| {
        // Of two kinds the later one decides, where the list has the times, as an exported one does.
        let is_told = one.verb != other.verb && one.created_ms.is_some() && other.created_ms.is_some();
        (one.target, &one.origin) == (other.target, &other.origin) && !is_told
    });
}

/// How a list is called in messages.
#[must_use]
pub fn shown(file: &str) -> &str {
    if file == "-" { "standard input" } else { file }
}

fn usage(text: String) -> anyhow::Error {
    Failure::with(FailureKind::Usage, text)
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
