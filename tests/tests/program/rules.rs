//! Which rule decides, through the loaded program.

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{
    CLASS_DEVICES, CLASS_TRUNKS, MODE_MONITOR, Outcome, Rule, TCP, TRUNK_ENFORCES, TRUNK_MONITORS, Trunk,
    UDP, rule_flags,
};
use sipguard_common::framer::{Limits, methods};
use sipguard_tests::message::{OPTIONS, register};
use sipguard_tests::packet::{ACK, Peer, RST, SYN};
use sipguard_tests::program::{PERMANENTLY, Program, Run, Shared, XDP_DROP, XDP_PASS};

const ALLOW: Rule = flagged(rule_flags::ALLOW);
const BLOCK: Rule = flagged(rule_flags::BLOCK);
const MONITORED: Rule = flagged(rule_flags::BLOCK | rule_flags::MONITOR);

const fn flagged(flags: u16) -> Rule {
    Rule { flags, ..PERMANENTLY }
}

/// A datagram of a good message from an address.
fn datagram(program: &mut Program, from: &str) -> Result<Run> {
    let to = if from.starts_with('[') { "[2001:db8:1::1]:5060" } else { "198.51.100.1:5060" };
    program.run(&Peer::new(from, to).udp(OPTIONS))
}

#[test]
fn the_longest_prefix_decides_whatever_it_says() -> Result<()> {
    let mut program = Program::shared()?;
    program.rule("192.0.2.0/24", BLOCK)?;
    program.rule("192.0.2.64/26", ALLOW)?;
    program.rule("192.0.2.80/28", BLOCK)?;
    program.rule("192.0.2.81", ALLOW)?;
    program.rule("192.0.2.100", BLOCK)?;
    program.rule("2001:db8::/32", ALLOW)?;
    program.rule("2001:db8:7::/48", BLOCK)?;
    program.rule("::/0", BLOCK)?;
    for (from, reason) in [
        ("192.0.2.1:5060", Reason::BlockedPrefix),
        ("192.0.2.65:5060", Reason::Valid),
        ("192.0.2.82:5060", Reason::BlockedPrefix),
        ("192.0.2.81:5060", Reason::Valid),
        ("192.0.2.100:5060", Reason::BlockedHost),
        ("192.0.3.1:5060", Reason::Valid),
        ("[2001:db8:1::9]:5060", Reason::Valid),
        ("[2001:db9:1::9]:5060", Reason::BlockedPrefix),
        ("[2001:db8:7::9]:5060", Reason::BlockedPrefix),
    ] {
        assert_eq!(datagram(&mut program, from)?.reason, reason, "{from}");
    }
    Ok(())
}

#[test]
fn a_rule_that_has_ended_says_nothing() -> Result<()> {
    let mut program = Program::shared()?;
    let ended = |rule: Rule| Rule { expires_ns: 1, ..rule };
    program.rule("192.0.2.0/24", BLOCK)?;
    program.rule("192.0.2.0/25", ended(ALLOW))?;
    program.rule("192.0.2.9", ended(ALLOW))?;
    program.rule("192.0.2.128/25", ALLOW)?;
    program.rule("192.0.2.200", ended(BLOCK))?;
    assert_eq!(datagram(&mut program, "192.0.2.9:5060")?.reason, Reason::BlockedPrefix);
    assert_eq!(datagram(&mut program, "192.0.2.200:5060")?.reason, Reason::Valid);
    Ok(())
}

#[test]
fn a_monitored_block_counts_and_the_packet_goes_on_to_the_checks() -> Result<()> {
    let mut program = Program::shared()?;
    program.rule("192.0.2.7", MONITORED)?;
    program.rule("192.0.2.0/24", BLOCK)?;
    let good = Peer::new("192.0.2.7:5060", "198.51.100.1:5060");
    assert_eq!(program.run_uncounted(&good.udp(OPTIONS))?.0, XDP_PASS);
    assert_ne!(program.run_uncounted(&good.udp(b"no sense\r\n"))?.0, XDP_PASS);
    assert_eq!(program.count_let_pass(Reason::BlockedHost)?, 2);
    assert_eq!(program.count(Reason::BlockedHost)?, 0);
    assert_eq!(program.count(Reason::BlockedPrefix)?, 0, "the host's own rule decides");
    assert_eq!(program.count(Reason::Valid)?, 1);
    assert_eq!(program.count(Reason::BadStartLine)?, 1);
    Ok(())
}

#[test]
fn an_entry_that_names_a_trunk_alone_blocks_nothing() -> Result<()> {
    let mut program = Program::shared()?;
    program.rule("192.0.2.0/28", Rule { trunk: 3, ..Rule::zeroed() })?;
    program.rule("192.0.2.0/24", BLOCK)?;
    assert_eq!(datagram(&mut program, "192.0.2.9:5060")?.reason, Reason::BlockedPrefix);
    program.rule("192.0.2.0/24", ALLOW)?;
    assert_eq!(datagram(&mut program, "192.0.2.9:5060")?.reason, Reason::Valid);
    Ok(())
}

