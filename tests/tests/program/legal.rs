//! What must never count as malformed, and never end a connection: TCP and UDP as devices, networks and load balancers use them,
//! in the default profile. What stands in headers and bodies is in `legal_headers.rs`.

use anyhow::{Context as _, Result, ensure};
use sipguard_common::abi::PERMANENT;
use sipguard_common::{Class, Reason};
use sipguard_tests::judge::{
    End, Profile, Verdict, connection, devices, frame, passes, passes_tcp, passes_udp, program, udp,
};
use sipguard_tests::message::{OPTIONS, SDP, bent, call, good_call, invite, large, register, stun};
use sipguard_tests::packet::{ACK, FIN, PSH, Peer, RST, SYN};
use sipguard_tests::program::{XDP_DROP, XDP_PASS};

const DEFAULT: Profile = Profile::Default;

/// A segment that is one of these reasons and goes through, or is dropped without an accusation.
fn segment(peer: &Peer, flags: u8, seq: u32, payload: &[u8]) -> Result<Reason> {
    let frame = peer.tcp(flags, seq, payload);
    let run = program(DEFAULT).run(&frame)?;
    ensure!(!matches!(run.reason.class(), Class::Malformed | Class::Reset), "{run:?}");
    ensure!(run.frame == frame, "rewritten: {run:?}");
    Ok(run.reason)
}

#[test]
fn line_ends_between_messages() -> Result<()> {
    for ends in ["\r\n\r\n", "\r\n", "\r\n\r\n\r\n\r\n\r\n\r\n", "\n", "\n\n", "\r\n\n\r\n"] {
        let ends = ends.as_bytes();
        passes_tcp(DEFAULT, ends);
        passes_tcp(DEFAULT, &ends.repeat(50));
        passes_tcp(DEFAULT, &[ends, OPTIONS].concat());
        passes_tcp(DEFAULT, &[OPTIONS, ends, &good_call(), ends, ends, OPTIONS, ends].concat());
        for peer in devices() {
            let verdict =
                connection(DEFAULT, &peer, &[ends, OPTIONS, ends, ends, &good_call(), ends, OPTIONS])?;
            assert_eq!(verdict, Verdict::VALID);
        }
    }
    Ok(())
}

/// A load balancer's health check, ended by either side, and a port scan.
#[test]
fn empty_connections() -> Result<()> {
    for flags in [&[ACK | FIN, ACK][..], &[RST], &[RST | ACK], &[ACK, ACK, ACK | FIN]] {
        for peer in devices() {
            program(DEFAULT).connect(&peer, 1000)?;
            for flags in flags {
                assert_eq!(segment(&peer, *flags, 1000, b"")?, Reason::TcpControl);
            }
        }
    }
    Ok(())
}

/// Whatever has come of a message, the rest may follow.
#[test]
fn unfinished_messages() -> Result<()> {
    for message in [good_call(), invite()] {
        for at in 1..message.len() {
            let [v4, v6] = devices();
            let peer = if at % 2 == 0 { v4 } else { v6 };
            let (begun, rest) = message.split_at(at);
            assert_eq!(connection(DEFAULT, &peer, &[begun, rest, OPTIONS])?, Verdict::VALID, "cut at {at}");
        }
    }
    Ok(())
}

#[test]
fn several_messages_in_a_segment() {
    passes_tcp(DEFAULT, &OPTIONS.repeat(20));
    passes_tcp(
        DEFAULT,
        &[&good_call(), OPTIONS, &invite(), &register(1), OPTIONS, &large(), &good_call()].concat(),
    );
}

#[test]
fn one_byte_a_segment() -> Result<()> {
    for message in [good_call(), invite(), register(1)] {
        for peer in devices() {
            let bytes: Vec<_> = message.chunks(1).collect();
            assert_eq!(connection(DEFAULT, &peer, &bytes)?, Verdict::VALID);
        }
    }
    Ok(())
}

#[test]
fn retransmitted_reordered_and_probed() -> Result<()> {
    for peer in devices() {
        let call = good_call();
        let (one, rest) = call.split_at(200);
        let (two, three) = rest.split_at(200);
        program(DEFAULT).connect(&peer, 1000)?;
        let end = 1000 + call.len() as u32;
        assert_eq!(segment(&peer, ACK, 1200, two)?, Reason::SequenceGap, "it comes again");
        assert_eq!(segment(&peer, ACK, 1400, three)?, Reason::SequenceGap);
        assert_eq!(segment(&peer, ACK, 1000, one)?, Reason::Valid);
        assert_eq!(segment(&peer, ACK, 1000, one)?, Reason::Retransmission);
        assert_eq!(segment(&peer, ACK, 1200, two)?, Reason::Valid);
        assert_eq!(segment(&peer, ACK, 1000, &call[..400])?, Reason::Retransmission, "in one piece");
        assert_eq!(segment(&peer, ACK, 1200, rest)?, Reason::Valid, "with what is new");
        assert_eq!(segment(&peer, ACK, 1000, &call)?, Reason::Retransmission);
        // RFC 9293 section 3.8.4: a probe is empty, or one byte of garbage, before the next byte.
        program(DEFAULT).acknowledge(&peer, end)?;
        assert_eq!(segment(&peer, ACK, end - 1, b"")?, Reason::TcpControl);
        assert_eq!(segment(&peer, ACK, end - 1, b"\0")?, Reason::Retransmission);
        assert_eq!(segment(&peer, ACK | PSH, end, OPTIONS)?, Reason::Valid);
    }
    // A datagram that comes twice.
    for peer in devices() {
        for _ in 0..3 {
            assert_eq!(frame(DEFAULT, &peer.udp(&good_call()))?, Verdict::VALID);
        }
    }
    Ok(())
}

