//! `feed`.

use anyhow::Result;
use sipguard_core::duration;
use sipguard_core::notice::Notice;
use sipguard_core::ops::feed::{FeedRefreshed, Listed, MOST_ENTRIES};
use sipguard_core::view::{FeedView, schema, time};

use super::rule::{change, later};
use super::{Format, notice, object, plural, rows};
use crate::table::table;

/// Entries that are named; of more only the number.
const NAMED: usize = 10;

pub fn refreshed(format: Format, name: &str, done: &FeedRefreshed) -> Result<()> {
    for held in done.held_back.iter().take(NAMED) {
        notice(&Notice(format!("{name}: {} {} and was skipped", held.target, held.why)));
    }
    let more = done.held_back.len().saturating_sub(NAMED);
    if more > 0 {
        notice(&Notice(format!("{name}: {} more were skipped", plural(more, "entry"))));
    }
    if done.passed_over > 0 {
        notice(&Notice(format!(
            "{name}: {} can't be blocks of addresses",
            plural(done.passed_over, "decision")
        )));
    }
    if done.left_out > 0 {
        notice(&Notice(format!(
            "{name}: {} left out: a feed has {MOST_ENTRIES} entries at the most",
            plural(done.left_out, "decision")
        )));
    }
    let mut shown = done.change.clone();
    shown.counts.skipped += done.held_back.len();
    let counts = shown.counts;
    change(format, &shown, || {
        let parts = [(counts.added, "added"), (counts.moved, "renewed"), (counts.removed, "lifted")];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let mut parts: Vec<String> = parts.map(|(count, did)| format!("{did} {count}")).collect();
        if parts.is_empty() {
            parts.push("nothing changed".to_owned());
        }
        parts.push(format!("{} as before", counts.same));
        format!("{name}: {}{}", parts.join(", "), later(shown.in_force || counts.added + counts.moved == 0))
    })
}

pub fn removed(format: Format, name: &str, done: &sipguard_core::ops::RuleChange) -> Result<()> {
    change(format, done, || {
        format!("removed the feed {name}, lifted {}", plural(done.counts.removed, "block"))
    })
}

pub fn list(format: Format, listed: &[Listed]) -> Result<()> {
    rows(format, schema::FEEDS, listed.iter().map(FeedView::new).collect(), || {
        let line = |listed: &Listed| {
            let Listed { feed, entries } = listed;
            let state =
                if feed.failure.is_empty() { "ok".to_owned() } else { format!("fails: {}", feed.failure) };
            vec![
                feed.name.clone(),
                entries.to_string(),
                duration::shown(feed.every),
                feed.refreshed_ms.map(time).unwrap_or_default(),
                feed.source.to_string(),
                state,
            ]
        };
        table(&["FEED", "ENTRIES", "EVERY", "REFRESHED", "SOURCE", "STATE"], listed.iter().map(line))
    })
}

pub fn show(format: Format, listed: &Listed) -> Result<()> {
    object(format, schema::FEED, &FeedView::new(listed), || {
        let Listed { feed, entries } = listed;
        let when = |ms: Option<i64>| ms.map_or("never".to_owned(), time);
        let state = if feed.failure.is_empty() { "ok" } else { &feed.failure };
        let (keep, every) = (duration::shown(feed.keep), duration::shown(feed.every));
        [
            ("feed", feed.name.clone()),
            ("source", format!("{} ({})", feed.source, feed.form.name())),
            ("origin", feed.origin()),
            ("entries", entries.to_string()),
            ("every", every),
            ("keep", keep),
            ("added", format!("{} by {}", time(feed.created_ms), feed.author)),
            ("read", when(feed.tried_ms)),
            ("refreshed", when(feed.refreshed_ms)),
            ("state", state.to_owned()),
        ]
        .iter()
        .map(|(name, value)| format!("{name:<10} {value}\n"))
        .collect()
    })
}
