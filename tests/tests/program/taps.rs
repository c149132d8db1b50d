//! What the kernel side shows of packets, through the loaded program: events, captures, the last packets of each device.

use std::net::SocketAddr;

use aya::maps::Array;
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{
    CAPTURE_DROPPED, CAPTURE_PASSED, EVENT_BURST, EVENT_ENTRIES, EVENT_LIMITER_ENTRIES, EventLimiter,
    MODE_MONITOR, ObserveSettings, Outcome, PERMANENT, PacketRecord, RECORD_BYTES, Rule, Trunk, names,
};
use sipguard_core::address::mapped;
use sipguard_core::clock::Clock;
use sipguard_core::maps::{self, Plain};
use sipguard_observe::tap::{Names, Start, TapPacket, TapRing, Which, lost, recorded};
use sipguard_tests::message::{OPTIONS, faults, good_call, invite, large, register};
use sipguard_tests::packet::{ACK, PSH, Peer};
use sipguard_tests::program::{Program, device};

use anyhow::{Result, ensure};

const PBX: &str = "198.51.100.1:5060";
/// A method with a control byte in it.
const BAD: &[u8] = b"OPT\x01ONS sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n";

fn ring(program: &Program, which: Which, start: Start) -> Result<TapRing> {
    TapRing::open(program.loaded(), which, start)
}

fn read(ring: &mut TapRing) -> Result<Vec<PacketRecord>> {
    let mut records = Vec::new();
    ring.read(|record| {
        records.push(*record);
        Ok(())
    })?;
    Ok(records)
}

fn all(program: &Program, which: Which) -> Result<Vec<PacketRecord>> {
    read(&mut ring(program, which, Start::Oldest)?)
}

fn bytes(record: &PacketRecord) -> &[u8] {
    &record.bytes[..record.captured as usize]
}

#[test]
fn an_event_holds_the_packet_as_it_came() -> Result<()> {
    let mut program = Program::shared()?;
    let peer = device();
    program.connect(&peer, 1000)?;
    let frame = peer.tcp(ACK | PSH, 1000, BAD);
    let run = program.run(&frame)?;
    ensure!(run.frame != frame, "it is rewritten to a reset");
    let events = all(&program, Which::Events)?;
    let [event] = &events[..] else { panic!("{} events", events.len()) };
    assert_eq!(bytes(event), frame);
    assert_eq!(Reason::from_number(event.reason), Some(run.reason));
    assert_eq!(
        (event.number, event.count, event.frame_len, Outcome::from_number(event.outcome)),
        (1, 1, frame.len() as u32, Outcome::Reset)
    );
    Ok(())
}

#[test]
fn a_source_and_reason_has_one_event_and_a_count() -> Result<()> {
    let mut program = Program::shared()?;
    program.block("203.0.113.7", PERMANENT)?;
    for port in 1..=50 {
        program.run(&Peer::new(&format!("203.0.113.7:{port}"), PBX).udp(OPTIONS))?;
    }
    assert_eq!(all(&program, Which::Events)?.len(), 1, "who is blocked is so by address");
    for port in [5060, 5060, 5061, 5060, 5061] {
        program.run(&Peer::new(&format!("192.0.2.7:{port}"), PBX).udp(BAD))?;
    }
    let events = all(&program, Which::Events)?;
    assert_eq!(events.len(), 3, "two devices behind one address are two");
    assert!(events.iter().all(|event| event.count == 1));
    // Ten seconds later, as far as the gates know.
    let waiting = pending(&program)?;
    assert_eq!(waiting, 49 + 3);
    expire(&program)?;
    program.run(&Peer::new("203.0.113.7:9", PBX).udp(OPTIONS))?;
    let events = all(&program, Which::Events)?;
    assert_eq!((events.len(), events[3].count), (4, 50));
    Ok(())
}

/// Packets that wait for the next event of their source.
fn pending(program: &Program) -> Result<u64> {
    let map: Array<_, Plain<EventLimiter>> = maps::open(program.loaded(), names::EVENT_GATES)?;
    (0..EVENT_LIMITER_ENTRIES).map(|index| Ok(map.get(&index, 0)?.0.count)).sum()
}

/// Makes every gate as old as if its time had passed.
fn expire(program: &Program) -> Result<()> {
    let mut map: Array<_, Plain<EventLimiter>> = maps::open(program.loaded(), names::EVENT_GATES)?;
    for index in 0..EVENT_LIMITER_ENTRIES {
        let Plain(gate) = map.get(&index, 0)?;
        map.set(index, Plain(EventLimiter { next_ns: 0, ..gate }), 0)?;
    }
    Ok(())
}

