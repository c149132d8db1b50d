//! What a feed says now.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::address::Source;
use crate::escape::escaped;
use crate::feed::{
    DesiredBlock, FeedForm, FeedSource, MOST_BYTES, MOST_ENTRIES, apiban, hidden, read_decisions, read_list,
};
use crate::store::FeedRow;

/// How long the pages of apiban.org may take together, before the last of them is asked for.
const PAGES_TIME: Duration = Duration::from_secs(60);
/// Characters of what is wrong with a feed that are told: the feed says them, not we.
const TOLD: usize = 200;
/// Pages of apiban.org that are read at the most.
const MOST_PAGES: usize = 1000;
/// Up to so many changes are looked up one by one.
const FEW: usize = 500;
/// Bytes of a key at the most.
const KEY_BYTES: u64 = 4096;
/// Several are waited for at the same time, and one is worked on: what is made of a text takes several times its memory.
static AT_WORK: Mutex<()> = Mutex::new(());

/// What is asked for by HTTP.
#[derive(Clone, Copy)]
pub struct HttpRequest<'r> {
    /// Of which URL.
    pub url: &'r str,
    /// The value of `X-Api-Key`, which no other host may see.
    pub key: Option<&'r str>,
    /// The most bytes of an answer.
    pub most_bytes: u64,
}

impl fmt::Debug for HttpRequest<'_> {
    /// Without its secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest").field("most_bytes", &self.most_bytes).finish_non_exhaustive()
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// HTTP's status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// A client of HTTP.
pub type Fetch = fn(&HttpRequest<'_>) -> Result<HttpAnswer>;

/// What a feed says.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What is to be blocked, each once.
    pub new: Vec<DesiredBlock>,
    /// What is not to be blocked any more; of a whole one all that is not in `new`.
    pub gone: Vec<Source>,
    /// Whether it is all that the feed has, or only what has changed since.
    pub is_whole: bool,
    /// Entries that can't be blocks.
    pub passed_over: usize,
    /// Others wait with theirs until this one is applied.
    pub at_work: Option<MutexGuard<'static, ()>>,
}

impl Reading {
    /// Whom a few changes are about; `None` of many, and where all that there is has to be known.
    pub(super) fn touched(&self) -> Option<Vec<Source>> {
        let few = !self.is_whole && self.new.len() + self.gone.len() <= FEW;
        few.then(|| self.new.iter().map(|block| block.source).chain(self.gone.iter().copied()).collect())
    }
}

/// Reads a feed at a wall time in milliseconds; `whole` all of it. Why it can't tells no secret of its URL.
pub(super) fn read(feed: &FeedRow, whole: bool, fetch: Option<Fetch>, now_ms: i64) -> Result<Reading> {
    let reading = read_openly(feed, whole, fetch, now_ms);
    reading.map_err(|error| match &feed.source {
        FeedSource::File(_) => error,
        FeedSource::Url(url) => anyhow::Error::msg(hidden(&format!("{error:#}"), url)),
    })
}

