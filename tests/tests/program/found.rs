//! What random attackers (`attacker.rs`) and reviewers found, each as short as it became.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::FlowState;
use sipguard_tests::message::OPTIONS as GOOD;
use sipguard_tests::packet::{ACK, PBX_NEXT, PSH, Peer, RST, SYN, URG};
use sipguard_tests::program::{Program, Run, XDP_PASS, device};

/// Where the peer's stream begins.
const FIRST: u32 = 1000;

/// A segment of the peer whose checksum is wrong: the guard looks at that only before it refuses something.
fn damaged(mut frame: Vec<u8>, peer: &Peer) -> Vec<u8> {
    frame[peer.tcp_at() + 16] ^= 1;
    frame
}

/// A segment of the peer that acknowledges one byte more than the PBX has sent.
fn ahead(mut frame: Vec<u8>, peer: &Peer) -> Vec<u8> {
    let at = peer.tcp_at();
    frame[at + 8..at + 12].copy_from_slice(&PBX_NEXT.wrapping_add(1).to_be_bytes());
    peer.finish_checksum(&mut frame);
    frame
}

/// The trunk that the PBX dials, from a port that is not guarded.
fn trunk() -> Peer {
    Peer::new("192.0.2.9:5060", "198.51.100.1:33000")
}

#[test]
fn a_connection_after_one_that_ended_within_a_line_begins_anew() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.connect(&peer, FIRST)?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, &GOOD[..70]))?.reason, Reason::Valid);
    program.leave(&peer.answer(9000))?;
    for (at, piece) in GOOD.chunks(27).enumerate() {
        let run = program.run(&peer.tcp(ACK, 9000 + 27 * at as u32, piece))?;
        assert_eq!(run.reason, Reason::Valid, "{}", piece.escape_ascii());
    }
    Ok(())
}

#[test]
fn the_segment_that_completes_a_handshake_may_begin_before_the_first_byte() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.run(&peer.tcp(SYN, FIRST - 1, b""))?;
    program.leave(&peer.answer(FIRST))?;
    let run = program.run(&peer.tcp(ACK, FIRST - 9, b"whatever\0malformed\r\n\r\n"))?;
    assert_eq!(run.reason, Reason::BadStartLine, "the receiver takes what lies behind the first byte");
    Ok(())
}

#[test]
fn a_reset_without_acknowledgement_ends_nothing() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.run(&peer.tcp(SYN, FIRST - 1, b""))?;
    program.leave(&peer.answer(FIRST))?;
    program.run(&damaged(peer.tcp(ACK, FIRST, b""), &peer))?;
    assert_eq!(program.run(&ahead(peer.tcp(ACK, FIRST, &GOOD[..8]), &peer))?.reason, Reason::Valid);
    // The PBX is in SYN-RECEIVED still, and refuses that.
    program.leave(&peer.back(RST, PBX_NEXT.wrapping_add(1), 0, b""))?;
    program.run(&peer.tcp(ACK, FIRST, b""))?;
    program.acknowledge(&peer, FIRST)?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST + 8, b"\x01\r\n\r\n"))?.reason, Reason::BadStartLine);
    Ok(())
}

#[test]
fn the_end_of_a_header_section_is_compared_when_its_cr_came_before() -> Result<()> {
    let message = b"MESSAGE sip:a SIP/2.0\r\nv:h\r\nf:a\r\nt:b\r\ni:c\r\nCSeq: 1 MESSAGE\r\nl: 20\r\n\r";
    let (mut program, peer) = (Program::shared()?, device());
    program.connect(&peer, FIRST)?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, message))?.reason, Reason::Valid);
    let next = FIRST + message.len() as u32;
    program.acknowledge(&peer, next)?;
    let rest = peer.tcp(ACK, next, b"\nwhat is in a body");
    assert_eq!(program.run(&damaged(rest.clone(), &peer))?.reason, Reason::BadChecksum);
    assert_eq!(program.run(&rest)?.reason, Reason::Valid);
    let other = program.run(&peer.tcp(ACK, next, b"Xwhat is in a body"))?;
    assert_eq!(other.reason, Reason::Conflict, "no body, but a header");
    assert_eq!(program.run(&rest)?.reason, Reason::Retransmission);
    Ok(())
}

#[test]
fn both_may_dial_at_once() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, trunk());
    program.leave(&peer.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
    program.run(&peer.tcp(SYN, FIRST - 1, b""))?;
    program.leave(&peer.answer(FIRST))?;
    program.run(&peer.tcp(ACK, FIRST, b""))?;
    program.leave(&peer.back(ACK | PSH, PBX_NEXT, FIRST, GOOD))?;
    assert_eq!(program.flow(&peer)?.map(|flow| flow.state), Some(FlowState::InSync as u32));
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, b"\x01\r\n\r\n"))?.reason, Reason::BadStartLine);
    Ok(())
}

#[test]
fn an_answer_that_the_pbx_did_not_take_says_nothing_of_where_the_peer_begins() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, trunk());
    program.leave(&peer.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
    program.run(&damaged(peer.tcp(SYN | ACK, FIRST + 50_000, b""), &peer))?;
    program.run(&peer.tcp(SYN | ACK, FIRST - 1, b""))?;
    let early: Run = program.run(&peer.tcp(ACK, FIRST, b"\x01\r\n\r\n"))?;
    assert_eq!(early.reason, Reason::EarlyAnswer, "the PBX has not acknowledged the answer");
    program.leave(&peer.back(ACK, PBX_NEXT, FIRST, b""))?;
    program.leave(&peer.back(ACK | PSH, PBX_NEXT, FIRST, GOOD))?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, b"\x01\r\n\r\n"))?.reason, Reason::BadStartLine);
    Ok(())
}

