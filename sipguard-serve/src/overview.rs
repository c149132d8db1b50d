//! What the dashboard shows of one moment: its sums, rows and trunks come from one reading of the counters, so they agree.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use sipguard_common::Cause;
use sipguard_core::clock::Clock;
use sipguard_core::counters::{self, CounterRow};
use sipguard_core::ops::overview::{KeptRules, kept_rules};
use sipguard_core::status;
use sipguard_core::view::{StatusView, TrunkTraffic, schema};
use sipguard_observe::ops::crash::CrashReport;
use sipguard_observe::view::EventView;

use crate::attached::AttachedGuard;
use crate::shared::ServeShared;

/// Reports of crashes that are shown.
const CRASHES: usize = 10;

/// The host, and what is attached to it.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    schema: &'static str,
    /// The host's name.
    host: String,
    version: &'static str,
    /// When the counters were read, with milliseconds.
    read_at: String,
    /// Whether packets are filtered on every interface that was attached; false where none was.
    attached: bool,
    /// Interfaces that were attached, and on which nothing is filtered.
    unfiltered: Vec<String>,
    /// The interface that an `attach` would be for: that of the default route, or else the first one that is no loopback.
    interface: Option<String>,
    /// Null where nothing is attached.
    guard: Option<Guard>,
    /// What the store has for the next attach; null while something is attached, or where there is no store.
    stored: Option<StoredRules>,
}

/// Rules that hold with the next attach.
#[derive(Debug, Serialize)]
struct StoredRules {
    blocks: i64,
    allowances: usize,
    /// Names of the trunks.
    trunks: Vec<String>,
}

/// The attached guard.
#[derive(Debug, Serialize)]
struct Guard {
    status: StatusView,
    /// What was stopped or would have been, over all interfaces, the most first.
    reasons: Vec<ReasonTotal>,
    /// Null where the store can't be read.
    trunks: Option<Vec<TrunkTraffic>>,
}

/// Packets of a reason, with what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ReasonTotal {
    reason: &'static str,
    cause: Option<&'static str>,
    text: &'static str,
    action: &'static str,
    packets: u64,
}

/// Crashes of the PBX and what was done to core dumps.
#[derive(Debug, Serialize)]
pub(crate) struct Crashes {
    schema: &'static str,
    /// Whether a PBX is watched.
    watched: bool,
    /// Where cores are looked after; null where that is off.
    cores: Option<String>,
    /// The newest reports, the latest first.
    rows: Vec<CrashRow>,
    /// What was seen since `serve` began, the latest first.
    notices: Vec<EventView>,
}

/// A crash, and the first of its suspects.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct CrashRow {
    name: String,
    crashed_at: String,
    how: String,
    /// Whether the first suspect stands out.
    clear: bool,
    suspect: Option<String>,
    identity: Option<String>,
    user_agent: Option<String>,
    /// What was blocked.
    quarantine: Option<String>,
    core: Option<String>,
}

/// The host, and what is attached to it.
pub(crate) fn overview(shared: &ServeShared) -> Result<Overview> {
    let read_at = Clock::now()?;
    let guard = match AttachedGuard::attached(&shared.pins)? {
        Some(attached) => match guard(shared, &attached) {
            // It was detached in between.
            Err(_) if AttachedGuard::attached(&shared.pins)?.is_none() => None,
            outcome => Some(outcome?),
        },
        None => None,
    };
    let interfaces = if guard.is_some() { status::interfaces(&shared.pins, &read_at)? } else { Vec::new() };
    let unfiltered: Vec<String> = status::unfiltered(&interfaces).into_iter().map(str::to_owned).collect();
    Ok(Overview {
        schema: schema::OVERVIEW,
        host: host(),
        version: env!("CARGO_PKG_VERSION"),
        read_at: read_at.wall_exactly(read_at.boot_ns).to_string(),
        attached: guard.is_some() && unfiltered.is_empty(),
        unfiltered,
        interface: interface(Path::new("/proc/net")),
        stored: if guard.is_none() { stored(shared) } else { None },
        guard,
    })
}

/// What the store has. Where it can't be read the table of blocks tells why.
fn stored(shared: &ServeShared) -> Option<StoredRules> {
    let KeptRules { blocks, allowances, trunks } = kept_rules(&shared.host()).ok().flatten()?;
    Some(StoredRules { blocks, allowances, trunks })
}

