//! One connection of the PBX: a receiver by RFC 9293, 5961 and 7323, with Linux's choices where they leave one.

use sipguard_common::framer::{Buffer, Limits, Stream, feed};

use super::segment::{Clock, Segment, Tuple, before};
use crate::chance::Chance;
use crate::packet::{ACK, FIN, PSH, RST, SYN};

/// The receive window, in bytes.
pub const WINDOW: u32 = 60_000;
/// The largest window of a peer, in bytes: how old an acknowledgement may be.
const PEER_WINDOW: u32 = 65_535;

/// The states of RFC 9293 section 3.3.2, those without a connection left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Answered.
    SynReceived,
    /// Dialled.
    SynSent,
    /// Open.
    Established,
    /// The PBX closed first.
    FinWait1,
    /// And its FIN was acknowledged.
    FinWait2,
    /// Both closed at once.
    Closing,
    /// The peer closed first.
    CloseWait,
    /// And the PBX then.
    LastAck,
    /// Over, but for what comes late.
    TimeWait,
}

/// Whether what the application reads must be well-formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// From the first byte on.
    Made,
    /// As [`Promise::Made`], until so much time has passed that the peer may speak first.
    Held,
    /// When the application speaks SIP before it has read anything.
    Waits,
    /// No: it is not guarded, or the guard does not know it.
    None,
}

/// A connection.
#[derive(Clone)]
pub struct Connection {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// Where it is in its life.
    pub state: State,
    /// Whether the PBX began it.
    pub dialled: bool,
    /// Initial sequence number of the PBX.
    pub iss: u32,
    /// First byte that is not acknowledged.
    pub snd_una: u32,
    /// Next byte to send.
    pub snd_nxt: u32,
    /// Initial sequence number of the peer.
    pub irs: u32,
    /// Next byte to take.
    pub rcv_nxt: u32,
    /// What was acknowledged last.
    pub told: u32,
    /// Whether an acknowledgement is due.
    pub owes: bool,
    /// The peer's clock, when both sides have one.
    pub recent: Option<u32>,
    /// What the application said.
    pub said: Vec<u8>,
    /// What the application read.
    pub read: Vec<u8>,
    /// What is promised of it.
    pub promise: Promise,
    /// Whether of two segments with the same place in the sequence the later one counts.
    later_counts: bool,
    ahead: Vec<(u32, Vec<u8>)>,
    fin_at: Option<u32>,
    framer: Stream,
}

/// What a segment did.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// It goes on.
    Stays,
    /// The connection is gone.
    Ends,
    /// The application read a byte that no guarded application may read.
    Malformed(String),
}

impl Connection {
    /// A connection in its first state.
    #[must_use]
    pub fn new(tuple: Tuple, state: State, iss: u32, later_counts: bool) -> Self {
        Connection {
            tuple,
            state,
            dialled: state == State::SynSent,
            iss,
            snd_una: iss,
            snd_nxt: iss.wrapping_add(1),
            irs: 0,
            rcv_nxt: 0,
            told: 0,
            owes: false,
            recent: None,
            said: Vec::new(),
            read: Vec::new(),
            promise: Promise::Made,
            later_counts,
            ahead: Vec::new(),
            fin_at: None,
            framer: Stream::NEW,
        }
    }

    /// A segment of it, which acknowledges all that came.
    pub fn speak(&mut self, flags: u8, seq: u32, data: &[u8]) -> Segment {
        self.owes = false;
        self.told = self.rcv_nxt;
        let mut segment = Segment::new(self.tuple, flags, seq, self.rcv_nxt);
        if self.recent.is_some() {
            segment.clock = Clock::Usual(7);
        }
        segment.data = data.to_vec();
        segment
    }

    /// An acknowledgement.
    pub fn acknowledge(&mut self) -> Segment {
        self.speak(ACK, self.snd_nxt, b"")
    }

