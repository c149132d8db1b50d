//! How much a source, or a trunk, may send.

use serde::{Deserialize, Serialize};
use sipguard_common::abi::RATE_KINDS;

use super::time;
use crate::address::Source;
use crate::check::CheckScope;
use crate::modes::MonitoredBy;
use crate::rate::{AtOnce, AtOnceMost, RateLimit};
use crate::rule::RuleMode;
use crate::status::MonitoredLimit;
use crate::store::{AtOnceLimit, Limit};

/// A limit of a rate, or of what there is at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// Whom it is for: `devices`, each source of which has it, or `trunk`.
    pub scope: String,
    /// The trunk; null for devices.
    pub trunk: Option<String>,
    /// What is limited: `packets`, `messages`, `register`, `invite`, `connections`, `open` for open connections, or `unfinished` for
    /// messages on TCP connections that have begun and are not finished.
    pub of: String,
    /// How many a second; of a rate alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// How many at once within the rate; of a rate alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How many there may be at once; left out for a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    /// `enforce`, or `monitor` where what is over it passes and is only counted.
    pub mode: String,
    /// `guard` or `trunk`: whose mode is `monitor`, so that every limit only counts; null where it is nobody's.
    #[serde(default)]
    pub monitored_by: Option<String>,
    /// How many are open now, and whose they are; of open connections alone.
    #[serde(flatten)]
    pub open: Option<OpenNow>,
    /// How many are unfinished now, and whose they are; of unfinished messages alone.
    #[serde(flatten)]
    pub unfinished: Option<UnfinishedNow>,
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

/// Unfinished messages of the trunk, or of the source that has the most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfinishedNow {
    /// How many.
    pub unfinished: usize,
    /// The source; null for a trunk, and where nobody has one.
    pub fullest: Option<String>,
}

/// A limit that only counts what is over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitoredLimitView {
    /// Whom it is for: `devices`, each source of which has it, or `trunk`.
    pub scope: String,
    /// The trunk; null for devices.
    pub trunk: Option<String>,
    /// What is limited, as in [`LimitView`].
    pub of: String,
    /// The reason by which what is over it is counted.
    pub reason: String,
}

impl From<&MonitoredLimit> for MonitoredLimitView {
    fn from(MonitoredLimit { trunk, kind }: &MonitoredLimit) -> MonitoredLimitView {
        MonitoredLimitView {
            scope: CheckScope::of_limit(trunk.as_deref()).word().to_owned(),
            trunk: trunk.clone(),
            of: kind.name().to_owned(),
            reason: kind.reason().name().to_owned(),
        }
    }
}

impl LimitView {
    /// Of a rate.
    #[must_use]
    pub(crate) fn of_rate(limit: &Limit) -> LimitView {
        let Limit { trunk, kind, limit: RateLimit { per_second, burst, mode }, author, created_ms } = limit;
        let view = LimitView::bare(trunk.as_deref(), RATE_KINDS[*kind], *mode, author, *created_ms);
        LimitView { per_second: Some(*per_second), burst: Some(*burst), ..view }
    }

    /// Of what there is at once; `count` is how much the trunk has now, or the source that has the most.
    #[must_use]
    pub(crate) fn of_at_once(limit: &AtOnceLimit, count: usize, fullest: Option<Source>) -> LimitView {
        let AtOnceLimit { trunk, kind, limit: AtOnceMost { most, mode }, author, created_ms } = limit;
        let view = LimitView::bare(trunk.as_deref(), kind.name(), *mode, author, *created_ms);
        let view = LimitView { at_once: Some(*most), ..view };
        let fullest = fullest.map(|source| source.to_string());
        match kind {
            AtOnce::Open => LimitView { open: Some(OpenNow { open: count, fullest }), ..view },
            AtOnce::Unfinished => {
                LimitView { unfinished: Some(UnfinishedNow { unfinished: count, fullest }), ..view }
            }
        }
    }

    /// Sets whose mode is monitor.
    pub(crate) fn monitored_by(&mut self, whose: Option<MonitoredBy>) {
        self.monitored_by = whose.map(|whose| whose.name().to_owned());
    }

    /// How many there are now of what there may be so many of at once, and whose they are.
    #[must_use]
    pub fn now(&self) -> Option<(usize, Option<&str>)> {
        let open = self.open.as_ref().map(|now| (now.open, now.fullest.as_deref()));
        open.or_else(|| self.unfinished.as_ref().map(|now| (now.unfinished, now.fullest.as_deref())))
    }

    fn bare(trunk: Option<&str>, of: &str, mode: RuleMode, author: &str, created_ms: i64) -> LimitView {
        LimitView {
            scope: CheckScope::of_limit(trunk).word().to_owned(),
            trunk: trunk.map(str::to_owned),
            of: of.to_owned(),
            per_second: None,
            burst: None,
            at_once: None,
            mode: mode.name().to_owned(),
            monitored_by: None,
            open: None,
            unfinished: None,
            author: author.to_owned(),
            created_at: time(created_ms),
        }
    }
}
