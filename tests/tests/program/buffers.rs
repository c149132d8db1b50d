//! Frames of several buffers: where the first of them ends changes no verdict, not even in the middle of a header.

use std::collections::HashMap;
use std::io;

use anyhow::{Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::envelope::{Envelope, datagram, extension};
use sipguard_tests::message::{OPTIONS as GOOD, stun};
use sipguard_tests::packet::{ACK, FIN, IP, PSH, Peer, RST, SYN, TCP4};
use sipguard_tests::program::{Program, Run, Shared, XDP_DROP, XDP_PASS};

const V4: (&str, &str) = ("192.0.2.7:40000", "198.51.100.1:5060");
const V6: (&str, &str) = ("[2001:db8::7]:40000", "[2001:db8::1]:5060");
/// Of Ethernet, the least that a first buffer has.
const LEAST: usize = IP;

/// A frame of a peer whose connection begins with sequence number 1000, and where its TCP header stands.
struct Case {
    name: &'static str,
    reason: Reason,
    /// Where the TCP header stands; 0 for UDP.
    tcp_at: usize,
    frame: fn(&Peer) -> Vec<u8>,
    addresses: (&'static str, &'static str),
}

fn enveloped(peer: &Peer, change: impl FnOnce(&mut Envelope)) -> Envelope {
    let mut envelope = Envelope::new(peer.remote.ip(), peer.local.ip());
    change(&mut envelope);
    envelope
}

fn in_extensions(peer: &Peer) -> Envelope {
    enveloped(peer, |envelope| {
        envelope.extensions = vec![
            (extension::HOP_BY_HOP, vec![0, 0, 1, 4, 0, 0, 0, 0]),
            (extension::DESTINATION, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
    })
}

fn with_options(peer: &Peer, options: &[u8], flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut peer = peer.clone();
    peer.options = options.to_vec();
    peer.tcp(flags, 1000, payload)
}

fn cases() -> Vec<Case> {
    const BAD: &[u8] = b"no sense\r\n";
    const LYING: &[u8] = &[0x80, 0x22, 0, 0, 0, 6, 0, 9];
    const OF_SYN: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let case = |name, reason, tcp_at, addresses, frame| Case { name, reason, tcp_at, frame, addresses };
    let segment = |name, reason, frame| case(name, reason, TCP4, V4, frame);
    let v6 = |name, reason, tcp_at, frame| case(name, reason, tcp_at, V6, frame);
    let udp = |name, reason, frame| case(name, reason, 0, V4, frame);
    vec![
        udp("a datagram", Reason::Valid, |peer| peer.udp(GOOD)),
        udp("a bad datagram", Reason::BadStartLine, |peer| peer.udp(BAD)),
        udp("a keep-alive", Reason::NatPing, |peer| peer.udp(b"\r\n\r\n")),
        udp("STUN", Reason::Stun, |peer| peer.udp(&stun(&[0x80, 0x22, 0, 4, 1, 2, 3, 4]))),
        udp("bad STUN", Reason::BadStun, |peer| peer.udp(&stun(LYING))),
        udp("a bad UDP header", Reason::BadUdpHeader, |peer| {
            let mut frame = peer.udp(GOOD);
            frame[TCP4 + 4..TCP4 + 6].fill(0xff);
            frame
        }),
        udp("a bad IP header", Reason::BadIpHeader, |peer| {
            let mut frame = peer.udp(GOOD);
            frame[IP] = 0x44;
            frame
        }),
        udp("IPv4 options", Reason::BadStartLine, |peer| {
            datagram(&enveloped(peer, |envelope| envelope.options = vec![1; 40]), 40000, 5060, BAD)
        }),
        udp("tags", Reason::BadStartLine, |peer| {
            datagram(&enveloped(peer, |envelope| envelope.tags = vec![7, 8]), 40000, 5060, BAD)
        }),
        udp("another port", Reason::NotGuarded, |peer| datagram(&enveloped(peer, |_| ()), 40000, 5070, GOOD)),
        udp("the first of two fragments", Reason::BadStartLine, |peer| {
            peer.udp_fragments(&BAD.repeat(60), 304).swap_remove(0)
        }),
        udp("a tiny fragment", Reason::TinyFragment, |peer| {
            peer.udp_fragments(&GOOD.repeat(3), 64).swap_remove(0)
        }),
        v6("a datagram", Reason::BadStartLine, 0, |peer| peer.udp(BAD)),
        v6("a datagram behind extension headers", Reason::BadStartLine, 0, |peer| {
            datagram(&in_extensions(peer), 40000, 5060, BAD)
        }),
        segment("a segment", Reason::Valid, |peer| peer.tcp(ACK | PSH, 1000, GOOD)),
        segment("a bad segment", Reason::BadStartLine, |peer| peer.tcp(ACK | PSH, 1000, BAD)),
        segment("a damaged segment", Reason::BadChecksum, |peer| {
            let mut frame = peer.tcp(ACK | PSH, 1000, BAD);
            frame[TCP4 + 40] ^= 1;
            frame
        }),
        segment("a SYN", Reason::TcpControl, |peer| with_options(peer, OF_SYN, SYN, b"")),
        segment("bad flags", Reason::BadTcpFlags, |peer| peer.tcp(SYN | FIN, 1000, b"")),
        segment("bad options", Reason::BadTcpOptions, |peer| {
            with_options(peer, &[1, 1, 2, 4, 5, 0, 8, 9, 9, 9, 9, 9], ACK, b"")
        }),
        segment("unusual options", Reason::BadStartLine, |peer| {
            with_options(peer, &[1, 1, 1, 254, 5, 1, 2, 3, 254, 8, 1, 2, 3, 4, 5, 6], ACK, BAD)
        }),
        v6("a bad segment", Reason::BadStartLine, IP + 40, |peer| peer.tcp(ACK | PSH, 1000, BAD)),
        v6("a bad segment behind extension headers", Reason::BadStartLine, IP + 64, |peer| {
            in_extensions(peer).seal(6, &peer.tcp(ACK | PSH, 1000, BAD)[IP + 40..])
        }),
    ]
}

#[test]
fn no_verdict_hangs_on_where_the_first_buffer_ends() -> Result<()> {
    let Some(mut program) = program()? else { return Ok(()) };
    let mut seen = HashMap::new();
    for Case { name, reason, tcp_at, frame, addresses } in cases() {
        let mut peer = Peer::new(addresses.0, addresses.1);
        let whole = frame(&peer).len();
        for linear in LEAST..=whole {
            // Each time another connection, or address for what is known by it.
            peer.remote.set_port(peer.remote.port() + 1);
            let mut frame = frame(&peer);
            if tcp_at != 0 {
                program.connect(&peer, 1000)?;
            } else if peer.remote.is_ipv4() {
                let id = (seen.len() as u16).to_be_bytes();
                frame[IP + 4..IP + 6].copy_from_slice(&id);
            }
            let run = program.run_cut(&frame, linear)?;
            ensure!(run.reason == reason, "{name}, {linear} bytes of {whole} are linear: {:?}", run.reason);
            ends_as_it_should(&run, linear, tcp_at, &frame, name)?;
            seen.insert((name, addresses.0, linear), run.action);
        }
    }
    println!("{} frames were judged", seen.len());
    Ok(())
}

#[test]
fn a_later_fragment_is_judged_wherever_its_first_buffer_ends() -> Result<()> {
    let Some(mut program) = program()? else { return Ok(()) };
    let long = format!("OPTIONS sip:a SIP/2.0\r\nSubject: {}\r\nTo: \0", "a".repeat(500));
    for (remote, local) in [V4, V6] {
        let peer = Peer::new(remote, local);
        let parts = [0..304, 304..8 + long.len()];
        let whole = peer.udp_parts(long.as_bytes(), 0, &parts)[1].len();
        for linear in LEAST..=whole {
            let fragments = peer.udp_parts(long.as_bytes(), linear as u32, &parts);
            let first = program.run_cut(&fragments[0], linear)?;
            ensure!((first.reason, first.action) == (Reason::Valid, XDP_PASS), "{linear}: {first:?}");
            let second = program.run_cut(&fragments[1], linear)?;
            let judged = (second.reason, second.action);
            ensure!(judged == (Reason::ControlByte, XDP_DROP), "{linear}: {second:?}");
        }
    }
    Ok(())
}

/// A program, where the kernel takes frames that are cut anywhere.
fn program() -> Result<Option<Shared>> {
    let mut program = Program::shared()?;
    let Err(error) = program.run_cut(&Peer::new(V4.0, V4.1).udp(GOOD), LEAST + 20) else {
        return Ok(Some(program));
    };
    let invalid = |cause: &io::Error| cause.kind() == io::ErrorKind::InvalidInput;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(invalid)) {
        println!("skipped: before Linux 6.18 a test run has as much in its first buffer as fits there");
        return Ok(None);
    }
    Err(error)
}

/// A good frame is let through as it was; of a bad one a reset is made, where its header can be written.
fn ends_as_it_should(run: &Run, linear: usize, tcp_at: usize, frame: &[u8], name: &str) -> Result<()> {
    let resets = run.reason == Reason::BadStartLine && tcp_at != 0;
    let writable = tcp_at + 18 <= linear;
    let passes = !matches!(
        run.reason,
        Reason::Valid | Reason::NatPing | Reason::Stun | Reason::TcpControl | Reason::NotGuarded
    );
    match (passes, resets && writable) {
        (false, _) => ensure!(run.action == XDP_PASS && run.frame == frame, "{name}: {linear}, {run:?}"),
        (true, true) => {
            ensure!(run.action == XDP_PASS, "{name}: {linear} linear bytes, {run:?}");
            ensure!(run.frame[tcp_at + 13] == RST | ACK, "{name}: {linear} linear bytes, no reset");
        }
        (true, false) => ensure!(run.action == XDP_DROP, "{name}: {linear} linear bytes, {run:?}"),
    }
    Ok(())
}
