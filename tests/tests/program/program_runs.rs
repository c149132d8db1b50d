//! The rooms through the loaded program: verdict, counter and, for resets, the frame.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::{
    ACTION_DROP, ACTION_RESET, MODE_ENFORCE, MODE_MONITOR, Outcome, PERMANENT, rules_in_use,
};
use sipguard_tests::envelope::{Envelope, datagram, extension};
use sipguard_tests::message::OPTIONS as GOOD;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, FIN, IP, PSH, Peer, RST, SYN, TCP4, URG, sum, tcp_sum};
use sipguard_tests::program::{Program, XDP_DROP, XDP_PASS, device, last, stream};

#[test]
fn a_malformed_segment_becomes_a_reset_that_the_kernel_takes() -> Result<()> {
    for (remote, local) in
        [("192.0.2.7:40000", "198.51.100.1:5060"), ("[2001:db8::7]:40000", "[2001:db8::1]:5060")]
    {
        for tags in [0, 1, 2] {
            let mut peer = Peer::new(remote, local);
            peer.tags = tags;
            let run = &stream(&peer, &[GOOD, b"no sense\r\n"])?[1];
            assert_eq!((run.reason, run.action), (Reason::BadStartLine, XDP_PASS), "{remote}");
            let at = peer.tcp_at();
            let old = peer.tcp(ACK, 1000, b"no sense\r\n");
            let (tcp, before) = (&run.frame[at..], &old[at..]);
            assert_eq!(run.frame[..at], old[..at], "no header before it changes, and no length");
            assert_eq!(tcp[..4], before[..4], "the ports stay");
            assert_eq!(
                u32::from_be_bytes(tcp[4..8].try_into()?),
                1000 + GOOD.len() as u32,
                "the expected sequence number"
            );
            assert_eq!((tcp[12], tcp[13]), (before[12], RST | ACK));
            assert_eq!(tcp[18..], before[18..], "options and payload stay");
            assert_eq!(tcp_sum(peer.remote.ip(), peer.local.ip(), tcp), 0xffff, "checksum");
        }
    }
    Ok(())
}

