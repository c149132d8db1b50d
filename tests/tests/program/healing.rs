//! A segment that was damaged on its way, and its copy: what may stand for what passed, and what may not.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::{INVITES, Rate};
use sipguard_tests::message::{OPTIONS, bent, call, good_call};
use sipguard_tests::packet::{ACK, PSH, Peer};
use sipguard_tests::program::{Program, XDP_DROP, XDP_PASS, device};

const FIRST: u32 = 1000;

/// What the guard says to a segment at an offset of the stream.
fn at(program: &mut Program, peer: &Peer, offset: usize, bytes: &[u8]) -> Result<Reason> {
    Ok(program.run(&peer.tcp(ACK | PSH, FIRST + offset as u32, bytes))?.reason)
}

/// One bit of a frame's payload is wrong, and so is its checksum.
fn damaged(peer: &Peer, offset: usize, bytes: &[u8], byte: usize) -> Vec<u8> {
    let mut frame = peer.tcp(ACK | PSH, FIRST + offset as u32, bytes);
    let at = frame.len() - bytes.len() + byte;
    frame[at] ^= 1;
    frame
}

fn place_of(text: &str) -> usize {
    String::from_utf8_lossy(OPTIONS).find(text).expect("it is there")
}

/// The copy of a message that frames like the damaged one, and of one of several behind each other, alone and joined.
#[test]
fn a_copy_that_leads_to_the_same_place() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.connect(&peer, FIRST)?;
    let size = OPTIONS.len();
    for number in 0..4 {
        let frame = damaged(&peer, number * size, OPTIONS, place_of("tag=1") + 4);
        assert_eq!(
            program.run(&frame)?.reason,
            Reason::Valid,
            "well-formed, and nobody looks at its checksum"
        );
    }
    for number in [2, 0, 1, 2, 3] {
        assert_eq!(at(&mut program, &peer, number * size, OPTIONS)?, Reason::Retransmission, "{number}");
    }
    // Two in one, of which the first is as the second time and the second as a third sender would have it.
    let third = bent(OPTIONS, "tag=1", "tag=3");
    let joined = [OPTIONS, &third].concat();
    assert_eq!(at(&mut program, &peer, 0, &joined)?, Reason::Retransmission);
    assert_eq!(at(&mut program, &peer, 4 * size, OPTIONS)?, Reason::Valid, "the stream goes on");
    Ok(())
}

/// Whatever the CPU judged last, a copy is compared by its own bytes.
#[test]
fn a_copy_behind_packets_of_others() -> Result<()> {
    let peer = device();
    let other = Peer::new("192.0.2.99:5060", "198.51.100.1:5060");
    let (half, cut) = (&OPTIONS[..80], &OPTIONS[..130]);
    let before = [
        other.udp(OPTIONS),
        other.udp(cut),
        other.udp(b"\r\n\r\n"),
        other.tcp(ACK | PSH, FIRST, OPTIONS),
        other.tcp(ACK | PSH, FIRST, cut),
    ];
    for (number, frame) in before.iter().enumerate() {
        let mut program = Program::shared()?;
        program.connect(&other, FIRST)?;
        program.connect(&peer, FIRST)?;
        assert_eq!(at(&mut program, &peer, 0, OPTIONS)?, Reason::Valid);
        assert_eq!(at(&mut program, &peer, OPTIONS.len(), half)?, Reason::Valid);
        for (offset, bytes) in [(0, OPTIONS), (OPTIONS.len(), half)] {
            program.run(frame)?;
            let found = at(&mut program, &peer, offset, bytes)?;
            assert_eq!(found, Reason::Retransmission, "behind packet {number}, {} bytes", bytes.len());
        }
        program.run(frame)?;
        assert_eq!(at(&mut program, &peer, OPTIONS.len(), OPTIONS)?, Reason::Valid, "behind packet {number}");
        // Nobody is charged twice for what came twice.
        let conflicts = program.count(Reason::Conflict)?;
        assert_eq!(conflicts, 0, "behind packet {number}");
    }
    Ok(())
}

