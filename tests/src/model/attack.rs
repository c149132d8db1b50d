//! What attackers send: those with connections, who know all of the guard and of the PBX, and forgers, who do not know what the PBX sent.

use sipguard_common::abi::Flow;

use super::connection::{Connection, State};
use super::pbx::any;
use super::script;
use super::segment::{Clock, Segment, Tuple};
use crate::chance::Chance;
use crate::packet::{ACK, FIN, PSH, RST, SYN};

/// An attacker's connections of one tuple, one after the other.
pub struct Villain {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// Sequence number of the first byte of its stream.
    first: u32,
    /// Its clock, if it has one.
    clock: Option<u32>,
    /// Payload that it sent, on this connection or on one before.
    sent: Vec<(u32, Vec<u8>)>,
}

/// Segments whose payload an attacker sends again.
const REMEMBERED: usize = 12;

impl Villain {
    /// An attacker.
    pub fn new(tuple: Tuple, chance: &mut Chance) -> Self {
        Villain {
            tuple,
            first: any(chance),
            clock: chance.percent(60).then_some(1_000_000),
            sent: Vec::new(),
        }
    }

    /// What it sends next, one segment or several.
    pub fn act(
        &mut self,
        flow: Option<&Flow>,
        pbx: Option<&Connection>,
        chance: &mut Chance,
    ) -> Vec<Segment> {
        self.clock = self.clock.map(|clock| clock + 1 + chance.below(3));
        match pbx.map(|connection| connection.state) {
            None if chance.percent(75) => vec![self.opens(flow, pbx, chance)],
            Some(State::SynSent) if chance.percent(80) => vec![self.answers(flow, pbx, chance)],
            Some(State::SynReceived) if chance.percent(60) => {
                let mut ack = self.plain(ACK, self.first, pbx);
                if chance.percent(40) {
                    ack.data = script::anything(0, chance);
                }
                vec![ack]
            }
            Some(State::TimeWait) if chance.percent(40) => vec![self.opens(flow, pbx, chance)],
            _ if chance.percent(10) => vec![self.opens(flow, pbx, chance)],
            Some(_) if chance.percent(8) => {
                let next = pbx.map_or(self.first, |connection| connection.rcv_nxt);
                vec![self.plain(FIN | ACK, next, pbx)]
            }
            _ => (0..=chance.below(3)).map(|_| self.anything(flow, pbx, chance)).collect(),
        }
    }

    /// The same bytes at the same place once more.
    fn again(&self, pbx: Option<&Connection>, chance: &mut Chance) -> Option<Segment> {
        let (seq, data) = self.sent.get(chance.below(REMEMBERED as u32) as usize)?;
        let mut segment = self.plain(ACK | PSH, *seq, pbx);
        segment.data.clone_from(data);
        Some(segment)
    }

    fn opens(&mut self, flow: Option<&Flow>, pbx: Option<&Connection>, chance: &mut Chance) -> Segment {
        let iss = self.place(flow, pbx, chance);
        self.first = iss.wrapping_add(1);
        let mut syn = self.plain(SYN, iss, None);
        self.bend(&mut syn, chance);
        syn
    }

    fn answers(&mut self, flow: Option<&Flow>, pbx: Option<&Connection>, chance: &mut Chance) -> Segment {
        let iss = self.place(flow, pbx, chance);
        self.first = iss.wrapping_add(1);
        let flags = if chance.percent(80) { SYN | ACK } else { SYN };
        let mut answer = self.plain(flags, iss, pbx);
        self.bend(&mut answer, chance);
        answer
    }

    /// A segment without payload that is right in all else.
    fn plain(&self, flags: u8, seq: u32, pbx: Option<&Connection>) -> Segment {
        let mut segment =
            Segment::new(self.tuple, flags, seq, pbx.map_or(0, |connection| connection.snd_nxt));
        segment.clock = self.clock.map_or(Clock::None, Clock::Usual);
        segment
    }

    fn anything(&mut self, flow: Option<&Flow>, pbx: Option<&Connection>, chance: &mut Chance) -> Segment {
        if chance.percent(15)
            && let Some(mut segment) = self.again(pbx, chance)
        {
            self.bend(&mut segment, chance);
            return segment;
        }
        let seq = self.place(flow, pbx, chance);
        let flags = match chance.below(100) {
            0..74 => ACK | PSH,
            74..84 => ACK | FIN,
            84..88 => RST,
            88..91 => RST | ACK,
            91..95 => SYN,
            95..99 => SYN | ACK,
            _ => PSH,
        };
        let mut segment = self.plain(flags, seq, pbx);
        if flags & SYN == 0 && chance.percent(if flags & RST == 0 { 92 } else { 20 }) {
            let began = pbx.filter(|connection| connection.rcv_nxt != 0).map(|connection| connection.irs);
            let first = match flow {
                Some(flow) if chance.percent(10) => flow.first,
                _ => began.map_or(self.first, |irs| irs.wrapping_add(1)),
            };
            segment.data = script::anything(seq.wrapping_sub(first), chance);
            if self.sent.len() == REMEMBERED {
                self.sent.remove(0);
            }
            self.sent.push((seq, segment.data.clone()));
        }
        self.bend(&mut segment, chance);
        segment
    }