#[test]
fn ip_options_and_extension_headers_are_walked() -> Result<()> {
    let peer = device();
    // IPv4 with four bytes of options (NOPs).
    let plain = peer.tcp(ACK, 1000, b"no sense\r\n");
    let mut frame = plain[..TCP4].to_vec();
    frame.extend([1, 1, 1, 1]);
    frame.extend(&plain[TCP4..]);
    frame[IP] = 0x46;
    let total = (frame.len() - IP) as u16;
    frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
    frame[IP + 10..IP + 12].fill(0);
    let checksum = !sum(&frame[IP..IP + 24]);
    frame[IP + 10..IP + 12].copy_from_slice(&checksum.to_be_bytes());
    let mut program = Program::shared()?;
    program.connect(&peer, 1000)?;
    let run = program.run(&frame)?;
    assert_eq!(run.reason, Reason::BadStartLine);
    assert_eq!(run.frame[IP + 24 + 13], RST | ACK);
    assert_eq!(sum(&run.frame[IP..IP + 24]), 0xffff);
    assert_eq!(tcp_sum(peer.remote.ip(), peer.local.ip(), &run.frame[IP + 24..]), 0xffff);

    // IPv6 with hop-by-hop and destination options, and an atomic fragment header.
    let peer = Peer::new("[2001:db8::7]:40000", "[2001:db8::1]:5060");
    let plain = peer.tcp(ACK, 1000, b"no sense\r\n");
    let mut frame = plain[..IP + 40].to_vec();
    frame.extend([60, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend([44, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend([6, 0, 0, 0, 0, 0, 0, 9]);
    frame.extend(&plain[IP + 40..]);
    frame[IP + 6] = 0;
    let payload = (frame.len() - IP - 40) as u16;
    frame[IP + 4..IP + 6].copy_from_slice(&payload.to_be_bytes());
    let mut program = Program::shared()?;
    program.connect(&peer, 1000)?;
    let run = program.run(&frame)?;
    assert_eq!(run.reason, Reason::BadStartLine);
    assert_eq!(run.frame[IP + 64 + 13], RST | ACK);
    assert_eq!(tcp_sum(peer.remote.ip(), peer.local.ip(), &run.frame[IP + 64..]), 0xffff);
    Ok(())
}

/// The kernel skips options that say nothing, however many (RFC 8200 section 4.2: PadN). Packets of 1,500 bytes are walked to their end.
#[test]
fn extension_headers_that_fill_a_packet_are_walked() -> Result<()> {
    let peer = Peer::new("[2001:db8::7]:40000", "[2001:db8::1]:5060");
    let mut program = Program::shared()?;
    for length in [8, 800, 904, 912, 1024, 1304, 1376, 1920] {
        let mut envelope = Envelope::new(peer.remote.ip(), peer.local.ip());
        let pad = |length: usize| {
            let mut header = vec![0; length];
            header[1] = (length / 8 - 1) as u8;
            for at in (2..length).step_by(256) {
                let rest = (length - at).min(256);
                header[at..at + 2].copy_from_slice(&[1, (rest - 2) as u8]);
            }
            (extension::DESTINATION, header)
        };
        envelope.extensions = (0..length).step_by(2048).map(|at| pad((length - at).min(2048))).collect();
        for (payload, reason) in [(GOOD, Reason::Valid), (&b"no sense\r\n"[..], Reason::BadStartLine)] {
            assert_eq!(program.run(&datagram(&envelope, 40000, 5060, payload))?.reason, reason, "{length}");
        }
        program.connect(&peer, 1000)?;
        let run = program.run(&envelope.seal(6, &peer.tcp(ACK, 1000, b"no sense\r\n")[IP + 40..]))?;
        assert_eq!(run.reason, Reason::BadStartLine, "{length}");
        if length < 1400 {
            assert_eq!(run.frame[IP + 40 + length + 13], RST | ACK, "{length}");
        }
    }
    Ok(())
}

#[test]
fn a_checksum_that_the_hardware_finishes_stays_one() -> Result<()> {
    for (remote, local) in
        [("192.0.2.7:40000", "198.51.100.1:5060"), ("[2001:db8::7]:40000", "[2001:db8::1]:5060")]
    {
        let peer = Peer::new(remote, local);
        let at = peer.tcp_at();
        let mut frame = peer.tcp(ACK, 1000, b"no sense\r\n");
        // What the sum over the pseudo-header alone is: as if nothing followed it.
        let pseudo = tcp_sum(peer.remote.ip(), peer.local.ip(), &vec![0; frame.len() - at]).to_be_bytes();
        frame[at + 16..at + 18].copy_from_slice(&pseudo);
        let mut program = Program::shared()?;
        program.connect(&peer, 1000)?;
        let run = program.run(&frame)?;
        assert_eq!((run.reason, run.action), (Reason::BadStartLine, XDP_PASS), "{remote}");
        assert_eq!((run.frame[at + 13], &run.frame[at + 16..at + 18]), (RST | ACK, &pseudo[..]), "{remote}");
    }
    Ok(())
}

#[test]
fn ethernet_padding_is_not_data() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.connect(&peer, 1000)?;
    let mut frame = peer.tcp(ACK, 1000, b"");
    frame.extend([0; 8]);
    assert_eq!(program.run(&frame)?.reason, Reason::TcpControl);
    let mut frame = peer.tcp(ACK, 1000, GOOD);
    frame.extend([0; 8]);
    assert_eq!(program.run(&frame)?.reason, Reason::Valid);
    assert_eq!(program.flow(&peer)?.map(|flow| flow.next), Some(1000 + GOOD.len() as u32));
    Ok(())
}

#[test]
fn a_length_of_zero_is_no_way_past_the_guard() -> Result<()> {
    for (peer, at) in [(device(), IP + 2), (Peer::new("[2001:db8::7]:40000", "[2001:db8::1]:5060"), IP + 4)] {
        let mut frame = peer.tcp(ACK, 1000, GOOD);
        frame[at..at + 2].fill(0);
        assert_eq!(last(&[frame])?.reason, Reason::BadIpHeader);
    }
    Ok(())
}

#[test]
fn a_port_is_guarded_on_either_side_and_settable() -> Result<()> {
    let (trunk, mut program) = (Peer::new("192.0.2.9:5060", "198.51.100.1:33333"), Program::shared()?);
    let answer = b"SIP/2.0 200 OK\r\nContent-Length: -1\r\n";
    assert_eq!(program.run(&trunk.tcp(ACK, 1, answer))?.reason, Reason::NotGuarded, "nothing was dialled");
    assert_eq!(program.dial(&trunk, 1000, b"")?.reason, Reason::TcpControl);
    assert_eq!(program.run(&trunk.tcp(ACK, 1000, answer))?.reason, Reason::EarlyAnswer);
    program.dial(&trunk, 1000, OPTIONS)?;
    assert_eq!(program.run(&trunk.tcp(ACK, 1000, answer))?.reason, Reason::BadContentLength);
    program.dial(&trunk, 3000, b"GET / HTTP/1.1\r\n")?;
    assert_eq!(program.run(&trunk.tcp(ACK, 3000, answer))?.reason, Reason::NotGuarded);
    let anywhere = Peer::new("192.0.2.9:7777", "198.51.100.1:33334");
    assert_eq!(program.dial(&anywhere, 1000, OPTIONS)?.reason, Reason::NotGuarded);
    assert_eq!(program.run(&anywhere.tcp(ACK, 1000, answer))?.reason, Reason::BadContentLength);
    let other = Peer::new("192.0.2.9:40000", "198.51.100.1:6060");
    assert_eq!(program.run(&other.tcp(ACK, 1, b"x"))?.reason, Reason::NotGuarded);
    program.guard(6060)?;
    assert_eq!(program.run(&other.tcp(ACK, 1, b"x"))?.reason, Reason::NoConnection);
    Ok(())
}

#[test]
fn blocks_end_by_themselves_and_prefixes_nest() -> Result<()> {
    let frame = device().tcp(ACK, 1, b"");
    let mut program = Program::shared()?;
    program.block("192.0.2.7", 1)?;
    assert_eq!(program.run(&frame)?.reason, Reason::TcpControl, "ended");
    program.block("192.0.2.0/24", PERMANENT)?;
    program.block("192.0.2.0/25", 1)?;
    program.block("192.0.2.0/28", 1)?;
    assert_eq!(program.run(&frame)?.reason, Reason::BlockedPrefix, "the ended ones hide none that holds");
    let v6 = Peer::new("[2001:db8::7]:1", "[2001:db8::1]:2").udp(b"");
    assert_eq!(program.run(&v6)?.reason, Reason::NotGuarded);
    program.block("2001:db8::/32", PERMANENT)?;
    assert_eq!(program.run(&v6)?.reason, Reason::BlockedPrefix);
    program.block("::/0", PERMANENT)?;
    assert_eq!(
        program.run(&Peer::new("[2001:db9::7]:1", "[2001:db8::1]:2").udp(b""))?.reason,
        Reason::BlockedPrefix
    );
    Ok(())
}

#[test]
fn impossible_flags_are_refused_and_unusual_ones_are_not() -> Result<()> {
    let peer = device();
    for (flags, payload) in [
        (SYN | FIN, &b""[..]),
        (SYN | RST, b""),
        (FIN | RST, b""),
        (0, b""),
        (FIN, b""),
        (PSH, b"x"),
        (ACK | URG, b"x"),
        (ACK | URG, b""),
    ] {
        let run = last(&[peer.tcp(flags, 1, payload)])?;
        assert_eq!((run.reason, run.action), (Reason::BadTcpFlags, XDP_DROP), "flags {flags:#x}");
    }
    for flags in [SYN, ACK, ACK | FIN, RST, RST | ACK, SYN | 0xc0] {
        assert_eq!(last(&[peer.tcp(flags, 1, b"")])?.reason, Reason::TcpControl, "flags {flags:#x}");
    }
    let answer = last(&[peer.tcp(SYN | ACK, 1, b"")])?;
    assert_eq!((answer.reason, answer.action), (Reason::NotGuarded, XDP_PASS), "to nothing that was asked");
    Ok(())
}

#[test]
fn tcp_options_of_any_legal_kind_pass() -> Result<()> {
    let mut peer = device();
    for options in [
        vec![],
        vec![2, 4, 5, 0xb4],
        vec![1; 40],
        vec![0, 7, 7, 7],
        vec![254, 4, 1, 2],
        vec![253, 40].into_iter().chain([0; 38]).collect(),
    ] {
        peer.options = options;
        assert_eq!(last(&[peer.tcp(ACK, 1, b"")])?.reason, Reason::TcpControl, "{:?}", peer.options);
    }
    for options in [vec![2, 0, 0, 0], vec![2, 5, 1, 1], vec![1, 1, 1, 8], vec![8, 1, 0, 0]] {
        peer.options = options;
        assert_eq!(last(&[peer.tcp(ACK, 1, b"")])?.reason, Reason::BadTcpOptions, "{:?}", peer.options);
    }
    Ok(())
}

#[test]
fn what_tcp_does_legally_is_never_malformed() -> Result<()> {
    let peer = device();
    let (a, b) = GOOD.split_at(30);
    let start = u32::MAX - 10; // the sequence number wraps in the first segment
    let at = |offset: usize| start.wrapping_add(offset as u32);
    let mut program = Program::shared()?;
    program.connect(&peer, start)?;
    let mut reason = |seq: u32, bytes: &[u8]| {
        program.acknowledge(&peer, at(0))?;
        anyhow::Ok(program.run(&peer.tcp(ACK, seq, bytes))?.reason)
    };
    assert_eq!(reason(at(30), b)?, Reason::SequenceGap, "reordered: dropped, comes again");
    assert_eq!(reason(at(0), a)?, Reason::Valid);
    assert_eq!(reason(at(30), b)?, Reason::Valid);
    assert_eq!(reason(at(0), a)?, Reason::Retransmission);
    assert_eq!(reason(at(0), GOOD)?, Reason::Retransmission, "coalesced");
    program.acknowledge(&peer, at(GOOD.len()))?;
    let mut reason = |seq: u32, bytes: &[u8]| anyhow::Ok(program.run(&peer.tcp(ACK, seq, bytes))?.reason);
    assert_eq!(
        reason(at(GOOD.len() - 1), b"\0")?,
        Reason::Retransmission,
        "keep-alive probe with a byte of garbage"
    );
    let overlap = [b, GOOD].concat();
    assert_eq!(reason(at(30), &overlap)?, Reason::Valid, "old and new in one segment");
    assert_eq!(
        reason(at(30 + b.len() + 40), &GOOD[40..50])?,
        Reason::Conflict,
        "a cut that is no segment's can't be compared before the PBX has it"
    );
    let run = program.run(&peer.tcp(ACK | FIN, at(30 + overlap.len()), b"\r\n\r\n"))?;
    assert_eq!(run.reason, Reason::Valid, "data with FIN");
    Ok(())
}

#[test]
fn a_new_connection_of_the_same_ports_takes_the_place_of_the_old_one() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.connect(&peer, 1000)?;
    program.run(&peer.tcp(ACK, 1000, GOOD))?;
    program.run(&peer.tcp(RST, 5, b""))?;
    program.run(&peer.tcp(ACK | FIN, 6, b""))?;
    program.run(&peer.tcp(SYN, 76, b""))?;
    assert_eq!(
        program.run(&peer.tcp(ACK, 1000 + GOOD.len() as u32, GOOD))?.reason,
        Reason::Valid,
        "it goes on"
    );
    program.connect(&peer, 77)?;
    assert_eq!(program.run(&peer.tcp(ACK, 77, GOOD))?.reason, Reason::Valid);
    Ok(())
}

#[test]
fn frames_of_64_kib_are_judged_to_their_end() -> Result<()> {
    let peer = device();
    let body = vec![b'b'; 60_000];
    let head = String::from_utf8(GOOD.to_vec())?.replace("Length: 0", &format!("Length: {}", body.len()));
    let mut message = head.into_bytes();
    message.extend(&body);
    assert_eq!(stream(&peer, &[&message])?[0].reason, Reason::Valid);
    let many = GOOD.repeat(450);
    assert_eq!(stream(&peer, &[&many])?[0].reason, Reason::Valid);
    let keep_alives = b"\r\n".repeat(30_000);
    assert_eq!(stream(&peer, &[&keep_alives])?[0].reason, Reason::Valid);
    message.extend(b"no sense\r\n");
    let run = &stream(&peer, &[&message])?[0];
    assert_eq!((run.reason, run.frame[peer.tcp_at() + 13]), (Reason::BadStartLine, RST | ACK));
    Ok(())
}

#[test]
fn drop_cuts_the_stream_and_monitor_passes_it() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    program.change(|settings| settings.action = ACTION_DROP)?;
    program.connect(&peer, 1000)?;
    for (seq, bytes) in [(1000, &b"no sense\r\n"[..]), (1000, b"no sense\r\n"), (1010, GOOD)] {
        let run = program.run(&peer.tcp(ACK, seq, bytes))?;
        assert_eq!((run.reason, run.action), (Reason::BadStartLine, XDP_DROP));
    }

    let mut program = Program::shared()?;
    program.change(|settings| settings.mode = MODE_MONITOR)?;
    program.connect(&peer, 1000)?;
    let frame = peer.tcp(ACK, 1000, b"no sense\r\n");
    let run = program.run(&frame)?;
    assert_eq!((run.reason, run.action, run.let_pass), (Reason::BadStartLine, XDP_PASS, true));
    assert_eq!(run.frame, frame, "untouched");
    assert_eq!(program.run(&peer.tcp(ACK, 1010, b"more\r\n"))?.reason, Reason::MidStream);
    assert_eq!(
        program.run(&peer.tcp(ACK, 1016, GOOD))?.reason,
        Reason::Valid,
        "judged again from the next message on"
    );
    program.block("192.0.2.7", PERMANENT)?;
    let run = program.run(&frame)?;
    assert_eq!((run.reason, run.action, run.let_pass), (Reason::BlockedHost, XDP_PASS, true));
    Ok(())
}

#[test]
fn what_became_of_a_packet_is_what_is_counted() -> Result<()> {
    let peer = device();
    for (mode, on_malformed, tcp, udp) in [
        (MODE_ENFORCE, ACTION_RESET, Outcome::Reset, Outcome::Plain),
        (MODE_ENFORCE, ACTION_DROP, Outcome::Plain, Outcome::Plain),
        (MODE_MONITOR, ACTION_RESET, Outcome::WouldReset, Outcome::WouldDrop),
        (MODE_MONITOR, ACTION_DROP, Outcome::WouldDrop, Outcome::WouldDrop),
    ] {
        let mut program = Program::shared()?;
        program.change(|settings| (settings.mode, settings.action) = (mode, on_malformed))?;
        program.connect(&peer, 1000)?;
        for (frame, outcome) in
            [(peer.tcp(ACK, 1000, b"no sense\r\n"), tcp), (peer.udp(b"no sense\r\n"), udp)]
        {
            let run = program.run(&frame)?;
            let drops = outcome == Outcome::Plain;
            assert_eq!((run.reason, run.outcome), (Reason::BadStartLine, outcome), "{mode} {on_malformed}");
            assert_eq!(run.action, if drops { XDP_DROP } else { XDP_PASS }, "{mode} {on_malformed}");
        }
    }
    Ok(())
}

#[test]
fn a_right_checksum_is_told_from_a_wrong_one_at_any_length() -> Result<()> {
    for (remote, local) in
        [("192.0.2.7:40000", "198.51.100.1:5060"), ("[2001:db8::7]:40000", "[2001:db8::1]:5060")]
    {
        let mut peer = Peer::new(remote, local);
        let mut program = Program::shared()?;
        for length in (1..300).chain([511, 512, 513, 1023, 1024, 1025, 1448, 9001, 60_001]) {
            peer.remote.set_port(1000 + length as u16);
            let text: Vec<u8> = (0..length).map(|k| if k == 0 { 1 } else { (k * 7 % 251) as u8 }).collect();
            program.connect(&peer, 1000)?;
            let mut damaged = peer.tcp(ACK, 1000, &text);
            let last = damaged.len() - 1;
            damaged[last] ^= 0x10;
            assert_eq!(program.run(&damaged)?.reason, Reason::BadChecksum, "{length} bytes damaged");
            let run = program.run(&peer.tcp(ACK, 1000, &text))?;
            assert_eq!(run.reason, Reason::BadStartLine, "{length} bytes");
        }
    }
    Ok(())
}

#[test]
fn nobody_is_banned_for_what_the_kernel_has_no_connection_for() -> Result<()> {
    let (mut program, peer) = (Program::shared()?, device());
    program.change(|settings| {
        settings.rules |= rules_in_use::RATES;
        settings.bans.after = 1;
        settings.bans.address_after = 1;
        settings.bans.within_ns = u64::MAX;
        settings.bans.first_ns = 1 << 40;
        settings.bans.longest_ns = 1 << 40;
    })?;
    for seq in [1000, 2000, 3000] {
        program.connect(&peer, seq)?;
        assert_eq!(program.run(&peer.tcp(ACK, seq, b"no sense\r\n"))?.reason, Reason::BadStartLine);
        assert_eq!(program.run(&peer.udp(b"no sense\r\n"))?.reason, Reason::BadStartLine);
    }
    assert_eq!(program.bans()?, []);
    Ok(())
}

#[test]
fn a_ban_ends_by_itself() -> Result<()> {
    let mut program = Program::shared()?;
    let frame = device().tcp(ACK, 1, b"");
    program.ban("192.0.2.7:40000", 1)?;
    assert_eq!(program.run(&frame)?.reason, Reason::TcpControl, "ended");
    program.ban("192.0.2.7:40000", PERMANENT)?;
    assert_eq!(program.run(&frame)?.reason, Reason::BannedDevice);
    let neighbour = Peer::new("192.0.2.7:40001", "198.51.100.1:5060");
    assert_eq!(program.run(&neighbour.tcp(ACK, 1, b""))?.reason, Reason::TcpControl);
    assert_eq!(program.run(&device().udp(GOOD))?.reason, Reason::Valid, "datagrams are another's");
    let ban = program.bans()?[0].1;
    assert_eq!((ban.packets, ban.bytes), (1, frame.len() as u64));
    Ok(())
}
