//! A snapshot of each document, so that a renamed field is seen.

use std::time::Duration;

use sipguard_common::Reason;
use sipguard_common::abi::{Ban, REGISTERS, Rule};
use sipguard_common::framer::Limits;

use super::*;
use crate::ban_rule::DEFAULT;
use crate::check::{CheckScope, CheckState, Switch};
use crate::clock::Clock;
use crate::connections::{ConnectionCounts, Connections};
use crate::counters::{Action, CounterRow};
use crate::denial::{DeniedTraffic, Whom};
use crate::lookup::ListedRule;
use crate::maps::Ports;
use crate::modes::Modes;
use crate::rate::{AtOnce, AtOnceMost, LimitKind, RateLimit};
use crate::rule::{RuleMode, RuleVerb};
use crate::status::{GuardStatus, InterfaceStatus, MonitoredLimit, Weakness};
use crate::store::{AtOnceLimit, CheckRow, Denial, Limit, RuleRow};
use crate::trunk::{TrunkPolicy, TrunkRow};

/// 2026-01-01T00:00:00.6Z.
const MS: i64 = 1_767_225_600_600;

fn row() -> RuleRow {
    RuleRow {
        target: "203.0.113.7".parse().unwrap(),
        origin: "fail2ban".to_owned(),
        verb: RuleVerb::Block,
        mode: RuleMode::Enforce,
        reason: "scans".to_owned(),
        author: "root".to_owned(),
        created_ms: MS,
        expires_ms: Some(MS + 60_000),
        version: 3,
    }
}

fn counter(reason: Reason, action: Action, packets: u64) -> CounterRow {
    let (interface, bytes) = ("eth0".to_owned(), packets * 500);
    CounterRow { interface, reason, action, packets, bytes }
}

fn shown<T: Serialize>(name: &str, view: &T) {
    insta::assert_snapshot!(name, format!("{:#}", json(view)));
}

#[test]
fn rules() {
    let mut entry: Rule = bytemuck::Zeroable::zeroed();
    (entry.packets, entry.bytes) = (12, 6000);
    let listed = ListedRule { row: row(), decides: true, entry: Some(entry), is_ban: false };
    shown("rule_listed", &RuleView::from(&listed));
    shown("rule_exported", &RuleView::exported(&RuleRow { expires_ms: None, ..row() }));
    let overruled = RuleView { why: Some("a longer prefix decides".to_owned()), ..RuleView::of_row(&row()) };
    shown("rule_overruled", &overruled);
    let ban: Ban = bytemuck::Zeroable::zeroed();
    let view = RuleView::of_ban("203.0.113.7:4001".parse().unwrap(), &ban, &Clock::now().unwrap());
    assert_eq!((view.rule.as_str(), view.origin.as_str()), ("ban", "guard"));
}

#[test]
fn counters() {
    let malformed = counter(Reason::BareLf, Action::WouldReset, 3);
    shown("counter_of_interface", &CounterView::of_interface(&malformed));
    shown("counter_of_trunk", &CounterView::of_trunk(&malformed));
    shown("rate", &RateView::of_interface(&malformed, Duration::from_millis(1500)));
    let rows =
        [malformed, counter(Reason::Valid, Action::Pass, 10), counter(Reason::BlockedHost, Action::Drop, 5)];
    let totals = Totals { received_packets: 18, dropped_packets: 5, would_drop_packets: 3 };
    assert_eq!(Totals::of(&rows), totals);
    let only_counts = counter(Reason::RateRegister, Action::WouldDrop, 7);
    let totals = Totals { would_drop_packets: 10, ..totals };
    assert_eq!(Totals::of(rows.iter().chain([&only_counts])), totals);
}