#[track_caller]
fn pings(payload: &[u8]) -> Result<()> {
    let ping = Verdict { reason: Reason::NatPing, end: End::Passed };
    assert_eq!(udp(DEFAULT, payload)?, ping, "{}", payload.escape_ascii());
    Ok(())
}

#[test]
fn pings_over_udp() -> Result<()> {
    pings(b"")?;
    for zeros in [1, 2, 3, 4, 5, 6, 7, 8] {
        pings(&vec![0; zeros])?;
    }
    for ends in 1..=40 {
        pings(&b"\r\n".repeat(ends))?;
    }
    for byte in 0..=255 {
        pings(&[byte])?;
    }
    for ping in [
        &b"jaK"[..],
        b"jaK\0",
        b"PING",
        b"ping",
        b"\n",
        b"\n\n",
        b"hi",
        b"...",
        b"\xff\xff\xff\xff",
        b"\0\x01",
        b" ",
    ] {
        pings(ping)?;
    }
    Ok(())
}

#[track_caller]
fn is_stun(payload: &[u8]) -> Result<()> {
    let stun = Verdict { reason: Reason::Stun, end: End::Passed };
    assert_eq!(udp(DEFAULT, payload)?, stun, "{}", payload.escape_ascii());
    Ok(())
}

/// An XDP filter for SIP that is in the field drops each of these.
#[test]
fn stun_keep_alives() -> Result<()> {
    let software = [0x80, 0x22, 0, 9, b's', b'i', b'p', b'p', b'h', b'o', b'n', b'e', b'1', 0, 0, 0];
    let padded = [0x80, 0x22, 0, 2, b'a', b'b', b' ', b' '];
    let address = [0x00, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
    let fingerprint = [0x80, 0x28, 0, 4, 1, 2, 3, 4];
    let empty = [0x00, 0x25, 0, 0];
    let many = empty.repeat(64);
    let unknown = [&[0xc0, 0x57, 0x04, 0x00][..], &[0x55; 1024]].concat();
    let all = [&software[..], &padded, &address, &empty, &unknown, &fingerprint].concat();
    for attributes in
        [&[][..], &software, &padded, &address, &empty, &fingerprint, &many, &unknown, &all, &all.repeat(5)]
    {
        // A request, an indication, a success and an error response; also of TURN.
        for kind in [0x0001u16, 0x0011, 0x0101, 0x0111, 0x0003, 0x0103, 0x0004, 0x0016] {
            let mut message = stun(attributes);
            message[..2].copy_from_slice(&kind.to_be_bytes());
            is_stun(&message)?;
        }
        // RFC 3489 had no cookie, but 16 bytes of its own choice.
        for kind in [0x0001u16, 0x0002, 0x0101, 0x0102, 0x0111] {
            let mut message = stun(attributes);
            message[..2].copy_from_slice(&kind.to_be_bytes());
            message[4..8].copy_from_slice(b"\xde\xad\xbe\xef");
            is_stun(&message)?;
        }
    }
    is_stun(&[&b"\x00\x01\x00\x08"[..], b"sixteen bytes ok", &[0, 3, 0, 4, 0, 0, 0, 6]].concat())
}

#[test]
fn length_and_rest_of_a_datagram() {
    passes_udp(DEFAULT, &call("", SDP));
    passes_udp(DEFAULT, &call("", b""));
    for rest in [
        &b"\r\n"[..],
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"trailing garbage",
        b"INVITE sip:x SIP/2.0\r\nContent-Length: -1\r\n\r\n",
    ] {
        passes_udp(DEFAULT, &[&good_call(), rest].concat());
    }
    passes_udp(DEFAULT, &call("Content-Length: 0\r\n", SDP));
    // RFC 3261 section 7.5: line ends before the start line.
    passes_udp(DEFAULT, &[b"\r\n\r\n", &good_call()[..]].concat());
}

/// An INVITE with video is longer than a packet. The first fragment ends within the headers, or within the body.
#[test]
fn fragments() -> Result<()> {
    let sdp = SDP.repeat(20);
    let long_body = call(&format!("Content-Length: {}\r\n", sdp.len()), &sdp);
    let long_headers =
        call(&format!("{}Content-Length: 0\r\n", "Record-Route: <sip:192.0.2.1;lr>\r\n".repeat(60)), b"");
    for profile in [DEFAULT, Profile::Strict] {
        for message in [&long_body, &long_headers] {
            for size in (256..=1480).step_by(24) {
                for peer in devices() {
                    let fragments = peer.udp_fragments(message, size);
                    assert_eq!(frame(profile, &fragments[0])?, Verdict::VALID, "{size} bytes");
                    // Judged on, in order, until the headers have ended.
                    let headers = message.windows(4).position(|end| end == b"\r\n\r\n").context("an end")?;
                    let reason = if 8 + headers + 4 <= size { Reason::NotGuarded } else { Reason::Valid };
                    for later in &fragments[1..] {
                        let later = frame(profile, later)?;
                        assert_eq!(later, Verdict { reason, end: End::Passed }, "{size} bytes");
                    }
                }
            }
        }
    }
    Ok(())
}

/// Frames of 9000 bytes, which the driver hands over in several buffers, and the largest there are.
#[test]
fn jumbo_frames() -> Result<()> {
    for bytes in [1460, 3000, 4000, 4096, 5000, 8000, 8900, 8948, 8960, 20_000, 60_000] {
        let lines = "Record-Route: <sip:192.0.2.1;lr>\r\n".repeat(30);
        let bare = call(&format!("{lines}Content-Length: 00000\r\n"), b"");
        let body = vec![b'b'; bytes - bare.len().min(bytes)];
        let message = [bent(&bare, "00000", format!("{:05}", body.len())), body].concat();
        passes_udp(DEFAULT, &message);
        for peer in devices() {
            assert_eq!(connection(DEFAULT, &peer, &[&message, OPTIONS])?, Verdict::VALID);
            let many = OPTIONS.repeat(bytes / OPTIONS.len());
            assert_eq!(connection(DEFAULT, &peer, &[&many, OPTIONS])?, Verdict::VALID);
        }
    }
    Ok(())
}

/// An XDP filter for SIP that is in the field reads the first bytes of a SYN as SIP, and drops it.
#[test]
fn handshakes() -> Result<()> {
    for peer in devices() {
        for seq in 0..300u32 {
            assert_eq!(segment(&peer, SYN, seq.wrapping_mul(0x0101_0101), b"")?, Reason::TcpControl);
        }
        // With explicit congestion notification, and the answer to nothing that the PBX dialled.
        assert_eq!(segment(&peer, SYN | 0xc0, 7, b"")?, Reason::TcpControl);
        assert_eq!(segment(&peer, SYN | ACK, 7, b"")?, Reason::NotGuarded);
    }
    Ok(())
}

/// An XDP filter for SIP that is in the field looks for ` SIP/2.0` in the first 64 bytes.
#[test]
fn request_uris_of_any_length() {
    let good = good_call();
    for bytes in (1..130).chain([255, 256, 500, 1000, 2000, 4000]) {
        let uri = format!("sip:{}@pbx.example", "a".repeat(bytes));
        passes(DEFAULT, &bent(&good, "sip:9100@pbx.example SIP", format!("{uri} SIP")));
    }
}

/// An XDP filter for SIP that is in the field reads the length of UDP backwards, and lets some datagrams of a blocked source through.
#[test]
fn every_length_from_a_blocked_source_is_dropped() -> Result<()> {
    let host = Peer::new("203.0.113.9:5060", "198.51.100.1:5060");
    let prefix = Peer::new("[2001:db8:bad::9]:5060", "[2001:db8:1::1]:5060");
    program(DEFAULT).block("203.0.113.9", PERMANENT)?;
    program(DEFAULT).block("2001:db8:bad::/48", PERMANENT)?;
    let payload = large();
    for (peer, reason) in [(host, Reason::BlockedHost), (prefix, Reason::BlockedPrefix)] {
        for bytes in (0..=1472).chain([4000, 8972, 60_000]) {
            let run = program(DEFAULT).run(&peer.udp(&payload[..bytes]))?;
            assert_eq!((run.reason, run.action), (reason, XDP_DROP), "{bytes} bytes");
        }
    }
    Ok(())
}

/// After an outage every phone of an office registers at once, from one address.
#[test]
fn an_office_behind_one_nat_registers_again() -> Result<()> {
    let [v4, v6] = devices();
    for nat in [v4, v6] {
        for phone in 0..300u16 {
            let mut peer = nat.clone();
            peer.remote.set_port(20_000 + phone);
            let number = usize::from(phone);
            // Once without and once with the answer to a challenge.
            let messages = [register(2 * number), register(2 * number + 1)];
            let verdict = connection(DEFAULT, &peer, &[&messages[0], &messages[1], b"\r\n\r\n", OPTIONS])?;
            assert_eq!(verdict, Verdict::VALID, "phone {phone}");
            for message in &messages {
                let run = program(DEFAULT).run(&peer.udp(message))?;
                assert_eq!((run.reason, run.action), (Reason::Valid, XDP_PASS), "phone {phone}");
            }
        }
    }
    Ok(())
}
