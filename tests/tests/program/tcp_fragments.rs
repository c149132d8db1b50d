//! First fragments that show little more than the ports.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, IP, Peer, TCP4, sum};
use sipguard_tests::program::{Program, device};

/// TCP in IP fragments: for a guarded port or a connection that the PBX dialled the first one is dropped, without which no receiver puts the
/// others together. What is of another service passes, however small it is.
#[test]
fn tcp_in_fragments() -> Result<()> {
    let first_part = |frame: &[u8], bytes: usize| {
        let mut frame = frame[..TCP4 + bytes].to_vec();
        let total = (frame.len() - IP) as u16;
        frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
        frame[IP + 6] = 0x20;
        frame[IP + 10..IP + 12].fill(0);
        let checksum = !sum(&frame[IP..IP + 20]);
        frame[IP + 10..IP + 12].copy_from_slice(&checksum.to_be_bytes());
        frame
    };
    let mut program = Program::shared()?;
    let trunk = Peer::new("192.0.2.9:5060", "198.51.100.1:33000");
    let other = Peer::new("192.0.2.9:15060", "198.51.100.1:5070");
    program.dial(&trunk, 1000, OPTIONS)?;
    program.dial(&other, 1000, OPTIONS)?;
    for bytes in [8, 16, 24, 40] {
        for (peer, reason) in [
            (&device(), Reason::TcpFragment),
            (&trunk, Reason::TcpFragment),
            (&other, Reason::TcpFragment),
            (&Peer::new("192.0.2.7:40000", "198.51.100.1:443"), Reason::NotGuarded),
            // Whom the PBX has not dialled.
            (&Peer::new("192.0.2.8:5060", "198.51.100.1:33001"), Reason::NotGuarded),
        ] {
            let run = program.run(&first_part(&peer.tcp(ACK, 1000, OPTIONS), bytes))?;
            assert_eq!(run.reason, reason, "{bytes} bytes from {} to {}", peer.remote, peer.local);
        }
    }
    Ok(())
}

/// A first fragment of UDP that shows nothing but its ports.
#[test]
fn tiny_fragments_of_other_services() -> Result<()> {
    for (local, reason) in
        [("198.51.100.1:53", Reason::NotGuarded), ("198.51.100.1:5060", Reason::TinyFragment)]
    {
        let peer = Peer::new("192.0.2.7:40000", local);
        for size in [8, 16] {
            let parts = peer.udp_fragments(OPTIONS, size);
            let mut program = Program::shared()?;
            assert_eq!(program.run(&parts[0])?.reason, reason, "{local}, {size} bytes");
        }
    }
    Ok(())
}
