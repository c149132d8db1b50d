//! Which rule decides, through the loaded program.

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{PERMANENT, Rule, rule_flags};
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::Peer;
use sipguard_tests::program::{Program, Run, XDP_PASS};

const ALLOW: Rule = flagged(rule_flags::ALLOW);
const BLOCK: Rule = flagged(rule_flags::BLOCK);
const MONITORED: Rule = flagged(rule_flags::BLOCK | rule_flags::MONITOR);

const fn flagged(flags: u16) -> Rule {
    Rule { expires_ns: PERMANENT, packets: 0, bytes: 0, bits: 0, flags, trunk: 0, pad: 0 }
}

/// A datagram of a good message from an address.
fn datagram(program: &mut Program, from: &str) -> Result<Run> {
    let to = if from.starts_with('[') { "[2001:db8:1::1]:5060" } else { "198.51.100.1:5060" };
    program.run(&Peer::new(from, to).udp(OPTIONS))
}

#[test]
fn the_longest_prefix_decides_whatever_it_says() -> Result<()> {
    let mut program = Program::new()?;
    program.rule("192.0.2.0/24", BLOCK)?;
    program.rule("192.0.2.64/26", ALLOW)?;
    program.rule("192.0.2.80/28", BLOCK)?;
    program.rule("192.0.2.81", ALLOW)?;
    program.rule("192.0.2.100", BLOCK)?;
    program.rule("2001:db8::/32", ALLOW)?;
    program.rule("2001:db8:7::/48", BLOCK)?;
    for (from, reason) in [
        ("192.0.2.1:5060", Reason::BlockedPrefix),
        ("192.0.2.65:5060", Reason::Valid),
        ("192.0.2.82:5060", Reason::BlockedPrefix),
        ("192.0.2.81:5060", Reason::Valid),
        ("192.0.2.100:5060", Reason::BlockedHost),
        ("192.0.3.1:5060", Reason::Valid),
        ("[2001:db8:1::9]:5060", Reason::Valid),
        ("[2001:db8:7::9]:5060", Reason::BlockedPrefix),
    ] {
        assert_eq!(datagram(&mut program, from)?.reason, reason, "{from}");
    }
    Ok(())
}

#[test]
fn a_rule_that_has_ended_says_nothing() -> Result<()> {
    let mut program = Program::new()?;
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
    let mut program = Program::new()?;
    program.rule("192.0.2.7", MONITORED)?;
    program.rule("192.0.2.0/24", BLOCK)?;
    let good = Peer::new("192.0.2.7:5060", "198.51.100.1:5060");
    assert_eq!(program.run_uncounted(&good.udp(OPTIONS))?.0, XDP_PASS);
    assert_ne!(program.run_uncounted(&good.udp(b"nonsense\r\n"))?.0, XDP_PASS);
    assert_eq!(program.count_let_pass(Reason::BlockedHost)?, 2);
    assert_eq!(program.count(Reason::BlockedHost)?, 0);
    assert_eq!(program.count(Reason::BlockedPrefix)?, 0, "the host's own rule decides");
    assert_eq!(program.count(Reason::Valid)?, 1);
    assert_eq!(program.count(Reason::BadStartLine)?, 1);
    Ok(())
}

#[test]
fn an_entry_that_names_a_trunk_alone_blocks_nothing() -> Result<()> {
    let mut program = Program::new()?;
    program.rule("192.0.2.0/28", Rule { trunk: 3, ..Rule::zeroed() })?;
    program.rule("192.0.2.0/24", BLOCK)?;
    assert_eq!(datagram(&mut program, "192.0.2.9:5060")?.reason, Reason::BlockedPrefix);
    program.rule("192.0.2.0/24", ALLOW)?;
    assert_eq!(datagram(&mut program, "192.0.2.9:5060")?.reason, Reason::Valid);
    Ok(())
}