/// A copy that would leave the framer elsewhere, that is malformed, or that is cut otherwise.
#[test]
fn a_copy_that_leads_elsewhere() -> Result<()> {
    let size = OPTIONS.len();
    let long = call("Content-Length: 20\r\n", b"");
    let other = [&call("Content-Length: 10\r\n", b"")[..], b""].concat();
    let mut copies = vec![
        (OPTIONS.to_vec(), bent(OPTIONS, "Call-ID: c", "Call-ID\x01 c")),
        (OPTIONS.to_vec(), bent(OPTIONS, "Content-Length: 0", "Content-Length: 1")),
        (OPTIONS.to_vec(), OPTIONS[..size - 1].to_vec()),
        (long.clone(), other.clone()),
        (other, long),
    ];
    // Within a header section nothing but the same bytes will do.
    let half = &good_call()[..100];
    copies.push((half.to_vec(), bent(half, "192.0.2.7", "192.0.2.8")));
    for (passed, copy) in copies {
        if copy == passed {
            continue;
        }
        let peer = device();
        let mut program = Program::shared()?;
        program.connect(&peer, FIRST)?;
        assert_eq!(at(&mut program, &peer, 0, &passed)?, Reason::Valid);
        let run = program.run(&peer.tcp(ACK | PSH, FIRST, &copy))?;
        assert_ne!(run.reason, Reason::Retransmission, "{}", copy.escape_ascii());
        assert_eq!(run.action, XDP_DROP, "{}", copy.escape_ascii());
    }
    Ok(())
}

/// Two copies of different segments, either of which is as good as what passed, but not one with the rest of the other.
#[test]
fn copies_are_exchanged_as_a_whole() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.connect(&peer, FIRST)?;
    let pair = [OPTIONS, OPTIONS].concat();
    assert_eq!(at(&mut program, &peer, 0, &pair)?, Reason::Valid);
    let third = bent(OPTIONS, "tag=1", "tag=3");
    assert_eq!(at(&mut program, &peer, 0, &third)?, Reason::Conflict, "half of a segment");
    assert_eq!(at(&mut program, &peer, OPTIONS.len(), &third)?, Reason::Conflict, "the other half");
    assert_eq!(at(&mut program, &peer, 0, &[&third[..], OPTIONS].concat())?, Reason::Retransmission);
    Ok(())
}

/// Where a copy can't be judged again, the checksum is looked at the first time.
#[test]
fn damage_in_a_header_section() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.connect(&peer, FIRST)?;
    let message = good_call();
    let (half, rest) = message.split_at(100);
    for (offset, bytes) in [(0, half), (100, rest)] {
        assert_eq!(program.run(&damaged(&peer, offset, bytes, 12))?.reason, Reason::BadChecksum);
        assert_eq!(at(&mut program, &peer, offset, bytes)?, Reason::Valid);
    }
    // A length that is larger by one bit: the message would go on.
    let zero = place_of("Length: 0") + 8;
    assert_eq!(program.run(&damaged(&peer, message.len(), OPTIONS, zero))?.reason, Reason::BadChecksum);
    assert_eq!(at(&mut program, &peer, message.len(), OPTIONS)?, Reason::Valid);
    // Who always sends wrong checksums is not kept waiting: the kernel decides.
    for reason in [Reason::BadChecksum, Reason::BadChecksum, Reason::BadChecksum, Reason::Valid] {
        let run = program.run(&damaged(&peer, message.len() + OPTIONS.len(), half, 12))?;
        assert_eq!(run.reason, reason);
    }
    Ok(())
}

/// Records of segments that the receiver has not acknowledged outlast many behind them, and the connection's end ends them.
#[test]
fn many_segments_at_once() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.connect(&peer, FIRST)?;
    let size = OPTIONS.len();
    let third = bent(OPTIONS, "tag=1", "tag=3");
    assert_eq!(at(&mut program, &peer, 0, OPTIONS)?, Reason::Valid);
    program.acknowledge(&peer, FIRST + size as u32)?;
    for number in 1..100 {
        assert_eq!(at(&mut program, &peer, number * size, OPTIONS)?, Reason::Valid);
    }
    for number in [1, 2, 50, 95, 96, 99] {
        assert_eq!(at(&mut program, &peer, number * size, &third)?, Reason::Retransmission, "{number}");
        let shifted = at(&mut program, &peer, number * size + 1, &third[1..])?;
        assert_ne!(shifted, Reason::Retransmission, "{number}");
    }
    // A later connection of the same ports and numbers has records of its own.
    program.change_flow(&peer, |flow| {
        flow.first_ns += 1;
        flow.conflicts = 0;
    })?;
    assert_eq!(at(&mut program, &peer, size, &third)?, Reason::Conflict);
    assert_eq!(at(&mut program, &peer, size, OPTIONS)?, Reason::Conflict);
    Ok(())
}

