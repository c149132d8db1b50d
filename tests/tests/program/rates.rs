//! Limits of sources and trunks, through the loaded program.

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{
    CONNECTIONS, INVITES, MESSAGES, MODE_MONITOR, Outcome, PACKETS, REGISTERS, Rate, Rule, Trunk, rule_flags,
};
use sipguard_tests::application::wait_until;
use sipguard_tests::message::{OPTIONS, good_call, register};
use sipguard_tests::packet::{ACK, Peer, SYN};
use sipguard_tests::program::{PERMANENTLY, Program, Shared, XDP_DROP, XDP_PASS};

const PBX: &str = "198.51.100.1:5060";
const PBX6: &str = "[2001:db8:1::1]:5060";
/// So slow that nothing comes back while a test runs, on a machine that does much else too.
const FIVE: Rate = slow(5);

/// That many at once, and one an hour.
const fn slow(burst: u64) -> Rate {
    let hour_ns = 3_600_000_000_000;
    Rate { interval_ns: hour_ns, tolerance_ns: hour_ns * burst }
}

fn limited(kind: usize, rate: Rate) -> Result<Shared> {
    let mut program = Program::shared()?;
    program.limit(kind, rate)?;
    Ok(program)
}

/// How many of ten datagrams pass.
fn passed(program: &mut Program, from: &str, message: &[u8]) -> Result<usize> {
    let frame = Peer::new(from, if from.starts_with('[') { PBX6 } else { PBX }).udp(message);
    let mut passed = 0;
    for _ in 0..10 {
        passed += usize::from(program.run(&frame)?.reason == Reason::Valid);
    }
    Ok(passed)
}

#[test]
fn each_source_has_a_budget_of_its_own() -> Result<()> {
    for kind in [PACKETS, MESSAGES] {
        let mut program = limited(kind, FIVE)?;
        assert_eq!(passed(&mut program, "192.0.2.7:5060", OPTIONS)?, 5);
        assert_eq!(passed(&mut program, "192.0.2.7:5061", OPTIONS)?, 0, "by address, not by port");
        assert_eq!(passed(&mut program, "192.0.2.8:5060", OPTIONS)?, 5);
        assert_eq!(passed(&mut program, "[2001:db8::7]:5060", OPTIONS)?, 5);
        assert_eq!(passed(&mut program, "[2001:db8::8]:5060", OPTIONS)?, 0, "a /64 is one source");
        assert_eq!(passed(&mut program, "[2001:db8:0:1::8]:5060", OPTIONS)?, 5);
        let reason = if kind == PACKETS { Reason::RatePackets } else { Reason::RateMessages };
        assert_eq!(program.count(reason)?, 40);
    }
    Ok(())
}

#[test]
fn methods_have_limits_of_their_own() -> Result<()> {
    for (kind, reason) in [(REGISTERS, Reason::RateRegister), (INVITES, Reason::RateInvite)] {
        let mut program = limited(kind, FIVE)?;
        let registers = passed(&mut program, "192.0.2.7:5060", &register(1))?;
        let invites = passed(&mut program, "192.0.2.7:5060", &good_call())?;
        let expected = if kind == REGISTERS { (5, 10) } else { (10, 5) };
        assert_eq!((registers, invites), expected);
        assert_eq!(passed(&mut program, "192.0.2.7:5060", OPTIONS)?, 10);
        assert_eq!(program.count(reason)?, 5);
    }
    Ok(())
}

#[test]
fn a_segment_over_the_limit_is_dropped_and_may_come_again() -> Result<()> {
    let mut program = limited(MESSAGES, Rate::new(1, 3))?;
    let peer = Peer::new("192.0.2.7:40000", PBX);
    program.connect(&peer, 1000)?;
    let three = OPTIONS.repeat(3);
    assert_eq!(program.run(&peer.tcp(ACK, 1000, &three))?.reason, Reason::Valid);
    let next = peer.tcp(ACK, 1000 + three.len() as u32, OPTIONS);
    let run = program.run(&next)?;
    assert_eq!((run.reason, run.action), (Reason::RateMessages, XDP_DROP));
    wait_until("TCP repeats it, and it passes", || Ok(program.run(&next)?.reason == Reason::Valid))?;
    // Half a message costs nothing.
    let at = 1000 + (three.len() + OPTIONS.len()) as u32;
    assert_eq!(program.run(&peer.tcp(ACK, at, &OPTIONS[..20]))?.reason, Reason::Valid);
    Ok(())
}

#[test]
fn a_segment_of_more_messages_than_the_burst_passes_once_nothing_is_owed() -> Result<()> {
    let mut program = limited(MESSAGES, Rate::new(2, 2))?;
    let peer = Peer::new("192.0.2.7:40000", PBX);
    program.connect(&peer, 1000)?;
    let five = OPTIONS.repeat(5);
    assert_eq!(program.run(&peer.tcp(ACK, 1000, &five))?.reason, Reason::Valid);
    let next = peer.tcp(ACK, 1000 + five.len() as u32, &five);
    assert_eq!(program.run(&next)?.reason, Reason::RateMessages, "five are owed");
    // Or it would come again for ever.
    wait_until("nothing is owed, and it passes", || Ok(program.run(&next)?.reason == Reason::Valid))
}

