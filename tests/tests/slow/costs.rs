//! What a payload costs against an honest one of its size, and what many connections cost in memory.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_tests::bench::shares::Shares;
use sipguard_tests::exclusive;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, Peer};
use sipguard_tests::program::Program;

/// Kernel memory of all maps together with room for 200,000 connections.
const LARGE_MAP_BYTES: u64 = 158 << 20;

#[test]
fn two_hundred_thousand_connections_fit_their_memory() -> Result<()> {
    let _machine = exclusive::beside_others();
    let connections = 200_000;
    // An LRU map keeps some entries free on each CPU.
    let mut program = Program::with_flows(connections + connections / 16)?;
    let frame = |number: u32| {
        let mut peer = Peer::new("192.0.2.7:1", "198.51.100.1:5060");
        peer.remote.set_port(1024 + (number % 60_000) as u16);
        peer.remote.set_ip(std::net::Ipv4Addr::from(0xc600_0000 | (number / 60_000)).into());
        peer
    };
    for number in 0..connections {
        let peer = frame(number);
        program.leave(&peer.answer(1000))?;
        program.run_uncounted(&peer.tcp(ACK, 1000, OPTIONS))?;
    }
    assert_eq!(program.count(Reason::Valid)?, u64::from(connections));
    let lost =
        (0..connections).filter(|number| !matches!(program.flow(&frame(*number)), Ok(Some(_)))).count();
    let sum = program.map_bytes()?;
    println!("{connections} connections followed, {lost} evicted, {sum} bytes of map memory");
    assert_eq!(lost, 0, "all are followed at once");
    assert!(sum <= LARGE_MAP_BYTES, "{sum} bytes of map memory");
    Ok(())
}

#[test]
fn no_payload_costs_much_more_than_an_invite_of_its_size() -> Result<()> {
    let _machine = exclusive::alone();
    // What else runs can make a payload look dear, and none look cheap.
    let mut dear = vec![];
    for _ in 0..5 {
        let shares = Shares::measure(25, 2000)?;
        println!("{shares}");
        dear = shares.0.into_iter().filter(|share| share.of_invite > share.most).collect();
        if dear.is_empty() {
            return Ok(());
        }
    }
    panic!("each time too dear: {dear:?}");
}
