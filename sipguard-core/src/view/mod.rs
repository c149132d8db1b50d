//! The documents that programs read: what `-o json` of the command line, `/api/*` of `serve` and `top --once` print. One file a document.
//!
//! Field names are the same in all of them: `target` is whom a rule is about, `origin` who set it, `comment` an operator's free text;
//! `action` is what happened to packets (`pass`, `drop`, `reset`, `would-drop`, `would-reset`), `reason` the name of the verdict's
//! reason and `class` that of its class; `src_ip`, `src_port`, `dst_ip` and `dst_port` are addresses and ports. Times are RFC 3339 in UTC
//! and end in `_at`, durations in `_seconds` or `_ms`, sizes in `_bytes`; `packets` and `bytes` are counts.
//!
//! A renamed field raises the version in the name of the schema.

mod bans;
mod check;
mod counter;
mod denial;
mod feed;
mod limit;
mod rule;
mod sender;
mod source;
mod status;
mod trunk;

pub use bans::BanView;
pub use check::{CheckStateView, CheckView};
pub use counter::{CounterView, RateView, Totals};
pub use denial::DenialView;
pub use feed::FeedView;
pub use limit::{LimitView, MonitoredLimitView, OpenNow, UnfinishedNow};
pub use rule::{RuleState, RuleView};
pub use sender::{SenderView, SentView};
pub use source::SourceView;
pub use status::{InterfaceView, StatusView, TrunkModeView, WeaknessView};
pub use trunk::{TrunkCounters, TrunkTraffic, TrunkView};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// Names of the documents, with their versions.
pub mod schema {
    /// [`super::BanView`].
    pub const BANS: &str = "sipguard.bans/2";
    /// Rows of [`super::RuleView`]: blocks, allowances and bans.
    pub const BLOCKS: &str = "sipguard.blocks/2";
    /// Rows of [`super::CheckView`].
    pub const CHECKS: &str = "sipguard.checks/1";
    /// Rows of [`super::CounterView`], of interfaces.
    pub const COUNTERS: &str = "sipguard.counters/2";
    /// Reports of crashes, and what was done to core dumps, of `serve`.
    pub const CRASH_OVERVIEW: &str = "sipguard.crash-overview/1";
    /// Rows of [`super::DenialView`].
    pub const DENIALS: &str = "sipguard.denials/2";
    /// [`super::FeedView`].
    pub const FEED: &str = "sipguard.feed/1";
    /// Rows of [`super::FeedView`].
    pub const FEEDS: &str = "sipguard.feeds/1";
    /// Rows of `EventView`.
    pub const RECENT_EVENTS: &str = "sipguard.recent-events/2";
    /// Points of plots, of `serve`.
    pub const HISTORY: &str = "sipguard.history/3";
    /// Rows of [`super::LimitView`].
    pub const LIMITS: &str = "sipguard.limits/3";
    /// Rows of `AddressView`.
    pub const ADDRESSES: &str = "sipguard.addresses/1";
    /// The host and what is attached to it, with the counters of one moment, of `serve`.
    pub const OVERVIEW: &str = "sipguard.overview/1";
    /// Rows of `OffenderView`.
    pub const OFFENDERS: &str = "sipguard.offenders/2";
    /// Rows of [`super::RateView`].
    pub const RATES: &str = "sipguard.rates/2";
    /// What there is to be said of a reason, and of its check.
    pub const REASON: &str = "sipguard.reason/1";
    /// Rows of `ReplayView`.
    pub const REPLAY: &str = "sipguard.replay/2";
    /// Rows of [`super::RuleView`] without what the kernel knows: what `export` writes.
    pub const RULES: &str = "sipguard.rules/2";
    /// Rows of [`super::SenderView`].
    pub const SENDERS: &str = "sipguard.senders/1";
    /// [`super::StatusView`].
    pub const STATUS: &str = "sipguard.status/2";
    /// [`super::TrunkView`], with the checks, limits and counters of the trunk.
    pub const TRUNK: &str = "sipguard.trunk/2";
    /// Rows of [`super::CounterView`], of trunks.
    pub const TRUNK_COUNTERS: &str = "sipguard.trunk-counters/2";
    /// Rows of [`super::TrunkView`].
    pub const TRUNKS: &str = "sipguard.trunks/2";
}

/// The JSON form of a document or a row.
///
/// # Panics
/// Never for the types of this module: their keys are strings.
#[must_use]
pub fn json<T: Serialize>(view: &T) -> Value {
    serde_json::to_value(view).expect("the keys of a document are strings")
}

/// Milliseconds since 1970 as RFC 3339 in UTC, rounded to the second. Empty beyond the years of RFC 3339.
#[must_use]
pub fn time(ms: i64) -> String {
    let second = (ms + 500).div_euclid(1000);
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

/// The same with the milliseconds.
#[must_use]
pub(crate) fn exact_time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}

/// To thousandths.
#[must_use]
pub fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