fn read_openly(feed: &FeedRow, whole: bool, fetch: Option<Fetch>, now_ms: i64) -> Result<Reading> {
    let key = feed.key_file.as_deref().map(key).transpose()?;
    let get = |url: &str| {
        let fetch = fetch.context("this sipguard was built without `feed`, and reads files alone")?;
        // Decisions are of this host's own LAPI, and longer than addresses.
        let most_bytes = if feed.form == FeedForm::Crowdsec { 4 * MOST_BYTES } else { MOST_BYTES };
        fetch(&HttpRequest { url, key: key.as_deref(), most_bytes })
    };
    let blocks = |sources: Vec<Source>| {
        sources.into_iter().map(|source| DesiredBlock { source, end_ms: None }).collect()
    };
    match (&feed.form, &feed.source) {
        (FeedForm::List, source) => {
            let text = match source {
                FeedSource::File(path) => file(path)?,
                FeedSource::Url(url) => good(get(url)?)?,
            };
            let at_work = at_work();
            // What follows `?` is no part of a name.
            let name = source.text().split(['?', '#']).next().unwrap_or_default();
            let new: Vec<DesiredBlock> = blocks(read_list(name, &text).map_err(told)?);
            Ok(Reading { new, is_whole: true, at_work, ..Reading::default() })
        }
        (FeedForm::Apiban, FeedSource::Url(url)) => {
            let new = blocks(pages(url, &get, PAGES_TIME)?);
            Ok(Reading { new, is_whole: true, at_work: at_work(), ..Reading::default() })
        }
        (FeedForm::Apiban, FeedSource::File(path)) => {
            let mut sources = apiban(&file(path)?).map_err(told)?.sources;
            sources.sort_unstable();
            sources.dedup();
            Ok(Reading { new: blocks(sources), is_whole: true, at_work: at_work(), ..Reading::default() })
        }
        (FeedForm::Crowdsec, FeedSource::Url(url)) => {
            ensure!(
                key.is_some(),
                "a LAPI asks for a key: `cscli bouncers add sipguard` makes one, `--key-file` names it"
            );
            let url = format!("{}/v1/decisions/stream?startup={whole}", url.trim_end_matches('/'));
            let text = good(get(&url)?)?;
            let at_work = at_work();
            let decisions = read_decisions(&text, now_ms).map_err(told)?;
            let (new, passed_over) = (decisions.new, decisions.passed_over);
            Ok(Reading { new, gone: decisions.gone, is_whole: whole, passed_over, at_work })
        }
        (FeedForm::Crowdsec, FeedSource::File(_)) => bail!("a LAPI has a URL, such as http://127.0.0.1:8080"),
    }
}

/// The turn to work on what was read.
fn at_work() -> Option<MutexGuard<'static, ()>> {
    Some(AT_WORK.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What is wrong with a feed, for a terminal and the store: without control characters, and not as long as a stranger likes.
fn told(text: String) -> anyhow::Error {
    let rest = if text.chars().nth(TOLD).is_some() { "..." } else { "" };
    let first: String = text.chars().take(TOLD).collect();
    anyhow::anyhow!("{}{rest}", escaped(first.as_bytes()))
}

/// Every page of apiban.org, none of which is asked for after `most`. Its last one has the status 400.
fn pages(url: &str, get: &dyn Fn(&str) -> Result<HttpAnswer>, most: Duration) -> Result<Vec<Source>> {
    let base = url.trim_end_matches('/');
    let (mut sources, mut at) = (Vec::new(), base.to_owned());
    let begin = Instant::now();
    for _ in 0..MOST_PAGES {
        ensure!(begin.elapsed() < most, "its pages take longer than {} s", most.as_secs());
        let answer = get(&at)?;
        let body =
            if answer.status == 400 && apiban(&answer.body).is_ok() { answer.body } else { good(answer)? };
        let page = apiban(&body).map_err(told)?;
        sources.extend(page.sources);
        ensure!(sources.len() <= MOST_ENTRIES, "it has more than {MOST_ENTRIES} entries");
        let Some(next) = page.next else {
            sources.sort_unstable();
            sources.dedup();
            return Ok(sources);
        };
        at = format!("{base}/{next}");
    }
    bail!("it has no end after {MOST_PAGES} pages")
}

fn good(answer: HttpAnswer) -> Result<String> {
    match answer.status {
        200 => Ok(answer.body),
        401 | 403 => bail!("the server answers {}: the key is missing or wrong", answer.status),
        status => bail!("the server answers {status}"),
    }
}

fn file(path: &str) -> Result<String> {
    let (mut text, file) = (String::new(), regular(Path::new(path))?);
    file.take(MOST_BYTES + 1).read_to_string(&mut text).with_context(|| format!("reading {path}"))?;
    ensure!(text.len() as u64 <= MOST_BYTES, "{path} has more than {MOST_BYTES} bytes");
    Ok(text)
}

/// Opens a file that ends: a pipe would keep whoever opens it waiting, and a device may have no end.
fn regular(path: &Path) -> Result<File> {
    let opened = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = opened.with_context(|| format!("opening {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("opening {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is no regular file", path.display());
    Ok(file)
}

fn key(path: &Path) -> Result<String> {
    let (mut text, file) = (String::new(), regular(path)?);
    file.take(KEY_BYTES).read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
    let key = text.trim();
    ensure!(
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()),
        "{} holds no key",
        path.display()
    );
    Ok(key.to_owned())
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
