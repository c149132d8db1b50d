//! A TCP segment, and the frame of Ethernet and IPv4 that it is on the wire.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use sipguard_common::abi::FlowKey;
use sipguard_common::wire::tcp;

use crate::packet::{ACK, FIN, PSH, RST, SYN, TCP4, sum, tcp_sum};

/// Offset of the TCP header in the frame.
const TCP_AT: usize = TCP4;

/// Addresses and ports of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tuple {
    /// Device or trunk.
    pub remote: (Ipv4Addr, u16),
    /// PBX.
    pub local: (Ipv4Addr, u16),
}

impl Tuple {
    /// The key of the guard's maps.
    #[must_use]
    pub fn key(&self) -> FlowKey {
        FlowKey {
            remote: self.remote.0.to_ipv6_mapped().octets(),
            local: self.local.0.to_ipv6_mapped().octets(),
            remote_port: self.remote.1.to_be_bytes(),
            local_port: self.local.1.to_be_bytes(),
        }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((remote, from), (local, to)) = (self.remote, self.local);
        write!(f, "{remote}:{from} - {local}:{to}")
    }
}

/// The timestamp option of a segment (RFC 7323).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// There is none.
    None,
    /// Laid out as nearly everyone does (appendix A).
    Usual(u32),
    /// Behind four bytes of no operation.
    Odd(u32),
}

impl Clock {
    /// Its value.
    #[must_use]
    pub fn value(self) -> Option<u32> {
        match self {
            Clock::None => None,
            Clock::Usual(value) | Clock::Odd(value) => Some(value),
        }
    }

    fn options(self) -> Vec<u8> {
        let Some(value) = self.value() else { return Vec::new() };
        let before: &[u8] = if matches!(self, Clock::Odd(_)) { &[1; 6] } else { &[1; 2] };
        [before, &[8, 10], &value.to_be_bytes(), &[0, 0, 0, 2]].concat()
    }
}

/// A segment, in either direction.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its connection.
    pub tuple: Tuple,
    /// As in the header.
    pub flags: u8,
    /// Its sequence number.
    pub seq: u32,
    /// What it acknowledges, when it has an ACK.
    pub acknowledged: u32,
    /// Its timestamp.
    pub clock: Clock,
    /// Its payload.
    pub data: Vec<u8>,
    /// Whether its checksum is wrong.
    pub damaged: bool,
}

impl Segment {
    /// A segment without payload.
    #[must_use]
    pub fn new(tuple: Tuple, flags: u8, seq: u32, acknowledged: u32) -> Self {
        Segment { tuple, flags, seq, acknowledged, clock: Clock::None, data: Vec::new(), damaged: false }
    }

    /// Whether one of the flags is set.
    #[must_use]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The sequence number behind it.
    #[must_use]
    pub fn end(&self) -> u32 {
        let control = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.data.len() as u32).wrapping_add(control)
    }

    /// The frame, `inward` when it is for the PBX.
    #[must_use]
    pub fn frame(&self, inward: bool) -> Vec<u8> {
        let (from, to) = self.ends(inward);
        let options = self.clock.options();
        let header = 20 + options.len();
        let mut frame = Vec::with_capacity(TCP_AT + header + self.data.len());
        frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        frame.extend([0x45, 0]);
        frame.extend(((20 + header + self.data.len()) as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(from.0.octets());
        frame.extend(to.0.octets());
        let checksum = !sum(&frame[14..]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(from.1.to_be_bytes());
        frame.extend(to.1.to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(if self.has(ACK) { self.acknowledged } else { 0 }.to_be_bytes());
        frame.extend([(header as u8 / 4) << 4, self.flags, 0xfa, 0, 0, 0, 0, 0]);
        frame.extend(options);
        frame.extend(&self.data);
        let checksum = !tcp_sum(from.0.into(), to.0.into(), &frame[TCP_AT..]) ^ u16::from(self.damaged);
        frame[TCP_AT + tcp::CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// What a frame for the PBX became that was this segment.
    ///
    /// # Errors
    /// When more was changed than a reset changes.
    pub fn changed(&self, frame: &[u8]) -> Result<Segment> {
        let was = self.frame(true);
        let word = |at: usize| frame.get(at..at + 4).and_then(|word| word.try_into().ok());
        let seq = u32::from_be_bytes(word(TCP_AT + tcp::SEQ).context("a frame without header")?);
        let mut expected = was.clone();
        expected[TCP_AT + tcp::SEQ..][..4].copy_from_slice(&seq.to_be_bytes());
        expected[TCP_AT + tcp::FLAGS] = RST | ACK;
        expected[TCP_AT + tcp::CHECKSUM..][..2].copy_from_slice(&frame[TCP_AT + tcp::CHECKSUM..][..2]);
        ensure!(frame == expected, "a reset changes number, flags and checksum alone");
        let (from, to) = self.ends(true);
        let right = tcp_sum(from.0.into(), to.0.into(), &frame[TCP_AT..]) == 0xffff;
        // One in many thousand checksums looks like one that somebody else is to finish, and stays.
        let kept = frame[TCP_AT + tcp::CHECKSUM..][..2] == was[TCP_AT + tcp::CHECKSUM..][..2];
        ensure!(right != self.damaged || kept, "the checksum of the reset");
        Ok(Segment { flags: RST | ACK, seq, damaged: !right, ..self.clone() })
    }

    fn ends(&self, inward: bool) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
        let Tuple { remote, local } = self.tuple;
        if inward { (remote, local) } else { (local, remote) }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, name) in [(SYN, "SYN "), (FIN, "FIN "), (RST, "RST "), (PSH, "PSH "), (ACK, "ACK ")] {
            write!(f, "{}", if self.has(flag) { name } else { "" })?;
        }
        write!(f, "{}", self.seq)?;
        if self.has(ACK) {
            write!(f, " acknowledges {}", self.acknowledged)?;
        }
        if self.clock != Clock::None {
            write!(f, " {:?}", self.clock)?;
        }
        write!(f, "{}", if self.damaged { " DAMAGED" } else { "" })?;
        if !self.data.is_empty() {
            write!(f, " {} B \"{}\"", self.data.len(), self.data.escape_ascii())?;
        }
        Ok(())
    }
}

/// Whether `a` lies before `b` in the sequence.
#[must_use]
pub fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}
