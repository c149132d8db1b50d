//! Rules about what a request says of itself, its SIP identity and its User-Agent, through the loaded program.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{Outcome, Rule, Trunk, rule_flags};
use sipguard_tests::message::bent;
use sipguard_tests::packet::{ACK, PSH, Peer, RST};
use sipguard_tests::program::{PERMANENTLY, Program, Run, XDP_DROP, XDP_PASS};

const BLOCK: Rule = flagged(rule_flags::BLOCK);
const MONITORED: Rule = flagged(rule_flags::BLOCK | rule_flags::MONITOR);
const DEVICE: &str = "192.0.2.7:40000";
const PBX: &str = "198.51.100.1:5060";

const fn flagged(flags: u16) -> Rule {
    Rule { flags, ..PERMANENTLY }
}

/// A scanner's OPTIONS, with `{0}` From, `{1}` Contact and `{2}` User-Agent lines.
fn message(from: &str, contact: &str, agent: &str) -> Vec<u8> {
    format!(
        "OPTIONS sip:100@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n{from}\r\n\
         To: <sip:100@198.51.100.1>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n{contact}\r\n{agent}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn with_from(from: &str) -> Vec<u8> {
    message(from, "Contact: <sip:x@y>", "User-Agent: phone")
}

fn with_agent(agent: &str) -> Vec<u8> {
    message("From: <sip:a@h>;tag=1", "Contact: <sip:x@y>", agent)
}

/// What becomes of a message in segments: the first run that does not pass as it was sent, or the last.
fn segments(program: &mut Program, peer: &Peer, segments: &[&[u8]]) -> Result<Run> {
    program.connect(peer, 1000)?;
    let mut seq = 1000u32;
    let mut last = None;
    for segment in segments.iter().filter(|segment| !segment.is_empty()) {
        let run = program.run(&peer.tcp(ACK | PSH, seq, segment))?;
        let ends = run.reason != Reason::Valid;
        last = Some(run);
        if ends {
            break;
        }
        seq = seq.wrapping_add(segment.len() as u32);
    }
    last.ok_or_else(|| anyhow::anyhow!("no segment"))
}

/// A device that no message has had.
fn peer() -> Peer {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let [_, high, middle, low] = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Peer::new(&format!("10.{high}.{middle}.{low}:40000"), PBX)
}

/// Fails unless the message is stopped over UDP, over UDP in IPv6, and over TCP wherever it is cut in two.
fn expect_stopped(program: &mut Program, message: &[u8], reason: Reason) -> Result<()> {
    let shown = message.escape_ascii();
    for peer in [Peer::new(DEVICE, PBX), Peer::new("[2001:db8::7]:40000", "[2001:db8:1::1]:5060")] {
        let run = program.run(&peer.udp(message))?;
        ensure!((run.reason, run.action) == (reason, XDP_DROP), "UDP: {run:?}: {shown}");
    }
    for at in 1..=message.len() {
        let peer = peer();
        let (one, other) = message.split_at(at);
        let run = segments(program, &peer, &[one, other])?;
        ensure!((run.reason, run.action) == (reason, XDP_PASS), "cut at {at}: {run:?}: {shown}");
        ensure!(run.frame[peer.tcp_at() + 13] == RST | ACK, "cut at {at}: no reset: {shown}");
    }
    ensure!(program.offenders()?.is_empty(), "it accuses: {shown}");
    Ok(())
}

fn expect_passes(program: &mut Program, message: &[u8]) -> Result<()> {
    let shown = message.escape_ascii();
    let run = program.run(&Peer::new(DEVICE, PBX).udp(message))?;
    ensure!((run.reason, run.action) == (Reason::Valid, XDP_PASS), "UDP: {run:?}: {shown}");
    for at in [1, message.len() / 3, message.len() / 2, message.len()] {
        let (one, other) = message.split_at(at);
        let run = segments(program, &peer(), &[one, other])?;
        ensure!((run.reason, run.action) == (Reason::Valid, XDP_PASS), "cut at {at}: {run:?}: {shown}");
    }
    Ok(())
}

#[test]
fn a_scanner_is_known_by_its_user_agent_whatever_its_address() -> Result<()> {
    let mut program = Program::shared()?;
    program.user_agent("friendly-scanner", BLOCK)?;
    for agent in [
        "User-Agent: friendly-scanner",
        "user-agent:Friendly-SCANNER/1.8",
        "User-Agent:\r\n\tfriendly-scanner",
    ] {
        expect_stopped(&mut program, &with_agent(agent), Reason::BlockedUserAgent)?;
        println!("{agent:?}: stopped over UDP, and reset over TCP wherever it is cut");
    }
    for agent in [
        "User-Agent: friendly-scanne",
        "User-Agent: not friendly-scanner",
        "User-Agent: a\r\n friendly-scanner",
        "Server: friendly-scanner",
        "X-User-Agent: friendly-scanner",
        "User-Agent:",
    ] {
        expect_passes(&mut program, &with_agent(agent))?;
    }
    Ok(())
}

#[test]
fn a_device_is_known_by_its_identity() -> Result<()> {
    let mut program = Program::shared()?;
    program.identity("1234@pbx.example", BLOCK)?;
    for from in [
        "From: <sip:1234@pbx.example>;tag=1",
        "f: \"Desk\" <sips:1234@PBX.example:5061;transport=tcp>;tag=1",
        "From: sip:1234@pbx.example;tag=1",
        "From: \"folded\"\r\n <SIP:1234@pbx.example>;tag=1",
    ] {
        expect_stopped(&mut program, &with_from(from), Reason::BlockedIdentity)?;
    }
    let contact = message("From: <sip:a@h>", "m: <sip:b@h>, <sip:1234@pbx.example>;q=0.1", "User-Agent: x");
    expect_stopped(&mut program, &contact, Reason::BlockedIdentity)?;
    for from in [
        "From: <sip:12345@pbx.example>;tag=1",
        "From: <sip:234@pbx.example>;tag=1",
        "From: <sip:1234@pbx.example.org>;tag=1",
        "From: <sip:1234@other.example>;tag=1",
        "From: \"<sip:1234@pbx.example>\" <sip:1@h>;tag=1",
        "From: <sip:1@h>;tag=1;x=\"<sip:1234@pbx.example>\"",
    ] {
        expect_passes(&mut program, &with_from(from))?;
    }
    // What others send about the device: calls to it, and answers to its own.
    let call =
        bent(&with_from("From: <sip:9@h>"), "To: <sip:100@198.51.100.1>", "To: <sip:1234@pbx.example>");
    expect_passes(&mut program, &call)?;
    let answer = bent(
        &with_from("From: <sip:1234@pbx.example>"),
        "OPTIONS sip:100@198.51.100.1 SIP/2.0",
        "SIP/2.0 200 OK",
    );
    expect_passes(&mut program, &answer)
}

#[test]
fn the_case_of_a_user_counts() -> Result<()> {
    let mut program = Program::shared()?;
    program.identity("Alice@h", BLOCK)?;
    expect_passes(&mut program, &with_from("From: <sip:alice@h>"))?;
    expect_stopped(&mut program, &with_from("From: <sip:Alice@H>"), Reason::BlockedIdentity)
}

#[test]
fn neighbours_behind_the_same_address_go_on() -> Result<()> {
    let mut program = Program::shared()?;
    program.identity("1234@pbx.example", BLOCK)?;
    let (errant, neighbour) = (Peer::new(DEVICE, PBX), Peer::new("192.0.2.7:40001", PBX));
    let run = segments(&mut program, &errant, &[&with_from("From: <sip:1234@pbx.example>")])?;
    assert_eq!(run.reason, Reason::BlockedIdentity);
    let run = segments(&mut program, &neighbour, &[&with_from("From: <sip:1235@pbx.example>")])?;
    assert_eq!(run.reason, Reason::Valid);
    // And on one connection, such as a proxy's, what came before it has passed.
    let proxy = Peer::new("192.0.2.7:40002", PBX);
    let both = [with_from("From: <sip:1235@pbx.example>"), with_from("From: <sip:1234@pbx.example>")];
    assert_eq!(segments(&mut program, &proxy, &[&both[0], &both[1]])?.reason, Reason::BlockedIdentity);
    let rule = program.rule_of_identity("1234@pbx.example")?;
    assert_eq!(rule.packets, 2, "each packet is counted for its rule");
    Ok(())
}

#[test]
fn a_rule_that_has_ended_or_only_counts_stops_nothing() -> Result<()> {
    let mut program = Program::shared()?;
    let ended = |rule: Rule| Rule { expires_ns: 1, ..rule };
    program.identity("ended@h", ended(BLOCK))?;
    program.identity("counted@h", MONITORED)?;
    program.user_agent("scan", BLOCK)?;
    program.user_agent("scanner", ended(MONITORED))?;
    program.user_agent("scan-counted", MONITORED)?;
    let peer = Peer::new(DEVICE, PBX);
    for (message, action) in [
        (with_from("From: <sip:ended@h>"), XDP_PASS),
        (with_from("From: <sip:counted@h>"), XDP_PASS),
        (with_agent("User-Agent: scanner 1"), XDP_DROP),
        (with_agent("User-Agent: scan-counted"), XDP_PASS),
    ] {
        assert_eq!(program.run_uncounted(&peer.udp(&message))?.0, action, "{}", message.escape_ascii());
    }
    assert_eq!(program.count_let_pass(Reason::BlockedIdentity)?, 1);
    assert_eq!(program.count_let_pass(Reason::BlockedUserAgent)?, 1);
    assert_eq!(program.count(Reason::BlockedUserAgent)?, 1);
    assert_eq!(program.count(Reason::Valid)?, 3);
    assert_eq!(program.rule_of_identity("counted@h")?.packets, 1);
    program.connect(&peer, 1000)?;
    program.run_uncounted(&peer.tcp(ACK, 1000, &with_from("From: <sip:counted@h>")))?;
    let counted = [Outcome::WouldDrop, Outcome::WouldReset]
        .map(|outcome| program.count_of(outcome, Reason::BlockedIdentity).unwrap());
    assert_eq!(counted, [1, 1], "a datagram would have been dropped, a connection reset");
    Ok(())
}

#[test]
fn trunks_and_allowed_addresses_are_excused() -> Result<()> {
    let mut program = Program::shared()?;
    program.identity("1234@pbx.example", BLOCK)?;
    program.user_agent("friendly-scanner", BLOCK)?;
    program.rule("192.0.2.0/28", Rule { trunk: 3, ..Rule::zeroed() })?;
    program.trunk(3, Trunk::zeroed())?;
    program.rule("198.18.0.0/24", flagged(rule_flags::ALLOW))?;
    let message = message("From: <sip:1234@pbx.example>", "Contact: *", "User-Agent: friendly-scanner");
    for (from, reason) in [
        ("192.0.2.9:5060", Reason::Valid),
        ("198.18.0.9:5060", Reason::Valid),
        ("203.0.113.9:5060", Reason::BlockedIdentity),
    ] {
        let peer = Peer::new(from, PBX);
        assert_eq!(program.run(&peer.udp(&message))?.reason, reason, "{from}");
        assert_eq!(segments(&mut program, &peer, &[&message])?.reason, reason, "{from}");
    }
    Ok(())
}