/// A clock that was damaged with the segment does not make those that follow too old.
#[test]
fn a_clock_in_the_future() -> Result<()> {
    let stamped = |clock: u32| {
        let mut peer = device();
        peer.options = [&[1, 1, 8, 10][..], &clock.to_be_bytes(), &[0; 4]].concat();
        peer
    };
    for joined in [false, true] {
        let mut program = Program::shared()?;
        let (now, later) = (stamped(1000), stamped(1 << 29));
        program.connect(&now, FIRST)?;
        program.acknowledge(&now, FIRST)?;
        let size = OPTIONS.len();
        assert_eq!(at(&mut program, &later, 0, OPTIONS)?, Reason::Valid);
        assert_eq!(at(&mut program, &now, size, OPTIONS)?, Reason::NotAcceptable, "too old for the receiver");
        if joined {
            assert_eq!(at(&mut program, &now, 0, &OPTIONS.repeat(2))?, Reason::Valid);
        } else {
            assert_eq!(at(&mut program, &now, 0, OPTIONS)?, Reason::Retransmission);
            assert_eq!(at(&mut program, &now, size, OPTIONS)?, Reason::Valid);
        }
        assert_eq!(at(&mut program, &now, 2 * size, OPTIONS)?, Reason::Valid);
    }
    Ok(())
}

/// A body in many segments: any part of it may come again, cut in any way, and nothing else in its place.
#[test]
fn copies_of_a_body() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.connect(&peer, FIRST)?;
    let body = vec![b'x'; 60_000];
    let head = call("Content-Length: 60000\r\n", b"");
    assert_eq!(at(&mut program, &peer, 0, &head)?, Reason::Valid);
    program.acknowledge(&peer, FIRST + head.len() as u32)?;
    for (number, piece) in body.chunks(1000).enumerate() {
        assert_eq!(at(&mut program, &peer, head.len() + 1000 * number, piece)?, Reason::Valid);
    }
    for (from, len) in [(0, 1000), (1000, 1448), (7, 3), (59_000, 1000)] {
        let again = at(&mut program, &peer, head.len() + from, &vec![b'y'; len])?;
        assert_eq!(again, Reason::Retransmission, "{from}");
    }
    let across = [&body[59_999..], OPTIONS].concat();
    assert_eq!(at(&mut program, &peer, head.len() + 59_999, &across)?, Reason::Valid, "and what is new");
    // Behind many messages it is known by its beginning.
    let end = head.len() + body.len();
    for number in 1..20 {
        assert_eq!(at(&mut program, &peer, end + number * OPTIONS.len(), OPTIONS)?, Reason::Valid);
    }
    assert_eq!(at(&mut program, &peer, head.len(), &body[..1000])?, Reason::Retransmission);
    assert_eq!(at(&mut program, &peer, head.len() - 1, &body[..1000])?, Reason::Conflict, "the empty line");
    Ok(())
}