    /// Its answer to a SYN.
    pub fn answer(&mut self) -> Segment {
        self.speak(SYN | ACK, self.iss, b"")
    }

    /// The application says something.
    pub fn say(&mut self, data: &[u8]) -> Segment {
        let segment = self.speak(ACK | PSH, self.snd_nxt, data);
        self.snd_nxt = segment.end();
        self.said.extend(data);
        segment
    }

    /// Whether the application can say something.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Established | State::CloseWait)
    }

    /// Whether nothing came that the application read or is to read.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.read.is_empty() && self.ahead.is_empty()
    }

    /// The application closes.
    pub fn close(&mut self) -> Option<Segment> {
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            _ => return None,
        };
        let segment = self.speak(FIN | ACK, self.snd_nxt, b"");
        self.snd_nxt = segment.end();
        Some(segment)
    }

    /// What a timer makes it send again.
    pub fn repeat(&mut self) -> Option<Segment> {
        match self.state {
            State::SynReceived => return Some(self.answer()),
            State::SynSent => return Some(Segment::new(self.tuple, SYN, self.iss, 0)),
            State::TimeWait => return None,
            _ => {}
        }
        if self.snd_una == self.snd_nxt {
            return self.owes.then(|| self.acknowledge());
        }
        let from = self.snd_una.wrapping_sub(self.iss).wrapping_sub(1) as usize;
        let closed = matches!(self.state, State::FinWait1 | State::LastAck | State::Closing);
        let flags = ACK | if closed { FIN } else { 0 };
        let data = self.said[from.min(self.said.len())..].to_vec();
        Some(self.speak(flags, self.snd_una, &data))
    }

    /// Whether a timestamp is older than the last one (RFC 7323 section 5.3; Linux forgives one tick).
    #[must_use]
    pub fn is_stale(&self, segment: &Segment) -> bool {
        let (Some(recent), Some(value)) = (self.recent, segment.clock.value()) else { return false };
        recent.wrapping_sub(value).cast_signed() > 1
    }

    /// What comes on a connection that both sides know.
    pub fn take(&mut self, segment: &Segment, out: &mut Vec<Segment>, chance: &mut Chance) -> Effect {
        if self.is_stale(segment) && !segment.has(RST) {
            out.push(self.acknowledge());
            return Effect::Stays;
        }
        let beyond = self.rcv_nxt.wrapping_add(WINDOW);
        if before(segment.end(), self.told) || before(beyond, segment.seq) {
            if !segment.has(RST) {
                out.push(self.acknowledge());
            }
            return Effect::Stays;
        }
        if segment.has(RST) {
            if segment.seq == self.rcv_nxt {
                return Effect::Ends;
            }
            out.push(self.acknowledge());
            return Effect::Stays;
        }
        let repeats_answer = self.state == State::SynReceived
            && segment.has(ACK)
            && segment.end() == self.rcv_nxt
            && segment.acknowledged == self.snd_nxt;
        if segment.has(SYN) && !repeats_answer {
            out.push(self.acknowledge());
            return Effect::Stays;
        }
        if !segment.has(ACK) {
            return Effect::Stays;
        }
        if let Some(effect) = self.take_acknowledgement(segment, out) {
            return effect;
        }
        self.take_data(segment, out, chance)
    }

    /// `Some` when nothing more is to be looked at.
    fn take_acknowledgement(&mut self, segment: &Segment, out: &mut Vec<Segment>) -> Option<Effect> {
        let acknowledged = segment.acknowledged;
        let old = before(acknowledged, self.snd_una);
        let impossible = before(self.snd_nxt, acknowledged)
            || before(acknowledged, self.snd_una.wrapping_sub(PEER_WINDOW))
            || old && !matches!(self.state, State::Established | State::CloseWait);
        if self.state == State::SynReceived && (old || impossible || acknowledged == self.iss) {
            out.push(Segment::new(self.tuple, RST, acknowledged, 0));
            return Some(Effect::Stays);
        }
        if impossible {
            out.push(self.acknowledge());
            return Some(Effect::Stays);
        }
        if self.recent.is_some()
            && !before(self.told, segment.seq)
            && let Some(value) = segment.clock.value()
        {
            self.recent = Some(value);
        }
        if !old {
            self.snd_una = acknowledged;
        }
        let all = self.snd_una == self.snd_nxt;
        match self.state {
            State::SynReceived => self.state = State::Established,
            State::FinWait1 if all => self.state = State::FinWait2,
            State::Closing if all => self.state = State::TimeWait,
            State::LastAck if all => return Some(Effect::Ends),
            _ => {}
        }
        None
    }

    fn take_data(&mut self, segment: &Segment, out: &mut Vec<Segment>, chance: &mut Chance) -> Effect {
        let behind = segment.seq.wrapping_add(segment.data.len() as u32);
        let new = before(self.rcv_nxt, behind);
        match self.state {
            State::Established => {}
            State::FinWait1 | State::FinWait2 if segment.data.is_empty() || !new => {}
            State::FinWait1 | State::FinWait2 => {
                // Nobody is there to read it.
                out.push(Segment::new(self.tuple, RST, self.snd_nxt, 0));
                return Effect::Ends;
            }
            _ => {
                if segment.has(FIN) {
                    out.push(self.acknowledge());
                }
                return Effect::Stays;
            }
        }
        if segment.data.is_empty() && !segment.has(FIN) {
            return Effect::Stays;
        }
        if segment.has(FIN)
            && !before(behind, self.rcv_nxt)
            && self.fin_at.is_none_or(|at| before(behind, at))
        {
            self.fin_at = Some(behind);
        }
        let was = self.rcv_nxt;
        if new {
            let place = if self.later_counts { 0 } else { self.ahead.len() };
            self.ahead.insert(place, (segment.seq, segment.data.clone()));
        }
        let effect = self.read();
        self.finish();
        if self.rcv_nxt == was || self.fin_at.is_none() && !self.ahead.is_empty() || chance.percent(60) {
            out.push(self.acknowledge());
        } else {
            self.owes = true;
        }
        effect
    }

    /// Reads what is there in order.
    fn read(&mut self) -> Effect {
        let mut fresh = Vec::new();
        while let Some((seq, data)) = self.ahead.iter().find(|(seq, data)| {
            !before(self.rcv_nxt, *seq) && before(self.rcv_nxt, seq.wrapping_add(data.len() as u32))
        }) {
            // A byte at a time: of two segments at a place the first of the list counts.
            fresh.push(data[self.rcv_nxt.wrapping_sub(*seq) as usize]);
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            if self.fin_at == Some(self.rcv_nxt) {
                break;
            }
        }
        let next = self.rcv_nxt;
        self.ahead.retain(|(seq, data)| before(next, seq.wrapping_add(data.len() as u32)));
        if fresh.is_empty() {
            return Effect::Stays;
        }
        self.read.extend(&fresh);
        if self.promise == Promise::None {
            return Effect::Stays;
        }
        let mut buffer = Buffer::NEW;
        let verdict = feed(&mut self.framer, &Limits::default(), &mut buffer, &fresh);
        match (verdict, self.promise) {
            (Err(fault), Promise::Made | Promise::Held) => Effect::Malformed(format!(
                "the application read a malformed stream ({}) of {} bytes, the last of which are \"{}\"",
                fault.reason.name(),
                self.read.len(),
                self.read[self.read.len().saturating_sub(fresh.len() + 100)..].escape_ascii()
            )),
            (Err(_), _) => {
                self.promise = Promise::None;
                Effect::Stays
            }
            (Ok(()), _) => Effect::Stays,
        }
    }

    fn finish(&mut self) {
        if self.fin_at != Some(self.rcv_nxt) {
            return;
        }
        self.state = match self.state {
            State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            state => state,
        };
        self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        self.fin_at = None;
        self.ahead.clear();
    }
}
