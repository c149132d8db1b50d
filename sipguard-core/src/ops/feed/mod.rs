//! `feed`: lists of others, read again and again; what changes in them is applied as a difference.
//!
//! The rules of a feed are its last good copy: they hold on when it can't be read, and end one after the other when that lasts.

mod apply;
mod read;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

pub use self::apply::{FeedRefreshed, Refresh, refresh};
pub use self::read::{Fetch, HttpAnswer, HttpRequest};
use super::{Context, RuleChange};
use crate::clock::Clock;
use crate::error::{Failure, FailureKind};
use crate::feed::ORIGIN;
pub use crate::feed::{FeedForm, FeedSource, MOST_BYTES, MOST_ENTRIES, name as parse_name};
use crate::rule::RuleVerb;
pub use crate::store::FeedRow;
use crate::store::{OPERATOR, RuleQuery, RuleRemoval};

/// How long an entry holds at least after it was read last, unless told otherwise.
pub const USUAL_KEEP: Duration = Duration::from_secs(7 * 86_400);
/// The shortest time between two readings.
const LEAST_EVERY: Duration = Duration::from_secs(1);

/// A feed as it is asked for.
#[derive(Clone, Debug)]
pub struct AddFeed {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub source: FeedSource,
    /// Its form.
    pub form: FeedForm,
    /// How often it is read; `None` is as usual for its form.
    pub every: Option<Duration>,
    /// How long an entry without an end of its own holds at least after it was read last.
    pub keep: Duration,
    /// The file with the key that the server asks for.
    pub key_file: Option<PathBuf>,
    /// Takes also a change that is too large to be right, of a feed that has this name already.
    pub force: bool,
}

/// Reads a feed, applies it, and keeps it. One of that name gets these settings.
///
/// # Errors
/// When it can't be read, or as for [`refresh`]. Then nothing is added.
pub fn add(host: &Context, request: AddFeed, fetch: Option<Fetch>) -> Result<FeedRefreshed> {
    let AddFeed { name, source, form, every, keep, key_file, force } = request;
    let every = every.unwrap_or_else(|| form.usual_every());
    let usage = |text: &str| Err(Failure::with(FailureKind::Usage, text));
    if every < LEAST_EVERY {
        return usage("a feed is read once a second at the most");
    }
    if form != FeedForm::Crowdsec && keep < every * 2 {
        return usage("`--keep` is at least twice `--every`, or entries would end between two readings");
    }
    let feed = FeedRow {
        name,
        source,
        form,
        every,
        keep,
        key_file,
        author: String::new(),
        created_ms: 0,
        tried_ms: None,
        refreshed_ms: None,
        whole_ms: None,
        failure: String::new(),
        unfinished: 0,
    };
    apply::attempt(host, &feed, fetch, &apply::How { adds: true, force, is_begun: false })
}

/// Removes a feed with all of its rules, also those that a removal has left whose process died.
///
/// # Errors
/// [`FailureKind::Usage`] where there is nothing of that name; else when the store or the kernel refuses.
pub fn remove(host: &Context, name: &str) -> Result<RuleChange> {
    let origin = format!("{ORIGIN}{name}");
    let now_ms = Clock::now()?.wall_ms();
    let is_there = stored(host)?.iter().any(|feed| feed.name == name)
        || host.read(|rows| rows.blocked_by(&origin, now_ms))?.is_some_and(|blocked| !blocked.is_empty());
    if !is_there {
        return Err(unknown(name));
    }
    // By itself, so that nobody who reads it meanwhile brings it back.
    host.change(|change| change.remove_feed(name))?;
    let mut gone = RuleRemoval::default();
    let done = host.bulk(usize::MAX, |change| {
        if !change.retract_all(&mut gone, RuleVerb::Block, Some(&origin), &HashSet::new())? {
            return Ok(None);
        }
        change.record("feed remove", OPERATOR, &[name], "")?;
        Ok(Some(change.counts))
    })?;
    Ok(RuleChange::of(&done))
}

/// A feed, and how many entries of it hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The feed.
    pub feed: FeedRow,
    /// Its entries.
    pub entries: usize,
}

/// Every feed, by name.
///
/// # Errors
/// When the store can't be read.
pub fn list(host: &Context) -> Result<Vec<Listed>> {
    let now_ms = Clock::now()?.wall_ms();
    let listed = host.read(|rows| {
        let listed = rows.feeds()?.into_iter().map(|feed| {
            let origin = feed.origin();
            let query =
                RuleQuery { verb: Some(RuleVerb::Block), origin: Some(&origin), now_ms, ends_by_ms: None };
            Ok(Listed { entries: rows.count(&query)?, feed })
        });
        listed.collect::<Result<Vec<_>>>()
    })?;
    Ok(listed.unwrap_or_default())
}

/// Every feed, by name, without a look at its rules.
///
/// # Errors
/// When the store can't be read.
pub fn stored(host: &Context) -> Result<Vec<FeedRow>> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let feeds = host.read(|rows| rows.feeds())?.unwrap_or_default();
    Ok(feeds)
}

/// A feed by its name.
///
/// # Errors
/// [`FailureKind::Usage`] where there is none; else when the store can't be read.
pub fn show(host: &Context, name: &str) -> Result<Listed> {
    list(host)?.into_iter().find(|listed| listed.feed.name == name).ok_or_else(|| unknown(name))
}

fn find(host: &Context, name: &str) -> Result<FeedRow> {
    stored(host)?.into_iter().find(|feed| feed.name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> anyhow::Error {
    Failure::with(FailureKind::Usage, format!("there is no feed {name}: `sipguard feed` lists them"))
}