#[test]
fn new_connections() -> Result<()> {
    let mut program = limited(CONNECTIONS, FIVE)?;
    // Anybody can send a SYN.
    let syn = |port: u16| Peer::new(&format!("192.0.2.7:{port}"), PBX).tcp(SYN, 1, b"");
    for port in 30_000..30_100 {
        assert_eq!(program.run(&syn(port))?.reason, Reason::TcpControl);
    }
    let mut passed = 0;
    for port in 40_000..40_010 {
        let peer = Peer::new(&format!("192.0.2.7:{port}"), PBX);
        program.run(&syn(port))?;
        program.leave(&peer.answer(2))?;
        passed += usize::from(program.run(&peer.tcp(ACK, 2, b""))?.reason == Reason::TcpControl);
    }
    assert_eq!(passed, 5);
    assert_eq!(program.count(Reason::RateConnections)?, 5);
    // What is connected goes on.
    let ack = Peer::new("192.0.2.7:40000", PBX).tcp(ACK, 2, b"");
    assert_eq!(program.run(&ack)?.reason, Reason::TcpControl);
    Ok(())
}

#[test]
fn a_trunk_has_one_budget_for_all_its_peers_and_not_that_of_sources() -> Result<()> {
    let mut program = limited(MESSAGES, FIVE)?;
    program.rule("192.0.2.0/28", Rule { trunk: 3, ..Rule::zeroed() })?;
    let mut trunk = Trunk::zeroed();
    program.trunk(3, trunk)?;
    assert_eq!(passed(&mut program, "192.0.2.9:5060", OPTIONS)?, 10, "without limits of its own it has none");
    trunk.rates[MESSAGES] = slow(7);
    program.trunk(3, trunk)?;
    assert_eq!(passed(&mut program, "192.0.2.9:5060", OPTIONS)?, 7);
    assert_eq!(passed(&mut program, "192.0.2.10:5060", OPTIONS)?, 0);
    assert_eq!(passed(&mut program, "192.0.2.99:5060", OPTIONS)?, 5);
    assert_eq!(program.count_of_trunk(3, Outcome::Plain, Reason::RateMessages)?, 13);
    Ok(())
}

#[test]
fn allowed_sources_have_no_limit() -> Result<()> {
    let mut program = limited(MESSAGES, FIVE)?;
    program.rule("192.0.2.7", Rule { flags: rule_flags::ALLOW, ..PERMANENTLY })?;
    assert_eq!(passed(&mut program, "192.0.2.7:5060", OPTIONS)?, 10);
    Ok(())
}

#[test]
fn monitor_mode_counts_what_is_over() -> Result<()> {
    let mut program = limited(MESSAGES, FIVE)?;
    program.change(|settings| settings.mode = MODE_MONITOR)?;
    let frame = Peer::new("192.0.2.7:5060", PBX).udp(OPTIONS);
    for _ in 0..10 {
        program.run_uncounted(&frame)?;
    }
    assert_eq!(program.count(Reason::Valid)?, 10);
    assert_eq!(program.count_let_pass(Reason::RateMessages)?, 5);
    Ok(())
}

#[test]
fn only_a_syn_to_a_guarded_port_waits_for_an_open_connection_to_end() -> Result<()> {
    let mut program = Program::shared()?;
    let peer = Peer::new("192.0.2.7:40000", "198.51.100.1:5060");
    program.open(&peer)?;
    assert_eq!(program.run(&peer.tcp(SYN, 1, b""))?.reason, Reason::OpenConnections);
    // The answer of a trunk that the PBX dials; what it sends; UDP; another source; a port behind which nobody counts.
    for frame in [
        peer.tcp(SYN | ACK, 1, b""),
        peer.tcp(ACK, 2, b""),
        peer.udp(OPTIONS),
        Peer::new("192.0.2.8:40000", "198.51.100.1:5060").tcp(SYN, 1, b""),
        Peer::new("192.0.2.7:5060", "198.51.100.1:8080").tcp(SYN, 1, b""),
    ] {
        assert_eq!(program.run(&frame)?.action, XDP_PASS);
    }
    program.change(|settings| settings.mode = MODE_MONITOR)?;
    let (action, _) = program.run_uncounted(&peer.tcp(SYN, 9, b""))?;
    assert_eq!((action, program.count_let_pass(Reason::OpenConnections)?), (XDP_PASS, 1));
    Ok(())
}

#[test]
fn connections_that_the_pbx_opens_itself_are_not_limited() -> Result<()> {
    let mut program = limited(CONNECTIONS, FIVE)?;
    let trunk = Peer::new("192.0.2.9:5060", "198.51.100.1:33333");
    for seq in 0..20 {
        assert_eq!(program.dial(&trunk, seq, b"")?.reason, Reason::TcpControl);
    }
    let passed = (0..20)
        .filter(|port| program.connect(&Peer::new(&format!("192.0.2.9:{}", 33333 + port), PBX), 7).is_ok());
    assert_eq!(passed.count(), 5);
    Ok(())
}