/// The trunk that has index 3, at 192.0.2.0/28.
fn with_trunk(trunk: Trunk) -> Result<Shared> {
    let mut program = Program::shared()?;
    program.rule("192.0.2.0/28", Rule { trunk: 3, ..Rule::zeroed() })?;
    program.trunk(3, trunk)?;
    Ok(program)
}

const TRUNK: &str = "192.0.2.9:5060";
const DEVICE: &str = "192.0.2.99:5060";
const PBX: &str = "198.51.100.1:5060";

/// What becomes of the first segment of a connection.
fn segment(program: &mut Program, from: &str, bytes: &[u8]) -> Result<Run> {
    let peer = Peer::new(from, PBX);
    program.connect(&peer, 1000)?;
    program.run(&peer.tcp(ACK, 1000, bytes))
}

#[test]
fn no_tcp_from_trunks_while_devices_keep_it_and_the_reverse() -> Result<()> {
    for (class, refused, kept) in [(CLASS_TRUNKS, TRUNK, DEVICE), (CLASS_DEVICES, DEVICE, TRUNK)] {
        let mut program = with_trunk(Trunk::zeroed())?;
        program.change(|settings| settings.denied[class][TCP] = methods::ALL)?;
        let peer = Peer::new(refused, PBX);
        assert_eq!(program.run(&peer.tcp(SYN, 1, b""))?.reason, Reason::TransportDenied, "{refused}");
        let run = program.run(&peer.tcp(ACK, 1000, OPTIONS))?;
        assert_eq!((run.reason, run.action), (Reason::TransportDenied, XDP_DROP), "{refused}");
        assert_eq!(program.run(&peer.udp(OPTIONS))?.reason, Reason::Valid, "{refused}");
        assert_eq!(segment(&mut program, kept, OPTIONS)?.reason, Reason::Valid, "{kept}");
        // What is no SIP stays untouched.
        let ssh = Peer::new(&refused.replace("5060", "40000"), "198.51.100.1:22");
        assert_eq!(program.run(&ssh.tcp(ACK, 1, b"x"))?.reason, Reason::NotGuarded);
        program.change(|settings| settings.denied[class][TCP] = 0)?;
        assert_eq!(segment(&mut program, refused, OPTIONS)?.reason, Reason::Valid, "{refused}");
    }
    Ok(())
}

#[test]
fn no_register_over_tcp_from_devices() -> Result<()> {
    let mut program = with_trunk(Trunk::zeroed())?;
    program.change(|settings| settings.denied[CLASS_DEVICES][TCP] = methods::REGISTER)?;
    let register = register(1);
    let run = segment(&mut program, DEVICE, &register)?;
    assert_eq!((run.reason, run.action), (Reason::MethodDenied, XDP_PASS), "the connection is reset");
    let flags = run.frame[Peer::new(DEVICE, PBX).tcp_at() + 13];
    assert_eq!((run.outcome, flags), (Outcome::Reset, RST | ACK), "the PBX gets a reset");
    assert_eq!(segment(&mut program, "192.0.2.100:5060", OPTIONS)?.reason, Reason::Valid);
    // A REGISTER behind another message, and one in pieces.
    let both = [OPTIONS, &register].concat();
    assert_eq!(segment(&mut program, "192.0.2.101:5060", &both)?.reason, Reason::MethodDenied);
    assert_eq!(segment(&mut program, "192.0.2.102:5060", b"REGIS")?.reason, Reason::Valid);
    let rest = Peer::new("192.0.2.102:5060", PBX).tcp(ACK, 1005, &register[5..]);
    assert_eq!(program.run(&rest)?.reason, Reason::MethodDenied);
    assert_eq!(program.run(&Peer::new(DEVICE, PBX).udp(&register))?.reason, Reason::Valid, "UDP");
    assert_eq!(segment(&mut program, TRUNK, &register)?.reason, Reason::Valid, "a trunk");
    assert!(program.offenders()?.is_empty(), "what is well-formed accuses nobody");
    Ok(())
}

#[test]
fn a_trunk_has_transports_methods_and_limits_of_its_own() -> Result<()> {
    let limits = Limits { section_bytes: 64, ..Limits::default() };
    let denied = [methods::ALL, 0, methods::REGISTER];
    let mut program = with_trunk(Trunk { denied, limits, own_limits: 1, ..Trunk::zeroed() })?;
    assert_eq!(program.run(&Peer::new(TRUNK, PBX).tcp(SYN, 1, b""))?.reason, Reason::TransportDenied);
    assert_eq!(segment(&mut program, DEVICE, OPTIONS)?.reason, Reason::Valid);
    assert_eq!(program.run(&Peer::new(TRUNK, PBX).udp(OPTIONS))?.reason, Reason::HeadersTooLong);
    assert_eq!(program.run(&Peer::new(DEVICE, PBX).udp(OPTIONS))?.reason, Reason::Valid);
    program.trunk(3, Trunk { denied, ..Trunk::zeroed() })?;
    assert_eq!(program.run(&Peer::new(TRUNK, PBX).udp(OPTIONS))?.reason, Reason::Valid);
    let run = program.run(&Peer::new(TRUNK, PBX).udp(&register(1)))?;
    assert_eq!((run.reason, run.action), (Reason::MethodDenied, XDP_DROP), "a datagram is dropped");
    Ok(())
}

