//! The frames that are measured.

use anyhow::{Result, ensure};
use sipguard_common::Reason;

use super::stepper::Step;
use crate::{
    packet::{ACK, PSH, Peer, SYN, TCP4},
    program::{Program, XDP_DROP, XDP_PASS},
};

/// The source that sipguard blocks and xdp-filter denies.
pub const BLOCKED: &str = "203.0.113.7";
/// The port that xdp-filter denies; no frame has it.
pub const DENIED_PORT: u16 = 4444;
/// The `limits.body_bytes` of the benchmark: a body that all runs of a round fit in.
pub const BODY_BYTES: u32 = 999_999_999;

const PBX: &str = "10.0.0.1:5060";
/// Sequence number of a connection's first byte.
const FIRST: u32 = 1000;
/// Of Ethernet, IPv4, and TCP with timestamps.
const TCP_HEADERS: usize = TCP4 + 32;

/// A frame, and what is expected of it.
#[derive(Debug)]
pub struct Case {
    /// What it is.
    pub name: &'static str,
    /// The frame as it was one step before the first run.
    pub frame: Vec<u8>,
    /// Length of the TCP or UDP payload in bytes.
    pub payload: usize,
    /// How it moves on from run to run; `None` when all runs see the same.
    pub step: Option<Step>,
    /// What every run is counted as; `None`: whatever lets it pass.
    pub reason: Option<Reason>,
    /// How many times xdp-filter's time it may take; `None`: no target.
    pub target: Option<f64>,
    connection: Option<Connection>,
}

/// What is seen of a connection before its first measured segment.
#[derive(Debug)]
struct Connection {
    peer: Peer,
    head: Vec<u8>,
    /// Whether the PBX acknowledges each segment before the next one comes, as it does unless they come in a burst.
    acknowledged: bool,
}

/// More bytes than a round has.
const AHEAD: u32 = 1 << 30;

impl Case {
    /// All of them.
    pub fn all() -> Vec<Case> {
        let phone = Peer::new("10.0.0.2:40000", PBX);
        let blocked = Peer::new(&format!("{BLOCKED}:40000"), PBX);
        let (register, invite) = (register("TCP", 552 - TCP_HEADERS), invite("TCP", 1071 - TCP_HEADERS));
        let mut caller = phone.clone();
        // Options of a Linux SYN: segment size, SACK, timestamp, window scale.
        caller.options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        let syn = caller.tcp(SYN, FIRST, b"");
        let next_port = Step { word_at: TCP4 as i16, check_at: TCP4 as i16 + 16, by: 1 << 16 };
        vec![
            Case::segment("REGISTER, TCP", b"", &register, 8.0),
            Case::segment("INVITE with SDP, TCP", b"", &invite, 12.0),
            Case::segment("segment of a body, TCP", &large_head(), &[b'b'; 1448], 2.0),
            Case::segment("REGISTER in a burst, TCP", b"", &register, 8.0).in_burst(),
            Case::datagram("REGISTER, UDP", &self::register("UDP", register.len())),
            Case::datagram("INVITE with SDP, UDP", &self::invite("UDP", invite.len())),
            Case {
                reason: Some(Reason::NotGuarded),
                target: Some(1.0),
                ..Case::still("RTP", Peer::new("10.0.0.2:30000", "10.0.0.1:20000").udp(&rtp()), 172)
            },
            Case {
                reason: Some(Reason::TcpControl),
                step: Some(next_port),
                target: Some(1.0),
                ..Case::still("SYN, a new port each", syn.clone(), 0)
            },
            Case {
                reason: Some(Reason::TcpControl),
                step: Some(next_port),
                ..Case::still("SYN, PBX behind a bridge", syn, 0)
            },
            Case {
                reason: Some(Reason::BlockedHost),
                target: Some(1.0),
                ..Case::still(
                    "REGISTER, blocked source",
                    blocked.tcp(ACK | PSH, FIRST, &register),
                    register.len(),
                )
            },
        ]
    }

    /// Segments of one connection, which comes to stand at the first of them by a handshake and `head`.
    fn segment(name: &'static str, head: &[u8], payload: &[u8], target: f64) -> Case {
        let peer = Peer::new("10.0.0.2:40000", PBX);
        let by = payload.len() as u32;
        let frame = peer.tcp(ACK | PSH, FIRST.wrapping_add(head.len() as u32).wrapping_sub(by), payload);
        Case {
            reason: Some(Reason::Valid),
            step: Some(Step { word_at: TCP4 as i16 + 4, check_at: TCP4 as i16 + 16, by: by.cast_signed() }),
            target: Some(target),
            connection: Some(Connection { peer, head: head.to_vec(), acknowledged: true }),
            ..Case::still(name, frame, payload.len())
        }
    }

    /// The same segments, of which the PBX acknowledges none.
    fn in_burst(mut self) -> Case {
        self.target = None;
        if let Some(connection) = &mut self.connection {
            connection.acknowledged = false;
        }
        self
    }

    fn datagram(name: &'static str, payload: &[u8]) -> Case {
        let phone = Peer::new("10.0.0.2:5060", PBX);
        Case::still(name, phone.udp(payload), payload.len())
    }

    fn still(name: &'static str, frame: Vec<u8>, payload: usize) -> Case {
        Case { name, frame, payload, step: None, reason: None, target: None, connection: None }
    }

    /// Whether the frame is a segment of a connection that [`Case::open`] begins.
    pub fn connects(&self) -> bool {
        self.connection.is_some()
    }