#[test]
fn a_flood_costs_a_counter_and_nothing_is_lost_from_the_sum() -> Result<()> {
    const FLOOD: u32 = 30_000;
    let mut program = Program::shared()?;
    let mut slow = ring(&program, Which::Events, Start::Now)?;
    for source in 0..FLOOD {
        let from = format!("10.{}.{}.{}:5060", source >> 16, source >> 8 & 255, source & 255);
        let frame = Peer::new(&from, PBX).udp(BAD);
        for _ in 0..1 + source % 3 {
            program.run_uncounted(&frame)?;
        }
    }
    let sent: u64 = (0..FLOOD).map(|source| u64::from(1 + source % 3)).sum();
    assert_eq!(program.counters()?.iter().map(|counter| counter.packets).sum::<u64>(), sent);
    let events = read(&mut slow)?;
    let made = slow.next();
    println!("{sent} packets, {made} events, {} lost", lost(program.loaded())?);
    assert!(made >= EVENT_BURST && made < sent / 4, "{made} events of {sent} packets");
    assert_eq!(events.len() as u64 + slow.missed(), made);
    // All events were made by this thread: none was read, so their counts are known only while the ring holds them all.
    if made <= u64::from(EVENT_ENTRIES) {
        let told: u64 = events.iter().map(|event| event.count).sum();
        assert_eq!(told + lost(program.loaded())? + pending(&program)?, sent);
    }
    Ok(())
}

#[test]
fn who_reads_too_late_knows_how_many_were_missed() -> Result<()> {
    let mut program = Program::shared()?;
    program.tap(ObserveSettings {
        capture_until_ns: u64::MAX,
        verdicts: CAPTURE_PASSED,
        ..ObserveSettings::zeroed()
    })?;
    let (mut first, mut second) =
        (ring(&program, Which::Captured, Start::Now)?, ring(&program, Which::Captured, Start::Now)?);
    let frame = device().udp(OPTIONS);
    for _ in 0..1000 {
        program.run_uncounted(&frame)?;
    }
    assert_eq!((read(&mut first)?.len(), first.missed()), (1000, 0));
    for _ in 0..1500 {
        program.run_uncounted(&frame)?;
    }
    assert_eq!((read(&mut first)?.len(), first.missed()), (1024, 476));
    let records = read(&mut second)?;
    assert_eq!((records.len(), second.missed()), (1024, 1476), "readers do not take from each other");
    assert!(records.iter().map(|record| record.number).eq(1477..=2500));
    assert_eq!(read(&mut ring(&program, Which::Captured, Start::At(2498))?)?.len(), 2);
    assert_eq!(read(&mut ring(&program, Which::Captured, Start::At(9999))?)?.len(), 1024, "of another guard");
    Ok(())
}

#[test]
fn what_tcp_does_is_no_event() -> Result<()> {
    let mut program = Program::shared()?;
    let peer = device();
    program.connect(&peer, 1000)?;
    assert_eq!(program.run(&peer.tcp(ACK, 1400, OPTIONS))?.reason, Reason::SequenceGap);
    assert_eq!(program.run(&peer.tcp(ACK, 1000, OPTIONS))?.reason, Reason::Valid);
    assert_eq!(program.run(&peer.tcp(ACK, 1000, OPTIONS))?.reason, Reason::Retransmission);
    assert!(all(&program, Which::Events)?.is_empty());
    Ok(())
}

#[test]
fn monitor_mode_tells_what_it_let_pass() -> Result<()> {
    let mut program = Program::shared()?;
    program.change(|settings| settings.mode = MODE_MONITOR)?;
    program.run(&device().udp(BAD))?;
    let events = all(&program, Which::Events)?;
    assert_eq!((events.len(), Outcome::from_number(events[0].outcome)), (1, Outcome::WouldDrop));
    Ok(())
}

#[test]
fn headers_that_cannot_be_read_have_events_too() -> Result<()> {
    let mut program = Program::shared()?;
    let mut frame = device().udp(OPTIONS);
    // A header length of 16 bytes.
    frame[14] = 0x44;
    program.run(&frame)?;
    program.run(&frame)?;
    let events = all(&program, Which::Events)?;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].reason, Reason::BadIpHeader.number());
    Ok(())
}