fn guard(shared: &ServeShared, attached: &AttachedGuard) -> Result<Guard> {
    let pins = &shared.pins;
    let slow = shared.slow(attached)?;
    let counted = counters::read(pins, false)?;
    let read = status::with_sizes(pins, &shared.store, slow.sizes.blocks, slow.sizes.connections, &counted)?;
    let row = |trunk| anyhow::Ok(TrunkTraffic::new(trunk, &counters::of_trunk(pins, trunk)?));
    let trunks = slow.stored.as_ref().map(|stored| stored.trunks.iter().map(row).collect::<Result<Vec<_>>>());
    Ok(Guard {
        status: StatusView::with_traffic(&read, &counted),
        reasons: reasons(&counted),
        trunks: trunks.transpose()?,
    })
}

fn reasons(counted: &[CounterRow]) -> Vec<ReasonTotal> {
    let mut sums = BTreeMap::new();
    for row in counted.iter().filter(|row| row.action.stops() || row.action.would_stop()) {
        let total = sums.entry((row.reason.number(), row.action.name())).or_insert_with(|| ReasonTotal {
            reason: row.reason.name(),
            cause: row.reason.cause().map(Cause::name),
            text: row.reason.text(),
            action: row.action.name(),
            packets: 0,
        });
        total.packets += row.packets;
    }
    let mut all: Vec<ReasonTotal> = sums.into_values().filter(|total| total.packets > 0).collect();
    all.sort_by_key(|total| std::cmp::Reverse(total.packets));
    all
}

/// Crashes of the PBX and what was done to core dumps.
pub(crate) fn crashes(shared: &ServeShared) -> Crashes {
    let mut reports = shared.crashes();
    reports.reverse();
    reports.truncate(CRASHES);
    Crashes {
        schema: schema::CRASH_OVERVIEW,
        watched: shared.options.crash.watched.is_any(),
        cores: shared.options.cores.directory.as_ref().map(|path| path.display().to_string()),
        rows: reports.into_iter().map(CrashRow::of).collect(),
        notices: shared.state().notes.iter().rev().cloned().collect(),
    }
}

impl CrashRow {
    fn of(report: CrashReport) -> CrashRow {
        let first = report.suspects.into_iter().next();
        let (suspect, assessment) =
            first.map_or((None, None), |one| (Some(one.target), Some(one.assessment)));
        let (identity, user_agent) = assessment.map_or((None, None), |one| (one.identity, one.user_agent));
        CrashRow {
            name: report.name,
            crashed_at: report.crashed_at,
            how: report.how,
            clear: report.clear,
            suspect,
            identity,
            user_agent,
            quarantine: report.quarantine.target,
            core: report.core,
        }
    }
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// The interface of the default route, or else the first one that is no loopback; of files as in `/proc/net`.
fn interface(net: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(net.join(name)).unwrap_or_default();
    let (routes, devices) = (read("route"), read("dev"));
    let routed = routes.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then_some(name)
    });
    let mut names = devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    routed.or_else(|| names.find(|name| *name != "lo")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use sipguard_common::Reason;
    use sipguard_core::counters::Action;

    use super::*;

    #[test]
    fn reasons_are_added_up_over_interfaces_and_what_passed_is_none() {
        let row = |interface: &str, reason, action, packets| CounterRow {
            interface: interface.to_owned(),
            reason,
            action,
            packets,
            bytes: 0,
        };
        let sums = reasons(&[
            row("eth0", Reason::BareLf, Action::Reset, 2),
            row("eth1", Reason::BareLf, Action::Reset, 3),
            row("eth0", Reason::BareLf, Action::WouldReset, 9),
            row("eth0", Reason::RateInvite, Action::Drop, 0),
            row("eth0", Reason::Valid, Action::Pass, 100),
        ]);
        let short: Vec<_> = sums.iter().map(|one| (one.reason, one.cause, one.action, one.packets)).collect();
        let bare = ("bare-lf", Some("malformed"));
        assert_eq!(short, [(bare.0, bare.1, "would-reset", 9), (bare.0, bare.1, "reset", 5)]);
    }

    #[test]
    fn the_interface_to_attach_to_is_that_of_the_default_route() {
        let directory = std::env::temp_dir().join(format!("sipguard-net-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("dev", "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  wan0: 3 4\n  eth1: 3 4\n");
        let head = "Iface\tDestination\tGateway\n";
        write("route", &format!("{head}wan0\t0000A8C0\t00000000\neth1\t00000000\t0100A8C0\n"));
        assert_eq!(interface(&directory).as_deref(), Some("eth1"));
        write("route", head);
        assert_eq!(interface(&directory).as_deref(), Some("wan0"));
        write("dev", "    lo: 1 2\n");
        assert_eq!(interface(&directory), None);
        fs::remove_dir_all(&directory).unwrap();
    }
}
