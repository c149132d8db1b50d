//! Numbers that matter, measured on the running kernel. Whoever raises one says why in the commit.

mod calls;
mod object;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use sipguard_common::Reason;
use sipguard_common::abi::names;
use sipguard_object::OBJECT;
use sipguard_tests::bench::shares::Shares;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, Peer};
use sipguard_tests::program::Program;

use calls::Calls;

/// Instructions that the verifier looked at; the kernel's limit is 1,000,000.
const VERIFIED_INSTRUCTIONS: u32 = 268_000;
/// Bytes of machine code.
const JITED_BYTES: u32 = 101 << 10;
/// Bytes of the object, debug information and BTF included.
const OBJECT_BYTES: usize = 2_800_000;
/// Bytes of stack that the kernel allows for all functions under way together.
const STACK_BYTES: u32 = 512;
/// What the kernel calls.
const PROGRAMS: [&str; 4] =
    [names::PROGRAM, names::EGRESS_PROGRAM, names::CONNECTION_PROGRAMS[0], names::CONNECTION_PROGRAMS[1]];
/// Kernel memory of all maps together when nothing is blocked and no connection is followed.
const MAP_BYTES: u64 = 90 << 20;
/// The same with room for 200,000 connections.
const LARGE_MAP_BYTES: u64 = 158 << 20;

#[test]
fn the_program_stays_small() -> Result<()> {
    let info = Program::shared()?.info()?;
    let verified =
        info.verified_instruction_count().context("the kernel tells how many instructions it verified")?;
    println!(
        "verified instructions: {verified}, machine code: {} bytes, object: {} bytes",
        info.size_jitted(),
        OBJECT.len()
    );
    assert!(verified <= VERIFIED_INSTRUCTIONS, "{verified} verified instructions");
    assert!(info.size_jitted() <= JITED_BYTES, "{} bytes of machine code", info.size_jitted());
    assert!(OBJECT.len() <= OBJECT_BYTES, "the object has {} bytes", OBJECT.len());
    Ok(())
}

/// Older kernels round each frame up to 32 bytes.
#[test]
fn the_stack_suffices_on_older_kernels_too() -> Result<()> {
    let calls = Calls::read(OBJECT)?;
    for program in PROGRAMS {
        let (sum, chain) = calls.deepest(program)?;
        println!("{program}: {sum} bytes at the most, by {}", chain.join(" > "));
        assert!(chain.len() > 1, "{program} calls nothing: the calls are not read");
        assert!(sum <= STACK_BYTES, "{} take {sum} bytes of stack", chain.join(", "));
    }
    Ok(())
}

#[test]
fn maps_fit_their_memory() -> Result<()> {
    let sum = map_bytes(&mut Program::new()?)?;
    assert!(sum <= MAP_BYTES, "{sum} bytes of map memory");
    Ok(())
}

#[test]
fn two_hundred_thousand_connections_fit_their_memory() -> Result<()> {
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
    let sum = map_bytes(&mut program)?;
    println!("{connections} connections followed, {lost} evicted, {sum} bytes of map memory");
    assert_eq!(lost, 0, "all are followed at once");
    assert!(sum <= LARGE_MAP_BYTES, "{sum} bytes of map memory");
    Ok(())
}

/// Memory of all maps as the kernel accounts for it.
fn map_bytes(program: &mut Program) -> Result<u64> {
    let mut all = BTreeMap::new();
    for (name, fd) in program.maps() {
        let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let bytes = facts
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))
            .context("the kernel tells a map's memory")?;
        all.insert(name, bytes.trim().parse::<u64>()?);
    }
    println!("map memory: {all:?}");
    assert!(all.len() >= names::MAPS.len(), "every map was looked at");
    Ok(all.values().sum())
}

#[test]
fn no_payload_costs_much_more_than_an_invite_of_its_size() -> Result<()> {
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
