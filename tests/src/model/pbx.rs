//! The PBX: its connections, and what it does with segments of none.

use super::connection::{Connection, Effect, Promise, State, WINDOW};
use super::segment::{Clock, Segment, Tuple, before};
use crate::chance::Chance;
use crate::packet::{ACK, FIN, RST, SYN};

/// The port that it listens on.
pub const LISTENS: u16 = 5060;

/// Its side of every connection.
#[derive(Default)]
pub struct Pbx {
    /// The connections, one a tuple.
    pub connections: Vec<Connection>,
    /// What it sends next.
    pub out: Vec<Segment>,
    /// Whether later segments count, see [`Connection::new`].
    pub later_counts: bool,
}

/// A number of 32 bits.
pub fn any(chance: &mut Chance) -> u32 {
    chance.below(1 << 16) << 16 | chance.below(1 << 16)
}

/// The reset that answers a segment of no connection (RFC 9293 section 3.5.2).
fn refusal(segment: &Segment) -> Segment {
    if segment.has(ACK) {
        Segment::new(segment.tuple, RST, segment.acknowledged, 0)
    } else {
        Segment::new(segment.tuple, RST | ACK, 0, segment.end())
    }
}

impl Pbx {
    /// The connection of a tuple.
    pub fn find(&mut self, tuple: Tuple) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.tuple == tuple)
    }

    /// The same, to look at.
    #[must_use]
    pub fn look(&self, tuple: Tuple) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.tuple == tuple)
    }

    /// Forgets a connection without a word.
    pub fn remove(&mut self, tuple: Tuple) {
        if let Some(at) = self.connections.iter().position(|connection| connection.tuple == tuple) {
            self.connections.swap_remove(at);
        }
    }

    /// A segment comes in. `Err` says what the application read that it may not.
    pub fn take(&mut self, segment: &Segment, chance: &mut Chance) -> Result<(), String> {
        if segment.damaged {
            return Ok(());
        }
        let Some(state) = self.look(segment.tuple).map(|connection| connection.state) else {
            self.nobody(segment, chance);
            return Ok(());
        };
        match state {
            State::SynSent => self.dialled(segment),
            State::TimeWait => self.late(segment),
            State::SynReceived => {
                if self.completes(segment) {
                    return self.open(segment, chance);
                }
            }
            _ => return self.open(segment, chance),
        }
        Ok(())
    }

    /// It dials, unless it has such a connection.
    pub fn dial(&mut self, tuple: Tuple, promise: Promise, chance: &mut Chance) {
        if self.look(tuple).is_some() {
            return;
        }
        let mut connection = Connection::new(tuple, State::SynSent, any(chance), self.later_counts);
        connection.promise = promise;
        connection.recent = Some(0);
        self.out.push(Segment::new(tuple, SYN, connection.iss, 0));
        self.connections.push(connection);
    }

    /// The application resets a connection.
    pub fn abort(&mut self, tuple: Tuple) {
        let Some(connection) = self.find(tuple) else { return };
        if matches!(connection.state, State::SynReceived | State::SynSent | State::TimeWait) {
            return;
        }
        let segment = connection.speak(RST | ACK, connection.snd_nxt, b"");
        self.out.push(segment);
        self.remove(tuple);
    }

    fn open(&mut self, segment: &Segment, chance: &mut Chance) -> Result<(), String> {
        let mut out = std::mem::take(&mut self.out);
        let effect = match self.find(segment.tuple) {
            Some(connection) => connection.take(segment, &mut out, chance),
            None => Effect::Stays,
        };
        self.out = out;
        match effect {
            Effect::Stays => Ok(()),
            Effect::Ends => {
                self.remove(segment.tuple);
                Ok(())
            }
            Effect::Malformed(text) => Err(text),
        }
    }

    /// A segment of no connection.
    fn nobody(&mut self, segment: &Segment, chance: &mut Chance) {
        if segment.has(RST) {
            return;
        }
        if segment.has(SYN) && !segment.has(ACK) && segment.tuple.local.1 == LISTENS {
            return self.begin(segment, any(chance));
        }
        if segment.has(ACK) || segment.tuple.local.1 != LISTENS {
            self.out.push(refusal(segment));
        }
    }

    fn begin(&mut self, segment: &Segment, iss: u32) {
        let mut connection = Connection::new(segment.tuple, State::SynReceived, iss, self.later_counts);
        connection.irs = segment.seq;
        connection.rcv_nxt = segment.seq.wrapping_add(1);
        connection.recent = segment.clock.value();
        self.out.push(connection.answer());
        self.connections.push(connection);
    }

    /// The last step of a handshake, as Linux takes it (`tcp_check_req`): whether the connection is open.
    fn completes(&mut self, segment: &Segment) -> bool {
        let tuple = segment.tuple;
        let Some(at) = self.connections.iter().position(|connection| connection.tuple == tuple) else {
            return false;
        };
        let connection = &mut self.connections[at];
        if connection.dialled {
            return true;
        }
        let stale = connection.is_stale(segment);
        if segment.seq == connection.irs && segment.flags & (SYN | ACK | RST | FIN) == SYN && !stale {
            self.out.push(connection.answer());
            return false;
        }
        if segment.has(ACK) && segment.acknowledged != connection.iss.wrapping_add(1) {
            if !segment.has(RST) {
                self.out.push(Segment::new(tuple, RST, segment.acknowledged, 0));
            }
            return false;
        }
        let (next, beyond) = (connection.rcv_nxt, connection.rcv_nxt.wrapping_add(WINDOW));
        let within = segment.seq == next
            || before(next, segment.end()) && before(segment.seq, beyond)
            || segment.seq == beyond && segment.end() == beyond;
        if stale || !within {
            if !segment.has(RST) {
                self.out.push(connection.acknowledge());
            }
            return false;
        }
        let flags = if segment.seq == connection.irs { segment.flags & !SYN } else { segment.flags };
        if flags & (RST | SYN) != 0 {
            if flags & RST == 0 {
                self.out.push(refusal(segment));
            }
            self.remove(tuple);
            return false;
        }
        segment.has(ACK)
    }

    fn dialled(&mut self, segment: &Segment) {
        let tuple = segment.tuple;
        let Some(connection) = self.find(tuple) else { return };
        if segment.has(ACK) && segment.acknowledged != connection.snd_nxt {
            if !segment.has(RST) {
                self.out.push(Segment::new(tuple, RST, segment.acknowledged, 0));
            }
            return;
        }
        if segment.has(RST) {
            if segment.has(ACK) {
                self.remove(tuple);
            }
            return;
        }
        if !segment.has(SYN) {
            return;
        }
        connection.irs = segment.seq;
        connection.rcv_nxt = segment.seq.wrapping_add(1);
        connection.recent = segment.clock.value();
        let answer = if segment.has(ACK) {
            connection.state = State::Established;
            connection.snd_una = connection.snd_nxt;
            connection.acknowledge()
        } else {
            // Both dialled at once (RFC 9293 section 3.5, figure 7).
            connection.state = State::SynReceived;
            connection.answer()
        };
        self.out.push(answer);
    }

    /// What comes after the end, as Linux takes it (`tcp_timewait_state_process`).
    fn late(&mut self, segment: &Segment) {
        let tuple = segment.tuple;
        let Some(connection) = self.find(tuple) else { return };
        let stale = connection.is_stale(segment);
        if !stale && segment.seq == connection.rcv_nxt && (segment.has(RST) || segment.end() == segment.seq) {
            if segment.has(RST) {
                self.remove(tuple);
            }
            return;
        }
        let newer = match (connection.recent, segment.clock) {
            (Some(recent), Clock::Usual(value) | Clock::Odd(value)) => before(recent, value),
            _ => false,
        };
        if segment.flags & (SYN | RST | ACK) == SYN
            && !stale
            && tuple.local.1 == LISTENS
            && (before(connection.rcv_nxt, segment.seq) || newer)
        {
            let iss = connection.snd_nxt.wrapping_add(65_537);
            self.remove(tuple);
            return self.begin(segment, iss);
        }
        if !segment.has(RST) {
            let answer = connection.acknowledge();
            self.out.push(answer);
        }
    }
}