    /// Brings sipguard to where the first run finds it; before every round, because a round begins the connection anew.
    pub fn open(&self, program: &mut Program) -> Result<()> {
        let Some(Connection { peer, head, acknowledged }) = &self.connection else { return Ok(()) };
        program.connect(peer, FIRST)?;
        if !head.is_empty() {
            let run = program.run(&peer.tcp(ACK | PSH, FIRST, head))?;
            ensure!(
                run.reason == Reason::Valid,
                "{}: the head of the message is {:?}",
                self.name,
                run.reason
            );
        }
        if *acknowledged {
            // At once for all segments of the round: the program asks only whether one that it recorded was acknowledged.
            program.change_flow(peer, |flow| flow.acked = FIRST.wrapping_add(AHEAD))?;
        }
        Ok(())
    }

    /// XDP's action that both filters must take.
    pub fn action(&self) -> u32 {
        if self.reason == Some(Reason::BlockedHost) { XDP_DROP } else { XDP_PASS }
    }
}

/// A REGISTER of `bytes` bytes. Its Call-ID is as long as it takes.
fn register(transport: &str, bytes: usize) -> Vec<u8> {
    filled(bytes, |call_id| {
        format!(
            "REGISTER sip:pbx.example.com SIP/2.0\r\n\
             Via: SIP/2.0/{transport} 10.0.0.2:5060;branch=z9hG4bK-524287-1---8f2a4c6e;rport\r\n\
             Max-Forwards: 70\r\n\
             Contact: <sip:4711@10.0.0.2:5060;transport={transport}>;expires=300\r\n\
             To: \"4711\" <sip:4711@pbx.example.com>\r\n\
             From: \"4711\" <sip:4711@pbx.example.com>;tag=a73b9c1d\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: 2 REGISTER\r\n\
             Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY\r\n\
             User-Agent: Desk 54 (4.7.11)\r\n\
             Supported: path, gruu\r\n\
             Content-Length: 0\r\n\r\n"
        )
    })
}

/// An INVITE with its SDP, of `bytes` bytes. Its Call-ID is as long as it takes.
pub fn invite(transport: &str, bytes: usize) -> Vec<u8> {
    let sdp = "v=0\r\n\
               o=- 3942871 3942871 IN IP4 10.0.0.2\r\n\
               s=-\r\n\
               c=IN IP4 10.0.0.2\r\n\
               t=0 0\r\n\
               m=audio 20000 RTP/AVP 9 8 0 18 101\r\n\
               a=rtpmap:9 G722/8000\r\n\
               a=rtpmap:8 PCMA/8000\r\n\
               a=rtpmap:0 PCMU/8000\r\n\
               a=rtpmap:18 G729/8000\r\n\
               a=fmtp:18 annexb=no\r\n\
               a=rtpmap:101 telephone-event/8000\r\n\
               a=fmtp:101 0-15\r\n\
               a=ptime:20\r\n\
               a=sendrecv\r\n";
    filled(bytes, |call_id| {
        format!(
            "INVITE sip:4712@pbx.example.com;user=phone SIP/2.0\r\n\
             Via: SIP/2.0/{transport} 10.0.0.2:5060;branch=z9hG4bK-524287-1---1d3f5a7b;rport\r\n\
             Max-Forwards: 70\r\n\
             From: \"4711\" <sip:4711@pbx.example.com>;tag=c0ffee42\r\n\
             To: <sip:4712@pbx.example.com;user=phone>\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: 1 INVITE\r\n\
             Contact: <sip:4711@10.0.0.2:5060;transport={transport}>\r\n\
             Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO, UPDATE\r\n\
             User-Agent: Desk 54 (4.7.11)\r\n\
             Supported: replaces, timer, norefersub, outbound\r\n\
             Session-Expires: 1800;refresher=uac\r\n\
             Min-SE: 90\r\n\
             P-Preferred-Identity: <sip:4711@pbx.example.com>\r\n\
             Accept: application/sdp\r\n\
             Content-Type: application/sdp\r\n\
             Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        )
    })
}

/// The message with the Call-ID that makes it `bytes` long.
fn filled(bytes: usize, message: impl Fn(&str) -> String) -> Vec<u8> {
    let room = bytes.saturating_sub(message("").len());
    let call_id: String = "5f0c6d2e-91ab-4e37-8d".chars().cycle().take(room).collect();
    message(&call_id).into_bytes()
}

fn large_head() -> Vec<u8> {
    format!(
        "MESSAGE sip:4711@pbx.example.com SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n\
         Call-ID: 1\r\nCSeq: 1 MESSAGE\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    )
    .into_bytes()
}

/// 20 ms of G.711.
fn rtp() -> [u8; 172] {
    let mut packet = [0xd5; 172];
    packet[..12].copy_from_slice(&[0x80, 8, 0, 1, 0, 0, 0, 160, 0xca, 0xfe, 0xba, 0xbe]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_have_the_lengths_that_they_are_known_by() {
        let lengths: Vec<_> =
            Case::all().iter().map(|case| (case.name, case.frame.len(), case.payload)).collect();
        assert_eq!(lengths[0], ("REGISTER, TCP", 552, 486));
        assert_eq!(lengths[1], ("INVITE with SDP, TCP", 1071, 1005));
        assert_eq!(lengths[2], ("segment of a body, TCP", 1514, 1448));
        assert_eq!(lengths[3], ("REGISTER in a burst, TCP", 552, 486));
        assert_eq!(lengths[4].2, lengths[0].2);
        assert_eq!(lengths[5].2, lengths[1].2);
        assert_eq!(lengths[6], ("RTP", 214, 172));
    }
}
