//! How much a source, or a trunk, may send.

use serde::{Deserialize, Serialize};
use sipguard_common::abi::RATE_KINDS;

use super::time;
use crate::address::Source;
use crate::store::{Limit, OpenLimit};

/// A limit of a rate, or of open connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// `source`, or `trunk`.
    pub per: String,
    /// The trunk; null for each source that is no trunk's.
    pub trunk: Option<String>,
    /// What is limited: `packets`, `messages`, `register`, `invite`, `connections`, or `open` for open connections.
    pub of: String,
    /// How many a second; left out for open connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// How many at once within the rate; left out for open connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How many may be open at once; left out for a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    /// How many are open now, and whose they are; left out for a rate.
    #[serde(flatten)]
    pub open: Option<OpenNow>,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// When it was set.
    pub created_at: String,
}

/// Open connections of the trunk, or of the source that has the most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenNow {
    /// How many.
    pub open: usize,
    /// The source; null for a trunk, and where nobody has one.
    pub fullest: Option<String>,
}

impl LimitView {
    /// Of a rate.
    #[must_use]
    pub fn of_rate(limit: &Limit) -> LimitView {
        let view =
            LimitView::bare(limit.trunk.as_deref(), RATE_KINDS[limit.kind], &limit.author, limit.created_ms);
        LimitView { per_second: Some(limit.per_second), burst: Some(limit.burst), ..view }
    }

    /// Of open connections; `open` are those of the trunk, or of the source that has the most.
    #[must_use]
    pub fn of_open(limit: &OpenLimit, open: usize, fullest: Option<Source>) -> LimitView {
        let view = LimitView::bare(limit.trunk.as_deref(), "open", &limit.author, limit.created_ms);
        let open = Some(OpenNow { open, fullest: fullest.map(|source| source.to_string()) });
        LimitView { at_once: Some(limit.most), open, ..view }
    }

    fn bare(trunk: Option<&str>, of: &str, author: &str, created_ms: i64) -> LimitView {
        LimitView {
            per: if trunk.is_some() { "trunk" } else { "source" }.to_owned(),
            trunk: trunk.map(str::to_owned),
            of: of.to_owned(),
            per_second: None,
            burst: None,
            at_once: None,
            open: None,
            author: author.to_owned(),
            created_at: time(created_ms),
        }
    }
}
