//! What is attached, and how.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sipguard_common::framer::{LIMITS, checks};

use super::{CheckStateView, MonitoredLimitView, Totals};
use crate::connections::ConnectionCounts;
use crate::counters::CounterRow;
use crate::settings;
use crate::status::{GuardStatus, InterfaceStatus, Weakness};

/// The guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The answer in one line: whether anything is stopped, since when, and on what.
    #[serde(default)]
    pub verdict: String,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// `enforce` or `monitor`.
    pub mode: String,
    /// Since when, where the log knows; not in the answer of `serve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_since_at: Option<String>,
    /// What happens to a malformed stream: `reset` or `drop`.
    pub on_malformed: String,
    /// Guarded SIP ports.
    pub ports: BTreeSet<u16>,
    /// Guarded TLS ports.
    pub tls_ports: BTreeSet<u16>,
    /// `default` or `strict`, or `own` where checks were chosen one by one.
    pub profile: String,
    /// Whether lines that end with LF alone are refused.
    pub refuse_lf: bool,
    /// The limits of the checks by name.
    pub limits: BTreeMap<String, u32>,
    /// The checks that do not refuse.
    #[serde(default)]
    pub checks: Vec<CheckStateView>,
    /// The limits that only count what is over them.
    #[serde(default)]
    pub monitored_limits: Vec<MonitoredLimitView>,
    /// Active blocks.
    pub blocks: usize,
    /// Active bans.
    #[serde(default)]
    pub bans: usize,
    /// The modes of the trunks; not in the answer of `serve`, which has them below `/api/trunks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunks: Vec<TrunkModeView>,
    /// Established connections that are followed.
    pub connections: usize,
    /// Entries of the flow table.
    pub flows: usize,
    /// Entries that it has room for.
    pub flows_max: u32,
    /// What the guard can't do on this kernel.
    pub weaknesses: Vec<WeaknessView>,
    /// Trunks of balancers, whose connections begin with a PROXY header; not in the answer of `serve`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub balancers: Vec<String>,
    /// When its first interface was attached.
    pub attached_at: Option<String>,
    /// The sums of all counters, in the answer of `serve`.
    #[serde(flatten)]
    pub totals: Option<Totals>,
    /// The version of sipguard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The mode of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkModeView {
    /// Its name.
    pub trunk: String,
    /// `inherit`, `enforce` or `monitor`.
    pub mode: String,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name.
    pub interface: String,
    /// Its driver, or the kind of a virtual one; empty when it is gone.
    pub driver: String,
    /// `native`, `generic`, `gone` where nothing is filtered any more, `absent` where there is no such interface now, or `elsewhere`.
    pub mode: String,
    /// Why that mode.
    pub why: String,
    /// The kernel's number of the program.
    pub program_id: Option<u32>,
    /// When it was attached.
    pub attached_at: Option<String>,
    /// Connections whose bytes are judged.
    pub followed: usize,
    /// Connections that pass until a message begins.
    pub lost: usize,
    /// Connections that were refused.
    pub cut: usize,
    /// Connections that the PBX dialled and speaks no SIP on.
    pub other: usize,
    /// Packets that passed unjudged, by reason.
    pub unjudged: BTreeMap<String, u64>,
    /// The sums of its counters, in the answer of `serve`.
    #[serde(flatten)]
    pub totals: Option<Totals>,
}

/// What the guard could do on another kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeaknessView {
    /// Its name.
    pub what: String,
    /// What follows from it.
    pub text: String,
}

impl From<&GuardStatus> for StatusView {
    fn from(status: &GuardStatus) -> StatusView {
        let limit =
            |limit: &sipguard_common::framer::NamedLimit| (limit.name.to_owned(), limit.get(&status.limits));
        let trunk =
            |(name, mode): &(String, &str)| TrunkModeView { trunk: name.clone(), mode: (*mode).to_owned() };
        StatusView {
            verdict: status.verdict(),
            bans: status.bans,
            trunks: status.trunks.iter().map(trunk).collect(),
            interfaces: status.interfaces.iter().map(InterfaceView::from).collect(),
            mode: status.mode.to_owned(),
            mode_since_at: status.mode_since.map(|since| since.to_string()),
            on_malformed: status.action.to_owned(),
            ports: status.ports.sip.clone(),
            tls_ports: status.ports.tls.clone(),
            profile: settings::profile(&status.limits).to_owned(),
            refuse_lf: status.limits.has(checks::REFUSE_LF),
            limits: LIMITS.iter().map(limit).collect(),
            checks: status.checks.iter().map(CheckStateView::from).collect(),
            monitored_limits: status.monitored_limits.iter().map(MonitoredLimitView::from).collect(),
            blocks: status.blocks,
            connections: status.connections.live(),
            flows: status.connections.flows,
            flows_max: status.connections.flows_max,
            weaknesses: status.weaknesses.iter().map(WeaknessView::from).collect(),
            balancers: status.balancers.clone(),
            attached_at: status
                .interfaces
                .iter()
                .filter_map(|one| one.since)
                .min()
                .map(|since| since.to_string()),
            totals: None,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

impl StatusView {
    /// With the sums of counters.
    #[must_use]
    pub fn with_traffic(status: &GuardStatus, counted: &[CounterRow]) -> StatusView {
        let mut view = StatusView::from(status);
        for interface in &mut view.interfaces {
            let own = counted.iter().filter(|row| row.interface == interface.interface);
            interface.totals = Some(Totals::of(own));
        }
        view.totals = Some(Totals::of(counted));
        view
    }
}

impl From<&InterfaceStatus> for InterfaceView {
    fn from(status: &InterfaceStatus) -> InterfaceView {
        let ConnectionCounts { followed, lost, cut, other } = status.known;
        InterfaceView {
            interface: status.name.clone(),
            driver: status.driver.clone(),
            mode: status.mode.to_owned(),
            why: status.why.clone(),
            program_id: status.program_id,
            attached_at: status.since.map(|since| since.to_string()),
            followed,
            lost,
            cut,
            other,
            unjudged: status
                .unjudged
                .iter()
                .map(|(reason, packets)| (reason.name().to_owned(), *packets))
                .collect(),
            totals: None,
        }
    }
}

impl From<&Weakness> for WeaknessView {
    fn from(weakness: &Weakness) -> WeaknessView {
        WeaknessView { what: weakness.what.to_owned(), text: weakness.text.to_owned() }
    }
}