/// A device sends its SYN twice, and the PBX's second answer leaves when the first bytes have passed: they are not judged anew.
#[test]
fn a_syn_ack_that_is_repeated_rewinds_nothing() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.connect(&peer, FIRST)?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, GOOD))?.reason, Reason::Valid);
    program.leave(&peer.answer(FIRST))?;
    let other = String::from_utf8(GOOD.to_vec())?.replace("Length: 0", "Length: 9").into_bytes();
    assert_ne!(other, GOOD);
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, &other))?.reason, Reason::Conflict);
    let next = FIRST + GOOD.len() as u32;
    assert_eq!(program.run(&peer.tcp(ACK, next, b"\x01malform"))?.reason, Reason::BadStartLine);
    Ok(())
}

/// The PBX still waits for the handshake a second later: what passed was lost behind the guard. A phone that starts again alike is none that rewinds.
#[test]
fn a_handshake_that_was_lost_behind_the_guard_goes_on() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.connect(&peer, FIRST)?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, GOOD))?.reason, Reason::Valid);
    program.change_flow(&peer, |flow| flow.first_ns -= 2_000_000_000)?;
    program.leave(&peer.answer(FIRST))?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, b"\r\n\r\n"))?.reason, Reason::Valid);
    assert_eq!(program.run(&peer.tcp(ACK, FIRST + 4, GOOD))?.reason, Reason::Valid);
    Ok(())
}

/// The PBX has taken something: then no SYN-ACK of that handshake is one that goes on, however late.
#[test]
fn a_late_syn_ack_rewinds_nothing_either() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.connect(&peer, FIRST)?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, GOOD))?.reason, Reason::Valid);
    program.acknowledge(&peer, FIRST + GOOD.len() as u32)?;
    program.change_flow(&peer, |flow| flow.first_ns -= 2_000_000_000)?;
    program.leave(&peer.answer(FIRST))?;
    assert_eq!(
        program.run(&peer.tcp(ACK, FIRST, b"OPTIONS sip:x SIP/2.0\r\n"))?.reason,
        Reason::Retransmission
    );
    assert_eq!(program.run(&peer.tcp(ACK, FIRST + GOOD.len() as u32, GOOD))?.reason, Reason::Valid);
    Ok(())
}

/// Once the PBX spoke SIP from a port to one that is not guarded, other services from there go on as before.
#[test]
fn urgent_bytes_of_another_service_pass_on_a_port_that_was_spoken_from() -> Result<()> {
    let mut program = Program::shared()?;
    let (callee, server) =
        (Peer::new("192.0.2.9:7777", "198.51.100.1:40000"), Peer::new("192.0.2.10:21", "198.51.100.1:40000"));
    program.dial(&callee, FIRST, GOOD)?;
    assert_eq!(
        program.run(&callee.tcp(ACK | URG, FIRST, b"x"))?.reason,
        Reason::BadTcpFlags,
        "it speaks SIP"
    );
    let run = program.run(&server.tcp(ACK | URG, FIRST, b"x"))?;
    assert_eq!((run.reason, run.action), (Reason::NotGuarded, XDP_PASS));
    Ok(())
}

/// A peer that reads much and answers while more than a window is under way.
#[test]
fn an_acknowledgement_lies_between_what_was_acknowledged_and_what_was_sent() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.connect(&peer, FIRST)?;
    program.leave(&peer.back(ACK, PBX_NEXT.wrapping_add(5 << 20), FIRST, b""))?;
    assert_eq!(program.run(&peer.tcp(ACK, FIRST, GOOD))?.reason, Reason::Valid, "five megabytes under way");
    Ok(())
}

/// A LF alone, behind a CR in the segment before, or in the block of 64 bytes before. The receiver does not take it, for it acknowledges too much, and
/// takes a copy that differs.
#[test]
fn the_last_line_end_of_a_segment_is_compared_too() -> Result<()> {
    for len in [1, 2, 64, 65, 66, 128, 129, 193] {
        let (mut program, peer) = (Program::shared()?, device());
        // Those of the other tests are zero where short segments are hashed.
        program.change(|settings| {
            settings.hash_keys =
                std::array::from_fn(|at| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * at as u64 + 1));
        })?;
        program.connect(&peer, FIRST)?;
        let begin = b"OPTIONS sip:pbx SIP/2.0\r\nSubject: a\r";
        let (begin, segment) = if len == 1 {
            (&begin[..], b"\n".to_vec())
        } else {
            (&begin[..begin.len() - 1], [&vec![b'x'; len - 2][..], b"\r\n"].concat())
        };
        let next = FIRST + begin.len() as u32;
        assert_eq!(program.run(&peer.tcp(ACK, FIRST, begin))?.reason, Reason::Valid);
        program.leave(&peer.back(ACK, PBX_NEXT, next, b""))?;
        let ahead_of_all = ahead(peer.tcp(ACK | PSH, next, &segment), &peer);
        assert_eq!(program.run(&ahead_of_all)?.reason, Reason::Valid, "{len}");
        let mut copy = segment.clone();
        copy[len - 1] = b'O';
        assert_eq!(program.run(&peer.tcp(ACK | PSH, next, &copy))?.reason, Reason::Conflict, "{len}");
        copy.extend(b"PTIONS");
        assert_eq!(program.run(&peer.tcp(ACK | PSH, next, &copy))?.reason, Reason::Conflict, "{len}");
        assert_eq!(
            program.run(&peer.tcp(ACK | PSH, next, &segment))?.reason,
            Reason::Retransmission,
            "{len}"
        );
    }
    Ok(())
}
