//! A SYN with payload (TCP Fast Open) goes on without it.

use anyhow::{Context as _, Result};
use sipguard_common::Reason;
use sipguard_common::abi::MODE_MONITOR;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, IP, PBX_NEXT, Peer, SYN, sum, tcp_sum};
use sipguard_tests::program::{Program, XDP_DROP, XDP_PASS};

/// What the receiver takes of a frame: as much as the IP header says.
fn received(frame: &[u8], tags: u8) -> Result<&[u8]> {
    let ip = IP + usize::from(tags) * 4;
    let half = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let len = if frame[ip] >> 4 == 4 { half(ip + 2) } else { 40 + half(ip + 4) };
    frame.get(..ip + len).context("a length beyond the frame")
}

#[test]
fn the_payload_is_cut_off() -> Result<()> {
    let cookie = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    for (remote, local) in
        [("192.0.2.7:40000", "198.51.100.1:5060"), ("[2001:db8::7]:40000", "[2001:db8::1]:5060")]
    {
        for (tags, options, payload) in [
            (0, &cookie[..], OPTIONS),
            (0, &[], b"x"),
            (1, &cookie, &[0xff; 1000]),
            (2, &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7], OPTIONS),
        ] {
            let mut peer = Peer::new(remote, local);
            peer.tags = tags;
            peer.options = options.to_vec();
            let sent = peer.tcp(SYN, 1000, payload);
            let mut program = Program::shared()?;
            let run = program.run(&sent)?;
            assert_eq!((run.reason, run.action), (Reason::TcpControl, XDP_PASS));
            assert_eq!(run.frame.len(), sent.len(), "the frame stays as long");
            let (at, whole) = (peer.tcp_at(), received(&run.frame, tags)?);
            assert_eq!(whole.len(), sent.len() - payload.len(), "and ends before the payload");
            let plain = peer.tcp(SYN, 1000, b"");
            assert_eq!(whole[at..], plain[at..], "a SYN as it would be without");
            assert_eq!(tcp_sum(peer.remote.ip(), peer.local.ip(), &whole[at..]), 0xffff);
            if peer.remote.ip().is_ipv4() {
                let ip = IP + usize::from(tags) * 4;
                assert_eq!(sum(&whole[ip..ip + 20]), 0xffff, "the header's checksum");
            }
            // The handshake goes on, and the stream begins behind the SYN.
            program.leave(&peer.answer(1001))?;
            program.run(&peer.tcp(ACK, 1001, b""))?;
            assert_eq!(program.run(&peer.tcp(ACK, 1001, OPTIONS))?.reason, Reason::Valid);
        }
    }
    Ok(())
}

/// A checksum that hardware is to complete stays one, and a wrong one is not made right.
#[test]
fn its_checksum() -> Result<()> {
    let peer = Peer::new("192.0.2.7:40000", "198.51.100.1:5060");
    let mut program = Program::shared()?;
    let mut frame = peer.tcp(SYN, 1000, OPTIONS);
    frame[peer.tcp_at() + 4] ^= 1;
    let run = program.run(&frame)?;
    assert_eq!((run.reason, run.action), (Reason::BadChecksum, XDP_DROP));
    let pseudo = |len: usize| {
        let mut bytes = vec![192, 0, 2, 7, 198, 51, 100, 1, 0, 6];
        bytes.extend((len as u16).to_be_bytes());
        sum(&bytes).to_be_bytes()
    };
    let at = peer.tcp_at();
    let mut frame = peer.tcp(SYN, 1000, OPTIONS);
    let header = frame.len() - at - OPTIONS.len();
    frame[at + 16..at + 18].copy_from_slice(&pseudo(header + OPTIONS.len()));
    let run = program.run(&frame)?;
    assert_eq!((run.reason, run.action), (Reason::TcpControl, XDP_PASS));
    assert_eq!(run.frame[at + 16..at + 18], pseudo(header));
    Ok(())
}

/// A SYN-ACK with payload of who is dialled, and a SYN to a port that is not guarded.
#[test]
fn others() -> Result<()> {
    let mut program = Program::shared()?;
    let unguarded = Peer::new("192.0.2.7:40000", "198.51.100.1:443").tcp(SYN, 1000, b"hello");
    let run = program.run(&unguarded)?;
    assert_eq!((run.reason, run.action), (Reason::NotGuarded, XDP_PASS));
    assert_eq!(run.frame, unguarded);
    let trunk = Peer::new("192.0.2.9:5060", "198.51.100.1:33000");
    program.leave(&trunk.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
    let run = program.run(&trunk.tcp(SYN | ACK, 1000, OPTIONS))?;
    assert_eq!(run.action, XDP_PASS);
    assert_eq!(received(&run.frame, 0)?.len(), run.frame.len() - OPTIONS.len());
    Ok(())
}

/// Monitor mode changes no frame.
#[test]
fn in_monitor_mode() -> Result<()> {
    let mut program = Program::shared()?;
    program.change(|settings| settings.mode = MODE_MONITOR)?;
    let sent = Peer::new("192.0.2.7:40000", "198.51.100.1:5060").tcp(SYN, 1000, OPTIONS);
    let run = program.run(&sent)?;
    assert_eq!((run.reason, run.action), (Reason::SynData, XDP_PASS));
    assert_eq!(run.frame, sent);
    Ok(())
}
