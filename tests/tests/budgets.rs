//! Numbers that matter, measured on the running kernel. Whoever raises one says why in the commit.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use sipguard::load::OBJECT;
use sipguard_common::Reason;
use sipguard_tests::bench::shares::Shares;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, Peer};
use sipguard_tests::program::Program;

/// Instructions that the verifier looked at; the kernel's limit is 1,000,000.
const VERIFIED_INSTRUCTIONS: u32 = 230_000;
/// Bytes of machine code.
const JITED_BYTES: u32 = 80 << 10;
/// Bytes of the object, debug information and BTF included.
const OBJECT_BYTES: usize = 1_870_000;
/// Bytes of stack that the kernel allows for all functions under way together.
const STACK_BYTES: u32 = 512;
/// Functions that are under way together, from the outermost in. Older kernels round each frame up to 32 bytes.
const CHAINS: &[&[&str]] = &[
    &["sipguard", "headers", "stopped"],
    &["sipguard", "headers", "bytes_beyond"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "unusual", "window_odd"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "unusual", "window_not_of_tokens"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "cseq_padded", "window_digits"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "via_overflows", "window_equal"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "keep", "too_long", "window_odd"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "keep", "far_name", "window_odd"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "unusual", "far_name", "window_odd"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "is_quoted", "window_quoted_pairs"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "skip_line_ends", "window_line_ends"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "load_next", "put_back"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "screen_line", "uris", "window_equal"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "screen_line", "screen_uri", "window_below"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "screen_line", "screen_uri", "put"],
    &["sipguard", "flow_judge", "sip_validate", "turn", "screen_line", "screen_agent", "put"],
    &["sipguard", "flow_judge", "sip_validate", "put_back"],
    &["sipguard", "flow_judge", "compare", "sip_hash", "hash_block", "load_next", "put_back"],
    &["sipguard", "flow_judge", "open", "message"],
    &["sipguard", "flow_judge", "checksum_wrong", "piece"],
    &["sipguard", "sip_stun", "attribute"],
    &["sipguard", "fragment_judge", "sip_validate", "turn", "keep", "too_long", "window_odd"],
    &["sipguard", "fragment_judge", "sip_validate", "turn", "unusual", "far_name", "window_odd"],
    &["sipguard", "fragment_judge", "sip_validate", "turn", "screen_line", "screen_uri", "put"],
    &["sipguard", "fragment_judge", "sip_stun", "attribute"],
    &["sipguard", "fragment_judge", "note", "remove_stale"],
    &["sipguard", "fragment_judge", "note", "hash"],
    &["sipguard", "fragment_judge", "came_early", "hash"],
    &["sipguard", "verdict_act", "strike"],
    &["sipguard", "verdict_act", "tap_stopped", "store_record"],
    &["sipguard", "verdict_act", "tap_event", "store_record"],
    &["sipguard", "verdict_act", "through"],
    &["sipguard", "tap_passed", "store_record"],
];
/// Kernel memory of all maps together when nothing is blocked and no connection is followed.
const MAP_BYTES: u64 = 65 << 20;
/// The same with room for 200,000 connections.
const LARGE_MAP_BYTES: u64 = 116 << 20;

#[test]
fn the_program_stays_small() -> Result<()> {
    let info = Program::new()?.info()?;
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

#[test]
fn the_stack_suffices_on_older_kernels_too() -> Result<()> {
    let object = aya_obj::Object::parse(OBJECT)?;
    let mut frames = BTreeMap::new();
    for function in object.functions.values() {
        let mut lowest = 0i16;
        let mut copies = [false; 16];
        for instruction in &function.instructions {
            let (source, target) = (instruction.src_reg(), usize::from(instruction.dst_reg()));
            let touches = match instruction.code & 7 {
                1 => source == 10,     // loads
                2 | 3 => target == 10, // stores
                _ => false,
            };
            if touches {
                lowest = lowest.min(instruction.off);
            }
            if instruction.code == 0x07 && copies[target] {
                lowest = lowest.min(instruction.imm as i16);
            }
            copies[target] = instruction.code == 0xbf && source == 10;
        }
        frames.insert(function.name.clone(), u32::from(lowest.unsigned_abs()));
    }
    // Rust's names are mangled: `…4line5judge…`. The length before it tells `load` from `preload`.
    let frame = |name: &str| {
        let mangled = format!("{}{name}", name.len());
        let found = frames.iter().find(|(symbol, _)| *symbol == name || symbol.contains(&mangled));
        found
            .map(|(_, bytes)| bytes.next_multiple_of(32).max(32))
            .with_context(|| format!("no function {name}"))
    };
    for chain in CHAINS {
        let sum = chain.iter().map(|name| frame(name)).sum::<Result<u32>>()?;
        println!("{}: {sum} bytes", chain.join(" > "));
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
    assert!(all.len() >= sipguard_common::abi::names::MAPS.len(), "every map was looked at");
    Ok(all.values().sum())
}

#[test]
fn no_payload_costs_much_more_than_an_invite_of_its_size() -> Result<()> {
    let shares = Shares::measure(25, 2000)?;
    println!("{shares}");
    for share in &shares.0 {
        assert!(share.of_invite <= share.most, "{}: {:.1} times an INVITE", share.name, share.of_invite);
    }
    Ok(())
}
