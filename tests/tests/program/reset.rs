//! A program that many cases share is to each as good as one of its own.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::{PERMANENT, names};
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, PSH};
use sipguard_tests::program::{Program, device};

/// Maps that a program has something in before it has seen a frame: settings and guarded ports.
const BEGIN: [&str; 2] = [names::PORTS, names::SETTINGS];

#[test]
fn nothing_is_left_in_any_map() -> Result<()> {
    let mut program = Program::new()?;
    assert_eq!(program.used_maps()?, BEGIN);
    program.scribble()?;
    let used = program.used_maps()?;
    let untouched: Vec<_> =
        names::MAPS.iter().filter(|name| !used.iter().any(|used| used == *name)).collect();
    assert!(untouched.is_empty(), "{untouched:?} are not looked at");
    program.reset()?;
    assert_eq!(program.used_maps()?, BEGIN);
    Ok(())
}

#[test]
fn what_a_case_did_is_unknown_to_the_next() -> Result<()> {
    let peer = device();
    let bad = peer.tcp(ACK | PSH, 1000, b"no sense\r\n");
    let mut program = Program::new()?;
    let fresh = program.run(&bad)?;
    assert_eq!(fresh.reason, Reason::NoConnection);
    program.connect(&peer, 1000)?;
    assert_eq!(program.run(&peer.tcp(ACK, 1000, OPTIONS))?.reason, Reason::Valid);
    program.block("192.0.2.7", PERMANENT)?;
    program.ban("192.0.2.7:0", PERMANENT)?;
    assert_eq!(program.run(&bad)?.reason, Reason::BlockedHost);
    program.reset()?;
    assert_eq!(program.run(&bad)?, fresh);
    assert_eq!(program.count(Reason::Valid)?, 0);
    Ok(())
}