#[test]
fn trunks() {
    let row = TrunkRow {
        name: "carrier".to_owned(),
        number: 1,
        peers: vec!["198.51.100.0/28".parse().unwrap()],
        policy: TrunkPolicy::default(),
        reason: "main".to_owned(),
        author: "root".to_owned(),
        created_ms: MS,
    };
    let counted = [counter(Reason::Valid, Action::Pass, 7), counter(Reason::MethodDenied, Action::Drop, 2)];
    let trunk = Some("carrier".to_owned());
    let (author, created_ms) = ("root".to_owned(), MS);
    let scope = CheckScope::Trunk("carrier".to_owned());
    let switch = Switch { scope, reason: Reason::BadNumber, state: CheckState::Off };
    let check = CheckRow { switch, author: author.clone(), created_ms };
    let most = AtOnceMost { most: 500, mode: RuleMode::Monitor };
    let limit = AtOnceLimit { trunk, kind: AtOnce::Open, limit: most, author, created_ms };
    let limit = LimitView::of_at_once(&limit, 3, None);
    shown(
        "trunk_with_counters",
        &TrunkCounters::new(&row, &[check], &[limit], &counted, &Modes::default(), true),
    );
    shown("trunk_with_traffic", &TrunkTraffic::new(&row, &counted));
}

#[test]
fn what_is_denied_and_limited() {
    let denial = Denial {
        whom: Whom::Devices,
        what: DeniedTraffic::parse("register/tcp").unwrap()[0],
        reason: "no".to_owned(),
        author: "root".to_owned(),
        created_ms: MS,
    };
    shown("denial", &DenialView::new(&denial, true));
    let rate = Limit {
        trunk: Some("carrier".to_owned()),
        kind: 0,
        limit: RateLimit { per_second: 20, burst: 40, mode: RuleMode::Monitor },
        author: "root".to_owned(),
        created_ms: MS,
    };
    shown("limit_of_rate", &LimitView::of_rate(&rate));
    let open = AtOnceLimit {
        trunk: None,
        kind: AtOnce::Open,
        limit: AtOnceMost { most: 500, mode: RuleMode::Enforce },
        author: "default".to_owned(),
        created_ms: MS,
    };
    shown("limit_of_open", &LimitView::of_at_once(&open, 7, Some("203.0.113.7".parse().unwrap())));
    let unfinished = AtOnceLimit { kind: AtOnce::Unfinished, ..open };
    shown(
        "limit_of_unfinished",
        &LimitView::of_at_once(&unfinished, 9, Some("203.0.113.7".parse().unwrap())),
    );
    shown("bans", &BanView::from(&DEFAULT));
}

#[test]
fn status() {
    let known = ConnectionCounts { followed: 4, lost: 3, cut: 2, other: 1 };
    let mut connections = Connections { flows: 10, flows_max: 65_536, ..Connections::default() };
    connections.known[0] = known;
    let status = GuardStatus {
        interfaces: vec![InterfaceStatus {
            slot: 0,
            name: "eth0".to_owned(),
            driver: "virtio_net".to_owned(),
            mode: "native",
            why: "the driver runs XDP".to_owned(),
            program_id: Some(7),
            since: Timestamp::from_millisecond(MS).ok(),
            known,
            unjudged: vec![(Reason::MidStream, 9)],
        }],
        mode: "enforce",
        mode_since: Timestamp::from_millisecond(MS).ok(),
        action: "reset",
        ports: Ports { sip: [5060].into(), tls: [5061].into() },
        limits: Limits::default(),
        checks: vec![
            Switch { scope: CheckScope::Devices, reason: Reason::BareLf, state: CheckState::Monitor },
            Switch {
                scope: CheckScope::Trunk("carrier".to_owned()),
                reason: Reason::BadNumber,
                state: CheckState::Off,
            },
        ],
        monitored_limits: vec![
            MonitoredLimit { trunk: None, kind: LimitKind::AtOnce(AtOnce::Open) },
            MonitoredLimit { trunk: Some("carrier".to_owned()), kind: LimitKind::Rate(REGISTERS) },
        ],
        bans: 2,
        ban_rule: DEFAULT,
        addresses_banned_from: None,
        trunks: vec![("carrier".to_owned(), "inherit")],
        blocks: 3,
        connections,
        weaknesses: vec![Weakness { what: "second-eye", text: "less is seen" }],
        balancers: Vec::new(),
    };
    shown("status", &StatusView::from(&status));
    let counted = [counter(Reason::Valid, Action::Pass, 7), counter(Reason::BareLf, Action::Reset, 2)];
    shown("status_with_traffic", &StatusView::with_traffic(&status, &counted));
}