#[test]
fn a_trunk_has_a_mode_of_its_own() -> Result<()> {
    let bad = b"no sense\r\n";
    let mut program = with_trunk(Trunk { mode: TRUNK_MONITORS, ..Trunk::zeroed() })?;
    let run = segment(&mut program, TRUNK, bad)?;
    assert_eq!((run.reason, run.action, run.let_pass), (Reason::BadStartLine, XDP_PASS, true));
    assert!(run.frame.ends_with(bad), "as it came");
    let next = program.run(&Peer::new(TRUNK, PBX).tcp(ACK, 1010, OPTIONS))?;
    assert_eq!(next.reason, Reason::Valid, "its connection goes on");
    assert!(!segment(&mut program, DEVICE, bad)?.let_pass);
    program.change(|settings| settings.mode = MODE_MONITOR)?;
    assert!(program.run(&Peer::new(DEVICE, PBX).udp(bad))?.let_pass);
    program.trunk(3, Trunk { mode: TRUNK_ENFORCES, ..Trunk::zeroed() })?;
    assert!(!program.run(&Peer::new(TRUNK, PBX).udp(bad))?.let_pass);
    assert!(program.run(&Peer::new(DEVICE, PBX).udp(bad))?.let_pass);
    Ok(())
}

#[test]
fn a_trunk_has_counters_of_its_own() -> Result<()> {
    let mut program = with_trunk(Trunk::zeroed())?;
    program.change(|settings| settings.denied[CLASS_TRUNKS][UDP] = methods::REGISTER)?;
    for _ in 0..3 {
        datagram(&mut program, TRUNK)?;
        datagram(&mut program, DEVICE)?;
    }
    program.run(&Peer::new(TRUNK, PBX).udp(&register(1)))?;
    assert_eq!(program.count(Reason::Valid)?, 6);
    assert_eq!(program.count_of_trunk(3, Outcome::Plain, Reason::Valid)?, 3);
    assert_eq!(program.count_of_trunk(3, Outcome::Plain, Reason::MethodDenied)?, 1);
    assert_eq!(program.count_of_trunk(0, Outcome::Plain, Reason::Valid)?, 0);
    Ok(())
}

#[test]
fn one_device_is_blocked_and_its_neighbours_behind_the_address_are_not() -> Result<()> {
    let mut program = Program::shared()?;
    program.device("192.0.2.7:4001", BLOCK)?;
    program.device("[2001:db8::7]:4001", BLOCK)?;
    program.device("192.0.2.8:4001", Rule { expires_ns: 1, ..BLOCK })?;
    program.device("192.0.2.9:4001", MONITORED)?;
    for (from, reason) in [
        ("192.0.2.7:4001", Reason::BlockedDevice),
        ("192.0.2.7:4002", Reason::Valid),
        ("[2001:db8::7]:4001", Reason::BlockedDevice),
        ("[2001:db8::7]:4002", Reason::Valid),
        ("192.0.2.8:4001", Reason::Valid),
    ] {
        assert_eq!(datagram(&mut program, from)?.reason, reason, "{from}");
    }
    let run = program.run(&Peer::new("192.0.2.7:4001", PBX).tcp(SYN, 1, b""))?;
    assert_eq!((run.reason, run.action), (Reason::BlockedDevice, XDP_DROP));
    assert_eq!(program.run_uncounted(&Peer::new("192.0.2.9:4001", PBX).udp(OPTIONS))?.0, XDP_PASS);
    assert_eq!(program.count_let_pass(Reason::BlockedDevice)?, 1);
    Ok(())
}

#[test]
fn without_udp_the_fragments_of_other_services_pass() -> Result<()> {
    let mut program = with_trunk(Trunk::zeroed())?;
    program.change(|settings| settings.denied[CLASS_TRUNKS][UDP] = methods::ALL)?;
    let (dns, sip) = (Peer::new("192.0.2.9:53", "198.51.100.1:33000"), Peer::new(TRUNK, PBX));
    for (peer, reason) in [(dns, Reason::NotGuarded), (sip, Reason::TransportDenied)] {
        let frames = peer.udp_parts(&OPTIONS.repeat(4), 7, &[0..304, 304..8 + 4 * OPTIONS.len()]);
        assert_eq!(program.run(&frames[0])?.reason, reason);
        assert_eq!(
            program.run(&frames[1])?.reason,
            Reason::NotGuarded,
            "it can't complete without the first"
        );
    }
    Ok(())
}
