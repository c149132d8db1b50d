//! A TCP of our own: it shakes hands as any does, and then sends whatever it is told to.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{
    application::PATIENCE,
    envelope::Envelope,
    lab::Lab,
    packet::{ACK, RST, SYN},
    segment::{Answer, Segment},
};

/// Maximum segment size, selective acknowledgements allowed, a window scale of 7.
const SYN_OPTIONS: [u8; 12] = [2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 1, 1, 1];
/// Frames after which the PBX is waited for: its end of the wire holds 256.
const BURST: u32 = 100;
/// How long an answer is waited for before a SYN is sent again: a second in TCP, and less where there is no distance.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a device tries that may be banned: shorter than [`PATIENCE`], for then nobody answers it.
const TRIED: Duration = Duration::from_secs(10);

/// The device's end of one connection.
pub struct Sender<'a> {
    lab: &'a Lab,
    /// What its segments are sent in.
    pub envelope: Envelope,
    /// Its port and the PBX's.
    pub ports: [u16; 2],
    /// The sequence number of the next byte.
    pub next: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// Its clock for timestamps, one tick a segment.
    pub clock: u32,
    /// The PBX's last timestamp.
    pub echo: u32,
    burst: u32,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(lab: &'a Lab, envelope: Envelope, port: u16, first: u32) -> Self {
        let ports = [port, 5060];
        Self { lab, envelope, ports, next: first, ack: 0, clock: 1_000_000, echo: 0, burst: 0 }
    }

    /// The lab that it is in.
    #[must_use]
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Opens the connection.
    pub fn shake_hands(&mut self) -> Result<()> {
        let syn = self.syn();
        self.send(&syn)?;
        self.take_answer()?;
        let ack = self.segment(&[]);
        self.send(&ack)
    }

    /// The first segment of the handshake.
    pub fn syn(&mut self) -> Segment {
        let mut syn = self.bare(SYN);
        syn.seq = self.next.wrapping_sub(1);
        syn.ack = 0;
        syn.options = SYN_OPTIONS.to_vec();
        syn
    }

    /// Waits for the second segment of the handshake, and sends the first again while it does not come.
    pub fn take_answer(&mut self) -> Result<Answer> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let until = Instant::now() + AGAIN;
            let wanted = |answer: &Answer| answer.flags & (SYN | ACK | RST) == SYN | ACK;
            if let Some(answer) = self.answer(until, wanted)? {
                self.ack = answer.seq.wrapping_add(1);
                self.echo = answer.timestamp;
                return Ok(answer);
            }
            let syn = self.syn();
            self.send(&syn)?;
        }
        bail!("the PBX did not answer port {}", self.ports[0])
    }

    /// Opens the connection although the PBX may still have an earlier one of the same ports: as any TCP does (RFC 9293 section 3.5.1), it
    /// resets what answers its SYN with an ACK. Whatever came before is not looked at.
    pub fn shake_hands_anew(&mut self) -> Result<()> {
        while self.lab.wire.receive(Instant::now())?.is_some() {}
        let end = Instant::now() + TRIED;
        while Instant::now() < end {
            let syn = self.syn();
            self.send(&syn)?;
            let until = Instant::now() + AGAIN;
            while let Some(answer) = self.answer(until, |answer| answer.flags & (ACK | RST) == ACK)? {
                if answer.flags & SYN != 0 && answer.ack == self.next {
                    self.ack = answer.seq.wrapping_add(1);
                    self.echo = answer.timestamp;
                    let ack = self.segment(&[]);
                    return self.send(&ack);
                }
                let mut reset = self.bare(RST);
                (reset.seq, reset.ack, reset.timestamps) = (answer.ack, 0, None);
                self.send(&reset)?;
                let syn = self.syn();
                self.send(&syn)?;
            }
        }
        bail!("the PBX did not answer port {}", self.ports[0])
    }

    /// The second segment of a handshake that the PBX began.
    pub fn syn_ack(&mut self) -> Segment {
        let mut answer = self.bare(SYN | ACK);
        answer.seq = self.next.wrapping_sub(1);
        answer.options = SYN_OPTIONS.to_vec();
        answer
    }

    /// A segment of the PBX to this connection; `None` when none comes until `until`.
    pub fn answer(&self, until: Instant, wanted: impl Fn(&Answer) -> bool) -> Result<Option<Answer>> {
        while let Some(frame) = self.lab.wire.receive(until)? {
            if let Some(answer) = Answer::parse(&frame, self.envelope.from)
                && answer.to_port == self.ports[0]
                && wanted(&answer)
            {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// A segment without payload where the stream stands.
    pub fn bare(&mut self, flags: u8) -> Segment {
        let mut segment = Segment::new(self.envelope.clone(), self.ports, self.next, flags);
        segment.ack = self.ack;
        segment.timestamps = Some([self.clock, self.echo]);
        self.clock += 1;
        segment
    }

    /// A good segment with this payload where the stream stands.
    pub fn segment(&mut self, payload: &[u8]) -> Segment {
        self.bare(ACK).carrying(payload)
    }

    /// The same, `ahead` bytes further on; backwards when it is negative.
    pub fn segment_at(&mut self, ahead: i32, payload: &[u8]) -> Segment {
        let mut segment = self.segment(payload);
        segment.seq = segment.seq.wrapping_add_signed(ahead);
        segment
    }

    /// Sends a segment as it is; the stream stands where it stood.
    pub fn send(&mut self, segment: &Segment) -> Result<()> {
        self.send_frame(&segment.frame())
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.lab.wire.send(frame)?;
        self.burst += 1;
        if self.burst.is_multiple_of(BURST) { self.lab.settle().context("after a burst") } else { Ok(()) }
    }

    /// Sends the next bytes of the stream in one segment.
    pub fn push(&mut self, payload: &[u8]) -> Result<()> {
        let segment = self.segment(payload);
        self.send(&segment)?;
        self.skip(payload.len());
        Ok(())
    }

    /// Goes on in the stream without sending.
    pub fn skip(&mut self, bytes: usize) {
        self.next = self.next.wrapping_add(bytes as u32);
    }
}