#[test]
fn a_capture_takes_what_it_asked_for() -> Result<()> {
    let mut program = Program::shared()?;
    program.block("203.0.113.7", PERMANENT)?;
    let frames: Vec<Vec<u8>> = ["192.0.2.7:5060", "192.0.2.7:5062", "192.0.3.7:5060", "203.0.113.7:5060"]
        .iter()
        .flat_map(|from| [Peer::new(from, PBX).udp(OPTIONS), Peer::new(from, PBX).udp(BAD)])
        .chain([Peer::new("[2001:db8::7]:5060", "[2001:db8:1::1]:5060").udp(OPTIONS)])
        .collect();
    let any = ObserveSettings {
        capture_until_ns: u64::MAX,
        verdicts: CAPTURE_DROPPED | CAPTURE_PASSED,
        ..ObserveSettings::zeroed()
    };
    let of = |source: &str, bits: u32, taps: ObserveSettings| {
        let mut mask = [0; 16];
        mask[..(96 + bits) as usize / 8].fill(0xff);
        ObserveSettings { source: mapped(source.parse().unwrap()), mask, ..taps }
    };
    let port = |port: u16, taps: ObserveSettings| ObserveSettings { port: port.to_be_bytes(), ..taps };
    let verdict = |verdicts: u8, taps: ObserveSettings| ObserveSettings { verdicts, ..taps };
    for (taps, expected) in [
        (any, &[0, 1, 2, 3, 4, 5, 6, 7, 8][..]),
        (verdict(CAPTURE_PASSED, any), &[0, 2, 4, 8]),
        (verdict(CAPTURE_DROPPED, any), &[1, 3, 5, 6, 7]),
        (of("192.0.2.0", 24, any), &[0, 1, 2, 3]),
        (of("192.0.0.0", 16, any), &[0, 1, 2, 3, 4, 5]),
        (of("192.0.3.7", 32, any), &[4, 5]),
        (port(5062, of("192.0.2.7", 32, any)), &[2, 3]),
        (of("203.0.113.7", 32, verdict(CAPTURE_DROPPED, any)), &[6, 7]),
        (ObserveSettings { capture_until_ns: 1, ..any }, &[]),
        (ObserveSettings { capture_until_ns: 0, ..any }, &[]),
    ] {
        program.tap(taps)?;
        let mut ring = ring(&program, Which::Captured, Start::Now)?;
        for frame in &frames {
            program.run(frame)?;
        }
        let records = read(&mut ring)?;
        let found: Vec<_> =
            records.iter().map(|record| frames.iter().position(|frame| frame == bytes(record))).collect();
        let expected: Vec<_> = expected.iter().copied().map(Some).collect();
        assert_eq!(found, expected, "{taps:?}");
        if taps.capture_until_ns == 1 {
            let map: Array<_, Plain<ObserveSettings>> = maps::open(program.loaded(), names::TAPS)?;
            assert_eq!(
                map.get(&0, 0)?.0.capture_until_ns,
                0,
                "a capture that has ended is asked for no more"
            );
        }
    }
    Ok(())
}

#[test]
fn long_frames_are_cut_and_say_how_long_they_were() -> Result<()> {
    let mut program = Program::shared()?;
    program.tap(ObserveSettings {
        capture_until_ns: u64::MAX,
        verdicts: CAPTURE_PASSED,
        ..ObserveSettings::zeroed()
    })?;
    for len in [1022, 1023, 1024, 1025, 1535, 1536, 1537, 3000] {
        // What stands behind the body of a datagram is nobody's.
        let mut message = OPTIONS.to_vec();
        message.resize(len - device().udp(b"").len(), 0);
        let frame = device().udp(&message);
        let mut ring = ring(&program, Which::Captured, Start::Now)?;
        program.run_uncounted(&frame)?;
        let records = read(&mut ring)?;
        assert_eq!(records.len(), 1, "{len} bytes");
        assert_eq!(records[0].frame_len as usize, frame.len());
        assert_eq!(bytes(&records[0]), &frame[..frame.len().min(RECORD_BYTES)]);
    }
    Ok(())
}

