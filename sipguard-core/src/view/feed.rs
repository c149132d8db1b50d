//! Feeds: lists of others that are read again and again.

use serde::{Deserialize, Serialize};

use super::time;
use crate::ops::feed::Listed;

/// A feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedView {
    /// Its name.
    pub name: String,
    /// Where it comes from; of a URL the host alone, for the rest may be a secret.
    pub source: String,
    /// `list`, `apiban` or `crowdsec`.
    pub form: String,
    /// The origin of its rules.
    pub origin: String,
    /// How many of its entries hold.
    pub entries: usize,
    /// How often it is read.
    pub every_seconds: u64,
    /// How long an entry without an end of its own holds at least after it was read last.
    pub keep_seconds: u64,
    /// The person at the keyboard who added it.
    pub author: String,
    /// When it was added.
    pub created_at: String,
    /// When it was read last, to the minute; null before.
    pub tried_at: Option<String>,
    /// When that worked, to the minute; null before.
    pub refreshed_at: Option<String>,
    /// Why the last reading failed; null when it did not.
    pub failure: Option<String>,
}

impl FeedView {
    /// Of a feed.
    #[must_use]
    pub fn new(listed: &Listed) -> FeedView {
        let Listed { feed, entries } = listed;
        FeedView {
            name: feed.name.clone(),
            source: feed.source.to_string(),
            form: feed.form.name().to_owned(),
            origin: feed.origin(),
            entries: *entries,
            every_seconds: feed.every.as_secs(),
            keep_seconds: feed.keep.as_secs(),
            author: feed.author.clone(),
            created_at: time(feed.created_ms),
            tried_at: feed.tried_ms.map(time),
            refreshed_at: feed.refreshed_ms.map(time),
            failure: (!feed.failure.is_empty()).then(|| feed.failure.clone()),
        }
    }
}
