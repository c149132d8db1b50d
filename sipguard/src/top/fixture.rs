//! What the tests look at.

use std::net::SocketAddr;

use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_core::by_address::{AddressRow, group};
use sipguard_core::connections::ConnectionCounts;
use sipguard_core::counters::{Action, CounterRow};
use sipguard_core::offenders::{OffenderRow, OffenderTable};
use sipguard_core::senders::SenderRow;
use sipguard_core::status::InterfaceStatus;
use sipguard_observe::ops::reading::{RuleCounts, RuleReading, TopEvent, TopReading, TrunkReading};

/// What a phone sends that is at fault.
const PHONE: &[u8] = b"REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/TCP 203.0.113.7:4001;branch=z9hG4bK1\r\nFrom: <sip:201@pbx.example>;tag=7\r\n\
    To: <sip:201@pbx.example>\r\nCall-ID: 1@203.0.113.7\r\nCSeq: 1 REGISTER\r\nUser-Agent: Yealink SIP-T46S 66.86.0.15\r\nContent-Length: -1\r\n\r\n";

/// A reading in which everything is, the counters at `seconds` times something.
pub(super) fn fixed(seconds: u64) -> TopReading {
    let time = |second: i64| Timestamp::from_second(1_767_225_600 + second).unwrap();
    let second = seconds.cast_signed();
    let interface = |name: &str, driver: &str, mode| InterfaceStatus {
        slot: 0,
        name: name.to_owned(),
        driver: driver.to_owned(),
        mode,
        why: String::new(),
        program_id: Some(7),
        since: Some(time(0)),
        known: ConnectionCounts::default(),
        unjudged: Vec::new(),
    };
    let counter = |interface: &str, reason, action, packets| CounterRow {
        interface: interface.to_owned(),
        reason,
        action,
        packets,
        bytes: packets * 500,
    };
    let source = |address: &str, reason, packets, ago: i64, sample: &[u8]| {
        let device: SocketAddr = address.parse().unwrap();
        OffenderRow {
            address: device.ip(),
            port: device.port(),
            reason,
            packets,
            lately: packets.min(27),
            passed: 0,
            first_seen: Some(time(0)),
            last_seen: Some(time(second - ago)),
            sample: sample.to_vec(),
            sample_at: 0,
            fault_at: None,
        }
    };
    let by_address = |ports: Vec<OffenderRow>| -> Vec<AddressRow> {
        let mut rows = group(OffenderTable { ports, addresses: Vec::new() });
        rows.iter_mut().for_each(|row| row.good = Some(u64::from(row.ports_seen() == 1)));
        rows
    };
    let event = |address: &str, reason, action, ago: i64, count| TopEvent {
        time: time(second - ago),
        source: Some(address.parse().unwrap()),
        destination: Some("198.51.100.1:5060".parse().unwrap()),
        interface: "eth0".to_owned(),
        trunk: None,
        reason,
        action,
        count,
        frame_bytes: 512,
        sample: b"OPTIONS sip:pbx SIP/2.0\nVia: SIP/2.0/TCP h".to_vec(),
        from: Some("<sip:201@pbx.example>".to_owned()),
    };
    let trunk = |name: &str, received, dropped| TrunkReading {
        name: name.to_owned(),
        received,
        dropped,
        would_drop: 0,
    };
    let rule = |target: &str, rule, expires_ms, packets, reason: &str| RuleReading {
        target: target.parse().unwrap(),
        rule,
        only_counts: false,
        expires_ms,
        packets,
        origin: "cli".to_owned(),
        reason: reason.to_owned(),
    };
    let end = Some(time(3600).as_millisecond());
    TopReading {
        at_ns: seconds * 1_000_000_000,
        time: time(second),
        interfaces: vec![interface("eth0", "virtio_net", "native"), interface("eth1", "e1000", "generic")],
        mode: "enforce",
        counters: vec![
            counter("eth0", Reason::Valid, Action::Pass, 12_000 * seconds),
            counter("eth0", Reason::BareLf, Action::Reset, 4 * seconds * seconds),
            counter("eth0", Reason::BlockedHost, Action::Drop, 77 * seconds),
            counter("eth1", Reason::Valid, Action::Pass, 3456),
        ],
        sources: by_address(vec![
            source("203.0.113.7:4001", Reason::BadContentLength, 3 * seconds * seconds, 0, PHONE),
            source("203.0.113.9:5060", Reason::ControlByte, 12, 75, b"INVITE sip:\x001@pbx SIP/2.0\r\n"),
            source(
                "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:61234",
                Reason::BareLf,
                5,
                4000,
                b"REGISTER sip:pbx SIP",
            ),
            source("203.0.113.7:4002", Reason::ControlByte, 2 * seconds, 20, PHONE),
            source("203.0.113.7:4003", Reason::BadContentLength, 1, 30, PHONE),
        ]),
        senders: vec![
            SenderRow {
                source: Some("203.0.113.50".parse().unwrap()),
                trunk: None,
                lately: [600, 600, 0, 3],
                totals: [60 * seconds, 60 * seconds, 0, seconds],
            },
            SenderRow {
                source: None,
                trunk: Some("carrier".to_owned()),
                lately: [90, 0, 30, 1],
                totals: [9 * seconds, 0, 3 * seconds, 1],
            },
        ],
        trunks: vec![trunk("carrier", 9000 * seconds, 0), trunk("old-carrier", 800, 2 * seconds)],
        events: vec![
            event("203.0.113.7:4001", Reason::BareLf, Action::Reset, 3, 1),
            event("203.0.113.9:5060", Reason::ControlByte, Action::WouldDrop, 1, 12),
        ],
        events_lost: 5,
        rules: Some(RuleCounts {
            blocks: 2,
            bans: 1,
            rows: vec![
                rule("192.0.2.44:5060", "ban", end, 31, ""),
                rule("203.0.113.0/28", "block", None, 77 * seconds, "scanner"),
                rule("198.51.100.0/24", "allow", None, 0, "head office"),
            ],
        }),
        error: None,
    }
}