#[test]
fn the_last_packets_of_each_device_are_kept() -> Result<()> {
    let mut program = Program::shared()?;
    let peer = Peer::new("192.0.2.9:40000", PBX);
    program.run(&device().udp(OPTIONS))?;
    assert!(recorded(program.loaded())?.is_empty(), "nobody asked");
    program.tap(ObserveSettings { records: 1, ..ObserveSettings::zeroed() })?;
    program.connect(&peer, 1000)?;
    let mut seq = 1000;
    let mut sent = Vec::new();
    for number in 0..7 {
        let message = register(number);
        sent.push(peer.tcp(ACK | PSH, seq, &message));
        program.run(&sent[number])?;
        seq += message.len() as u32;
        // Somebody else is much louder.
        for _ in 0..20 {
            program.run(&device().udp(OPTIONS))?;
        }
        program.run(&Peer::new("192.0.2.44:5060", PBX).udp(BAD))?;
    }
    program.connect(&Peer::new("192.0.2.10:40000", PBX), 1000)?;
    let records = recorded(program.loaded())?;
    assert_eq!(records.len(), 8, "four each, and none of what was dropped or had no payload");
    assert!(records.is_sorted_by_key(|record| record.time_ns));
    let of_peer: Vec<_> =
        records.iter().map(bytes).filter(|frame| sent.iter().any(|one| one == frame)).collect();
    assert_eq!(of_peer, sent[3..].iter().map(Vec::as_slice).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_replay_leaves_no_trace() -> Result<()> {
    use aya::programs::{TestRun as _, TestRunOptions};
    let mut loaded = sipguard_core::load::Loaded::for_replay(sipguard_object::OBJECT, 1024)?;
    let frame = device().udp(b"");
    let mut cut = frame.clone();
    cut[14] = 0x44;
    let mut options = TestRunOptions::new();
    options.data_in = Some(&cut);
    loaded.program()?.test_run(options)?;
    assert!(read(&mut TapRing::open(&loaded, Which::Events, Start::Oldest)?)?.is_empty());
    Ok(())
}

#[test]
fn whoever_watches_changes_no_verdict() -> Result<()> {
    let watched = ObserveSettings {
        capture_until_ns: u64::MAX,
        verdicts: CAPTURE_DROPPED | CAPTURE_PASSED,
        records: 1,
        ..ObserveSettings::zeroed()
    };
    let legal = [OPTIONS.to_vec(), register(1), good_call(), invite(), large(), b"\r\n\r\n".to_vec()];
    let messages: Vec<Vec<u8>> =
        legal.into_iter().chain(faults().into_iter().map(|fault| fault.bytes)).collect();
    // Those that a datagram takes.
    for message in messages.iter().filter(|message| message.len() < 60_000) {
        let mut outcomes = Vec::new();
        for taps in [ObserveSettings::zeroed(), watched] {
            let mut program = Program::shared()?;
            program.tap(taps)?;
            let peer = device();
            program.connect(&peer, 1000)?;
            let (first, second) = message.split_at(message.len() / 2);
            let next = 1000 + first.len() as u32;
            let frames =
                [peer.tcp(ACK | PSH, 1000, first), peer.tcp(ACK | PSH, next, second), peer.udp(message)];
            outcomes.push(frames.iter().map(|frame| program.run(frame)).collect::<Result<Vec<_>>>()?);
        }
        assert_eq!(outcomes[0], outcomes[1], "{}", message.escape_ascii());
    }
    Ok(())
}

#[test]
fn a_client_behind_a_balancer_is_named() -> Result<()> {
    let mut program = Program::shared()?;
    program.rule("192.0.2.5", Rule { trunk: 1, ..Rule::zeroed() })?;
    program.trunk(1, Trunk { proxy_protocol: 1, ..Trunk::zeroed() })?;
    let any = ObserveSettings {
        capture_until_ns: u64::MAX,
        verdicts: CAPTURE_DROPPED | CAPTURE_PASSED,
        mask: [0xff; 16],
        records: 1,
        ..ObserveSettings::zeroed()
    };
    let clock = Clock::now()?;
    let peer = Peer::new("192.0.2.5:30000", PBX);
    let header = b"PROXY TCP4 203.0.113.9 203.0.113.1 40123 5060\r\n";
    for (of, port, expected) in [
        ("203.0.113.9", 0u16, 3),
        ("203.0.113.9", 40_123, 3),
        ("203.0.113.9", 30_000, 0),
        ("192.0.2.5", 0, 5),
        ("192.0.2.5", 30_000, 5),
        ("203.0.113.1", 0, 0),
    ] {
        let mut captured = ring(&program, Which::Captured, Start::Now)?;
        program.tap(ObserveSettings { source: mapped(of.parse()?), port: port.to_be_bytes(), ..any })?;
        program.connect(&peer, 1000)?;
        let mut at = 1000;
        for bytes in [&header[..], OPTIONS, BAD] {
            program.run(&peer.tcp(ACK | PSH, at, bytes))?;
            at += bytes.len() as u32;
        }
        assert_eq!(read(&mut captured)?.len(), expected, "of {of} port {port}");
    }
    let named = |record: &PacketRecord| TapPacket::read(record, &Names::default(), &clock).unwrap().source();
    let client: Option<SocketAddr> = Some("203.0.113.9:40123".parse()?);
    let events = all(&program, Which::Events)?;
    assert_eq!((events.len(), named(&events[0])), (1, client));
    // The segment in which the header ends is the client's too.
    let mut last: Vec<_> =
        recorded(program.loaded())?.iter().map(|record| (named(record), bytes(record).len())).collect();
    last.sort_unstable();
    last.dedup();
    let frames = [&header[..], OPTIONS].map(|payload| peer.tcp(ACK | PSH, 1000, payload).len());
    assert_eq!(last, frames.map(|len| (client, len)));
    Ok(())
}
