//! What a feed says now.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::address::Source;
use crate::escape::escaped;
use crate::feed::{
    DesiredBlock, FeedForm, FeedSource, MOST_BYTES, MOST_ENTRIES, apiban, read_decisions, read_list,
};
use crate::store::FeedRow;

/// How long the pages of apiban.org may take together: other feeds wait meanwhile.
const PAGES_TIME: Duration = Duration::from_secs(60);
/// Characters of what is wrong with a feed that are told: the feed says them, not we.
const TOLD: usize = 200;
/// Pages of apiban.org that are read at the most.
const MOST_PAGES: usize = 1000;
/// Up to so many changes are looked up one by one.
const FEW: usize = 500;
/// Bytes of a key at the most.
const KEY_BYTES: u64 = 4096;

/// What is asked for by HTTP.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'r> {
    /// Of which URL.
    pub url: &'r str,
    /// The value of `X-Api-Key`, which no other host may see.
    pub key: Option<&'r str>,
    /// The most bytes of an answer.
    pub most_bytes: u64,
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
}

impl Reading {
    /// Whom a few changes are about; `None` of many, and where all that there is has to be known.
    pub(super) fn touched(&self) -> Option<Vec<Source>> {
        let few = !self.is_whole && self.new.len() + self.gone.len() <= FEW;
        few.then(|| self.new.iter().map(|block| block.source).chain(self.gone.iter().copied()).collect())
    }
}

/// Reads a feed at a wall time in milliseconds; `whole` all of it.
pub(super) fn read(feed: &FeedRow, whole: bool, fetch: Option<Fetch>, now_ms: i64) -> Result<Reading> {
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
            // What follows `?` is no part of a name.
            let name = source.text().split(['?', '#']).next().unwrap_or_default();
            let new: Vec<DesiredBlock> = blocks(read_list(name, &text).map_err(told)?);
            Ok(Reading { new, is_whole: true, ..Reading::default() })
        }
        (FeedForm::Apiban, FeedSource::Url(url)) => {
            let new = blocks(pages(url, &get)?);
            Ok(Reading { new, is_whole: true, ..Reading::default() })
        }
        (FeedForm::Apiban, FeedSource::File(path)) => {
            let mut sources = apiban(&file(path)?).map_err(told)?.sources;
            sources.sort_unstable();
            sources.dedup();
            Ok(Reading { new: blocks(sources), is_whole: true, ..Reading::default() })
        }
        (FeedForm::Crowdsec, FeedSource::Url(url)) => {
            ensure!(
                key.is_some(),
                "a LAPI asks for a key: `cscli bouncers add sipguard` makes one, `--key-file` names it"
            );
            let url = format!("{}/v1/decisions/stream?startup={whole}", url.trim_end_matches('/'));
            let decisions = read_decisions(&good(get(&url)?)?, now_ms).map_err(told)?;
            let (new, passed_over) = (decisions.new, decisions.passed_over);
            ensure!(new.len() <= MOST_ENTRIES, "it has {} decisions, more than {MOST_ENTRIES}", new.len());
            Ok(Reading { new, gone: decisions.gone, is_whole: whole, passed_over })
        }
        (FeedForm::Crowdsec, FeedSource::File(_)) => bail!("a LAPI has a URL, such as http://127.0.0.1:8080"),
    }
}

/// What is wrong with a feed, for a terminal and the store: without control characters, and not as long as a stranger likes.
fn told(text: String) -> anyhow::Error {
    let rest = if text.chars().nth(TOLD).is_some() { "..." } else { "" };
    let first: String = text.chars().take(TOLD).collect();
    anyhow::anyhow!("{}{rest}", escaped(first.as_bytes()))
}

/// Every page of apiban.org. Its last one has the status 400.
fn pages(url: &str, get: &dyn Fn(&str) -> Result<HttpAnswer>) -> Result<Vec<Source>> {
    let base = url.trim_end_matches('/');
    let (mut sources, mut at) = (Vec::new(), base.to_owned());
    let begin = Instant::now();
    for _ in 0..MOST_PAGES {
        ensure!(begin.elapsed() < PAGES_TIME, "its pages take longer than {} s", PAGES_TIME.as_secs());
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
    let mut text = String::new();
    // A pipe would keep whoever opens it waiting.
    let opened = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = opened.with_context(|| format!("opening {path}"))?;
    ensure!(
        file.metadata().with_context(|| format!("opening {path}"))?.is_file(),
        "{path} is no regular file"
    );
    file.take(MOST_BYTES + 1).read_to_string(&mut text).with_context(|| format!("reading {path}"))?;
    ensure!(text.len() as u64 <= MOST_BYTES, "{path} has more than {MOST_BYTES} bytes");
    Ok(text)
}

fn key(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
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
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> HttpAnswer {
        HttpAnswer { status, body: body.to_owned() }
    }

    #[test]
    fn apiban_is_followed_to_its_end() {
        let get = |url: &str| {
            Ok(match url {
                "https://x/api/KEY/banned" => {
                    answer(200, r#"{"ipaddress":["203.0.113.7","203.0.113.8"],"ID":"10"}"#)
                }
                "https://x/api/KEY/banned/10" => answer(200, r#"{"ipaddress":["203.0.113.9"],"ID":"11"}"#),
                "https://x/api/KEY/banned/11" => answer(400, r#"{"ipaddress":["no new bans"],"ID":"none"}"#),
                _ => bail!("asked for {url}"),
            })
        };
        assert_eq!(pages("https://x/api/KEY/banned/", &get).unwrap().len(), 3);
        let endless = |_: &str| Ok(answer(200, r#"{"ipaddress":["203.0.113.7"],"ID":"1"}"#));
        assert!(pages("https://x", &endless).unwrap_err().to_string().contains("no end"));
        let refused = |_: &str| Ok(answer(400, "bad request"));
        assert!(pages("https://x", &refused).unwrap_err().to_string().contains("answers 400"));
    }
}
