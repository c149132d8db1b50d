//! Legal peers, which nothing of the guard may cut: phones, and the servers that the PBX dials.

use super::pbx::any;
use super::script;
use super::segment::{Clock, Segment, Tuple, before};
use crate::chance::Chance;
use crate::packet::{ACK, FIN, PSH, RST, SYN};

/// Where its connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It has none.
    Closed,
    /// It dialled.
    Dialling,
    /// It answered.
    Answering,
    /// Open.
    Open,
    /// It sent its FIN.
    Closing,
}

/// What it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Dials the PBX, and speaks SIP.
    Phone,
    /// Is dialled, and speaks SIP once it was spoken to.
    Server,
    /// Is dialled, and speaks something else once it was spoken to.
    Foreign,
    /// The same, and speaks first.
    Greeter,
}

/// A legal peer.
pub struct Phone {
    /// Its connection's addresses and ports.
    pub tuple: Tuple,
    /// What it is.
    pub kind: Kind,
    /// Where its connection is.
    pub stage: Stage,
    /// What it sends next.
    pub out: Vec<Segment>,
    /// What it said on this connection.
    pub data: Vec<u8>,
    /// Its first sequence number.
    pub iss: u32,
    /// Whether segments that come again are joined, always: the guard has no record of the parts of a joined one.
    joins: bool,
    same_iss: Option<u32>,
    snd_una: u32,
    rcv_nxt: u32,
    irs: u32,
    /// Where the segments under way end.
    ends: Vec<u32>,
    booted: Option<u32>,
    number: u32,
}

/// Segments under way at the most: as many as the guard can compare when they come again. They come again as they were, or joined.
const UNDER_WAY: usize = 4;

impl Phone {
    /// A phone that is switched off, or a server.
    pub fn new(tuple: Tuple, kind: Kind, chance: &mut Chance) -> Self {
        Phone {
            tuple,
            kind,
            stage: Stage::Closed,
            out: Vec::new(),
            data: Vec::new(),
            iss: 0,
            joins: chance.percent(40),
            same_iss: chance.percent(50).then(|| any(chance)),
            snd_una: 0,
            rcv_nxt: 0,
            irs: 0,
            ends: Vec::new(),
            booted: chance.percent(60).then_some(0),
            number: 0,
        }
    }

    /// The power is off, and comes again with the same port, and the clock begins anew.
    pub fn switch_off(&mut self, now: u32) {
        self.stage = Stage::Closed;
        self.booted = self.booted.map(|_| now);
    }

    /// Dials the PBX.
    pub fn dial(&mut self, now: u32, chance: &mut Chance) {
        self.begin(chance);
        self.stage = Stage::Dialling;
        self.send(now, SYN, self.iss, b"");
    }

    /// Says something more, if it may.
    pub fn speak(&mut self, now: u32, chance: &mut Chance) {
        let spoken_to = self.kind == Kind::Phone || self.kind == Kind::Greeter || self.rcv_nxt != self.irs;
        if self.stage != Stage::Open || !spoken_to || self.ends.len() >= UNDER_WAY {
            return;
        }
        let mut bytes = Vec::new();
        for _ in 0..1 + chance.below(2) {
            self.number += 1;
            bytes.extend(match self.kind {
                Kind::Phone | Kind::Server if chance.percent(20) => b"\r\n\r\n".to_vec(),
                Kind::Phone | Kind::Server => script::request(self.number),
                Kind::Foreign | Kind::Greeter => b"SSH-2.0-other\r\n\0\0\x01\x1f and so on".to_vec(),
            });
        }
        let room = UNDER_WAY - self.ends.len();
        let pieces = 1 + chance.below(room as u32) as usize;
        let size = bytes.len().div_ceil(pieces);
        for piece in bytes.chunks(size) {
            let seq = self.next();
            self.data.extend(piece);
            self.ends.push(self.next());
            self.send(now, ACK | PSH, seq, piece);
        }
    }

    /// Closes.
    pub fn close(&mut self, now: u32) {
        if self.stage == Stage::Open {
            self.stage = Stage::Closing;
            self.send(now, FIN | ACK, self.next(), b"");
        }
    }

    /// Sends again what was not acknowledged.
    pub fn tick(&mut self, now: u32) {
        match self.stage {
            Stage::Closed => {}
            Stage::Dialling => self.send(now, SYN, self.iss, b""),
            Stage::Answering => self.send(now, SYN | ACK, self.iss, b""),
            Stage::Open | Stage::Closing => {
                let mut ends = self.ends.clone();
                if self.joins {
                    ends.drain(..ends.len().saturating_sub(1));
                }
                let mut seq = self.snd_una;
                for end in ends {
                    let data = self.between(seq, end);
                    if !data.is_empty() {
                        self.send(now, ACK | PSH, seq, &data);
                    }
                    seq = end;
                }
                if self.stage == Stage::Closing {
                    self.send(now, FIN | ACK, self.next(), b"");
                }
            }
        }
    }