    /// Makes something wrong, or not.
    fn bend(&self, segment: &mut Segment, chance: &mut Chance) {
        segment.damaged = chance.percent(7);
        let right = segment.acknowledged;
        segment.acknowledged = match chance.below(40) {
            0 => any(chance),
            1 => right.wrapping_add(1),
            2 => right.wrapping_sub(1),
            3 => right.wrapping_sub(1 + chance.below(1 << 18)),
            4 => right.wrapping_add(chance.below(1 << 18)),
            _ => right,
        };
        let now = self.clock.unwrap_or(1);
        match chance.below(20) {
            0 => segment.clock = Clock::None,
            1 => segment.clock = Clock::Usual(now.wrapping_sub(1 + chance.below(2000))),
            2 => segment.clock = Clock::Usual(now.wrapping_add(chance.below(1 << 20))),
            3 => segment.clock = Clock::Odd(now),
            4 => segment.clock = Clock::Odd(now.wrapping_sub(1 + chance.below(2000))),
            5 => segment.clock = Clock::Usual(any(chance)),
            _ => {}
        }
    }

    fn place(&self, flow: Option<&Flow>, pbx: Option<&Connection>, chance: &mut Chance) -> u32 {
        let known = pbx.filter(|connection| connection.rcv_nxt != 0);
        let receiver = known.map_or(self.first, |connection| connection.rcv_nxt);
        if chance.percent(30) {
            return receiver;
        }
        place_of(flow, chance).unwrap_or_else(|| match chance.below(6) {
            0 => known.map_or(self.first, |connection| connection.irs),
            1 => known.map_or(self.first, |connection| connection.told),
            2 => self.first,
            3 => self.first.wrapping_sub(1),
            _ => receiver.wrapping_add(chance.below(200)).wrapping_sub(100),
        })
    }
}

/// A place in the sequence that means something to the guard; sometimes none, and sometimes any.
fn place_of(flow: Option<&Flow>, chance: &mut Chance) -> Option<u32> {
    if chance.percent(3) {
        return Some(any(chance));
    }
    let flow = flow?;
    Some(match chance.below(24) {
        0..8 => flow.next,
        8 => flow.next.wrapping_sub(1),
        9 => flow.next.wrapping_add(1),
        10 => flow.next.wrapping_add(1 << 31),
        11 => flow.first,
        12 => flow.first.wrapping_sub(1),
        13 | 14 => flow.acked,
        15 => flow.next.wrapping_add(chance.below(1 << 17)),
        16 => flow.next.wrapping_sub(chance.below(1 << 17)),
        17..21 => flow.segments[chance.below(flow.segments.len() as u32) as usize].seq,
        21 => (flow.pending_handshake >> 32) as u32,
        _ => return None,
    })
}

/// What a stranger sends in another's name: it may know the ports and where the stream is, and never what the PBX sent.
pub fn forged(tuple: Tuple, flow: Option<&Flow>, pbx: Option<&Connection>, chance: &mut Chance) -> Segment {
    let seq = match pbx {
        Some(connection) if chance.percent(40) => connection.rcv_nxt,
        _ => place_of(flow, chance).unwrap_or_else(|| any(chance)),
    };
    let flags = match chance.below(20) {
        0..4 => SYN,
        4..13 => ACK | PSH,
        13..15 => ACK | FIN,
        15 | 16 => RST,
        17 => RST | ACK,
        _ => SYN | ACK,
    };
    let mut acknowledged = any(chance);
    // Nobody guesses it: what lies near enough to be taken does so in one of many thousand attempts.
    let sent = [pbx.map(|connection| connection.snd_nxt), flow.map(|flow| flow.sent)];
    for sent in sent.into_iter().flatten() {
        if acknowledged.wrapping_sub(sent).wrapping_add(1 << 18) < 1 << 19 {
            acknowledged = sent.wrapping_add(1 << 30);
        }
    }
    let mut segment = Segment::new(tuple, flags, seq, acknowledged);
    if flags & (SYN | RST) == 0 && chance.percent(85) {
        segment.data = script::anything(chance.below(2000), chance);
    }
    segment.damaged = chance.percent(5);
    segment.clock = match chance.below(3) {
        // With the victim's own first number it would make the PBX refuse the victim's clock, guard or not.
        _ if flags == SYN => Clock::None,
        0 => Clock::None,
        1 => Clock::Usual(any(chance)),
        _ => Clock::Odd(any(chance)),
    };
    segment
}
