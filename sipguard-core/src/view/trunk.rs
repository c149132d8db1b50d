//! A trunk: the addresses of a carrier, and what they may send.

use serde::{Deserialize, Serialize};

use super::{CheckView, CounterView, LimitView, Totals, time};
use crate::counters::{Action, CounterRow};
use crate::modes::Modes;
use crate::store::CheckRow;
use crate::trunk::TrunkRow;

/// A trunk, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkView {
    /// Its name.
    pub trunk: String,
    /// Its addresses and prefixes.
    pub peers: Vec<String>,
    /// Transports that it may use, such as `udp,tls`, or `all`.
    pub transports: String,
    /// Methods that it may send, or `all`.
    pub methods: String,
    /// `inherit`, `default` or `strict`.
    pub profile: String,
    /// `inherit`, `enforce` or `monitor`.
    pub mode: String,
    /// Whether its peers are balancers, whose TCP connections begin with a PROXY header.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// An operator's free text; may be empty.
    pub comment: String,
    /// When it was made.
    pub created_at: String,
}

impl From<&TrunkRow> for TrunkView {
    fn from(row: &TrunkRow) -> TrunkView {
        TrunkView {
            trunk: row.name.clone(),
            peers: row.peers.iter().map(ToString::to_string).collect(),
            transports: row.policy.transports_text(),
            methods: row.policy.methods_text(),
            profile: row.policy.profile.name().to_owned(),
            mode: row.policy.mode.name().to_owned(),
            proxy_protocol: row.policy.proxy_protocol,
            author: row.author.clone(),
            comment: row.reason.clone(),
            created_at: time(row.created_ms),
        }
    }
}

/// A trunk with what is its own, and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkCounters {
    /// The trunk.
    #[serde(flatten)]
    pub trunk: TrunkView,
    /// Its own switches of checks; of all others it has what is set for everybody.
    pub checks: Vec<CheckView>,
    /// Its own limits; it has no others.
    pub limits: Vec<LimitView>,
    /// What was counted of it; empty while nothing is attached.
    pub counters: Vec<CounterView>,
}

impl TrunkCounters {
    /// Of a trunk with its own switches and limits, and its counters. `modes`: who only counts; `in_force`: something is attached.
    #[must_use]
    pub fn new(
        row: &TrunkRow,
        checks: &[CheckRow],
        limits: &[LimitView],
        counted: &[CounterRow],
        modes: &Modes,
        in_force: bool,
    ) -> TrunkCounters {
        TrunkCounters {
            trunk: row.into(),
            checks: checks.iter().map(|row| CheckView::new(row, modes, in_force)).collect(),
            limits: limits.to_vec(),
            counters: counted.iter().map(CounterView::of_trunk).collect(),
        }
    }
}

/// A trunk with the sums of its counters, and why its packets were stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkTraffic {
    /// The trunk.
    #[serde(flatten)]
    pub trunk: TrunkView,
    /// The sums.
    #[serde(flatten)]
    pub totals: Totals,
    /// The counters of what was stopped.
    pub stopped: Vec<CounterView>,
    /// The counters of what monitor mode let pass.
    pub would_stop: Vec<CounterView>,
}

impl TrunkTraffic {
    /// Of a trunk and its counters.
    #[must_use]
    pub fn new(row: &TrunkRow, counted: &[CounterRow]) -> TrunkTraffic {
        let of = |is: fn(Action) -> bool| {
            counted.iter().filter(|row| is(row.action)).map(CounterView::of_trunk).collect()
        };
        TrunkTraffic {
            trunk: row.into(),
            totals: Totals::of(counted),
            stopped: of(Action::stops),
            would_stop: of(Action::would_stop),
        }
    }
}