    /// Whether all that it said was acknowledged.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.stage == Stage::Open && !self.data.is_empty() && self.snd_una == self.next()
    }

    /// A segment of the PBX comes.
    pub fn take(&mut self, segment: &Segment, now: u32, chance: &mut Chance) {
        match self.stage {
            Stage::Closed => self.take_closed(segment, now, chance),
            Stage::Dialling => self.take_answer(segment, now, chance),
            Stage::Answering if segment.has(RST) => {
                if segment.seq == self.rcv_nxt {
                    self.stage = Stage::Closed;
                }
            }
            Stage::Answering if segment.has(SYN) => {
                (self.irs, self.rcv_nxt) = (segment.end(), segment.end());
                self.send(now, SYN | ACK, self.iss, b"");
            }
            Stage::Answering if segment.acknowledged == self.snd_una => {
                self.stage = Stage::Open;
                self.take_open(segment, now);
            }
            Stage::Answering => self.out.push(Segment::new(self.tuple, RST, segment.acknowledged, 0)),
            Stage::Open | Stage::Closing => self.take_open(segment, now),
        }
    }

    fn take_closed(&mut self, segment: &Segment, now: u32, chance: &mut Chance) {
        if segment.has(RST) {
            return;
        }
        if self.kind != Kind::Phone && segment.has(SYN) && !segment.has(ACK) {
            self.begin(chance);
            self.stage = Stage::Answering;
            (self.irs, self.rcv_nxt) = (segment.end(), segment.end());
            return self.send(now, SYN | ACK, self.iss, b"");
        }
        self.refuse(segment);
    }

    fn take_answer(&mut self, segment: &Segment, now: u32, chance: &mut Chance) {
        let fits = segment.has(ACK) && segment.acknowledged == self.iss.wrapping_add(1);
        if segment.has(RST) {
            if fits {
                self.stage = Stage::Closed;
            }
            return;
        }
        if !fits || !segment.has(SYN) {
            // Also what acknowledges its SYN, of a connection that had the same number: it would wait for long.
            return self.refuse(segment);
        }
        self.stage = Stage::Open;
        (self.irs, self.rcv_nxt) = (segment.end(), segment.end());
        // The first bytes may come with the acknowledgement.
        if chance.percent(70) {
            self.send(now, ACK, self.next(), b"");
        } else {
            self.speak(now, chance);
        }
    }

    fn take_open(&mut self, segment: &Segment, now: u32) {
        if segment.has(RST) {
            if segment.seq == self.rcv_nxt {
                self.stage = Stage::Closed;
            }
            return;
        }
        let behind = self.next().wrapping_add(u32::from(self.stage == Stage::Closing));
        if segment.has(SYN) || before(behind, segment.acknowledged) || segment.seq != self.rcv_nxt {
            return self.send(now, ACK, behind, b"");
        }
        if before(self.snd_una, segment.acknowledged) {
            self.snd_una = segment.acknowledged;
            self.ends.retain(|end| before(segment.acknowledged, *end));
        }
        if segment.end() != segment.seq {
            self.rcv_nxt = segment.end();
            self.send(now, ACK, behind, b"");
        }
        if segment.has(FIN) {
            self.close(now);
        }
        if self.stage == Stage::Closing && self.snd_una == behind {
            self.stage = Stage::Closed;
        }
    }

    /// Whether this connection is the one that began with a number of the PBX.
    #[must_use]
    pub fn is_of(&self, pbx_iss: u32) -> bool {
        matches!(self.stage, Stage::Open | Stage::Closing) && self.irs == pbx_iss.wrapping_add(1)
    }

    fn refuse(&mut self, segment: &Segment) {
        if segment.has(ACK) {
            self.out.push(Segment::new(self.tuple, RST, segment.acknowledged, 0));
        } else {
            self.out.push(Segment::new(self.tuple, RST | ACK, 0, segment.end()));
        }
    }

    fn begin(&mut self, chance: &mut Chance) {
        self.iss = self.same_iss.unwrap_or_else(|| any(chance));
        self.snd_una = self.iss.wrapping_add(1);
        self.data.clear();
        self.ends.clear();
    }

    fn next(&self) -> u32 {
        self.iss.wrapping_add(1).wrapping_add(self.data.len() as u32)
    }

    fn between(&self, from: u32, to: u32) -> Vec<u8> {
        let place = |seq: u32| (seq.wrapping_sub(self.iss).wrapping_sub(1) as usize).min(self.data.len());
        self.data.get(place(from)..place(to)).unwrap_or_default().to_vec()
    }

    fn send(&mut self, now: u32, flags: u8, seq: u32, data: &[u8]) {
        let mut segment = Segment::new(self.tuple, flags, seq, self.rcv_nxt);
        if let Some(booted) = self.booted {
            segment.clock = Clock::Usual(now.wrapping_sub(booted) + 1);
        }
        segment.data = data.to_vec();
        self.out.push(segment);
    }
}