/// Headers of TLS records are compared too.
#[test]
fn copies_of_tls_records() -> Result<()> {
    let peer = Peer::new("192.0.2.7:40000", "198.51.100.1:5061");
    let mut program = Program::shared()?;
    program.connect(&peer, FIRST)?;
    let hello = [&[22, 3, 1, 0, 40, 1][..], &[7; 39]].concat();
    let record = [23, 3, 3, 0, 2, 8, 9];
    assert_eq!(at(&mut program, &peer, 0, &hello)?, Reason::Tls);
    assert_eq!(at(&mut program, &peer, hello.len(), &record)?, Reason::Tls);
    assert_eq!(at(&mut program, &peer, hello.len(), &record)?, Reason::Retransmission);
    assert_eq!(at(&mut program, &peer, 0, &hello)?, Reason::Retransmission);
    assert_eq!(
        at(&mut program, &peer, hello.len(), &[23, 3, 3, 0, 2, 1, 1])?,
        Reason::Retransmission,
        "content"
    );
    for copy in [*b"garbage", [23, 3, 9, 0, 2, 8, 9], [23, 3, 3, 0, 9, 8, 9]] {
        assert_eq!(at(&mut program, &peer, hello.len(), &copy)?, Reason::Conflict);
    }
    let plain = &OPTIONS[..hello.len()];
    assert_eq!(at(&mut program, &peer, 0, plain)?, Reason::Conflict);
    Ok(())
}

/// Whoever sends a copy pays for it.
#[test]
fn copies_count_for_the_limits() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.limit(INVITES, Rate::new(1, 1))?;
    program.connect(&peer, FIRST)?;
    let invite = bent(&bent(OPTIONS, "OPTIONS sip", "INVITE sip"), "1 OPTIONS", "1 INVITE");
    let filler = b"\r\n".repeat(invite.len() * 2 / 2);
    assert_eq!(filler.len(), 2 * invite.len());
    assert_eq!(at(&mut program, &peer, 0, &filler)?, Reason::Valid);
    assert_eq!(at(&mut program, &peer, 0, &invite.repeat(2))?, Reason::Retransmission, "the first are free");
    let other = bent(&invite, "Call-ID: c", "Call-ID: d");
    // Over the limit, which is no conflict: after many the connection goes on.
    for _ in 0..20 {
        assert_eq!(at(&mut program, &peer, 0, &other.repeat(2))?, Reason::RateInvite);
    }
    assert_eq!(at(&mut program, &peer, filler.len(), OPTIONS)?, Reason::Valid);
    Ok(())
}

/// A message with line ends of each kind, folded lines, quoted strings and long lines.
fn of_all_kinds() -> Vec<u8> {
    let long = "x".repeat(150);
    format!(
        "OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n ;branch=z9hG4bK1\r\nFrom: \"a\\\"b\" <sip:a@h>;tag=1\r\nTo:\r\n\t<sip:b@h>\r\n\
         Subject: {long}\r\nX: a\r\n\r\n"
    )
    .replace("\r\n\r\n", "\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
    .into_bytes()
}

/// However a header section is cut: a copy that differs in any byte of a segment is told from it.
#[test]
fn every_byte_of_a_header_section_is_compared() -> Result<()> {
    let (message, peer) = (of_all_kinds(), device());
    let mut program = Program::shared()?;
    // Those of the other tests are zero where short segments are hashed.
    program.change(|settings| {
        settings.hash_keys =
            std::array::from_fn(|at| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * at as u64 + 1));
    })?;
    let mut compared = 0;
    for cut in 1..message.len() - 1 {
        for len in [1, 2, 63, 64, 65, 66, 127, 128, 129, 192] {
            let end = (cut + len).min(message.len() - 1);
            program.connect(&peer, FIRST)?;
            for piece in [0..cut, cut..end] {
                let frame = peer.tcp(ACK, FIRST + piece.start as u32, &message[piece.clone()]);
                assert_eq!(program.run_uncounted(&frame)?.0, XDP_PASS, "{piece:?}");
            }
            // The last bytes, at the ends of blocks of 64, and some between.
            let places = (cut..end).filter(|at| end - at < 4 || at % 7 == 0 || (at - cut) % 64 > 61);
            for at in places {
                let mut copy = message[cut..end].to_vec();
                copy[at - cut] ^= 0x20;
                let (action, _) = program.run_uncounted(&peer.tcp(ACK, FIRST + cut as u32, &copy))?;
                assert_eq!(action, XDP_DROP, "{cut}..{end}, byte {at}");
                program.change_flow(&peer, |flow| flow.conflicts = 0)?;
                compared += 1;
            }
        }
    }
    println!("{compared} copies");
    Ok(())
}
