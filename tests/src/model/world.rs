//! A sequence at play: who is there, whose turn it is, and what must hold.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::attack::{Villain, forged};
use super::connection::{Promise, State};
use super::guard::{Fate, Guard};
use super::pbx::{LISTENS, Pbx};
use super::phone::{Kind, Phone, Stage};
use super::segment::{Segment, Tuple};
use super::{Sequence, chance};
use crate::chance::Chance;
use crate::packet::{ACK, SYN};

/// Segments that follow from one, at the most: answers to answers have no end otherwise.
const ANSWERS: usize = 60;
/// Retransmissions after which all must have arrived.
const ROUNDS: usize = 24;
/// A port that the PBX dials from, and a port that it dials, both not guarded.
const PORTS: (u16, u16) = (33_000, 7000);
/// In percent, how many segments the network loses.
const LOSS: u32 = 5;

/// All that there is.
pub struct World<'a> {
    guard: &'a mut Guard,
    log: Option<&'a mut Vec<String>>,
    pbx: Pbx,
    phones: Vec<Phone>,
    villains: Vec<Villain>,
    /// Whether the guard is made to forget.
    forgets: bool,
    /// Whether segments are lost between the guard and the PBX.
    lossy: bool,
    /// The hour of the network.
    loses: bool,
    now: u32,
    wire: VecDeque<Segment>,
    fault: Option<String>,
}

/// Who sends a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Legal,
    Attacker,
    Forger,
}

impl<'a> World<'a> {
    /// Plays a sequence: what was wrong.
    pub fn play(
        guard: &'a mut Guard,
        sequence: &Sequence,
        log: Option<&'a mut Vec<String>>,
    ) -> Result<Option<String>> {
        guard.explains = log.is_some();
        let mut world = World::new(guard, log, &mut chance(sequence.seed, 0));
        for step in &sequence.steps {
            let mut chance = chance(sequence.seed, *step);
            world.now = step * 10;
            world.say(|| format!("step {step}"));
            world.step(&mut chance)?;
            world.compare();
            if world.fault.is_some() {
                break;
            }
        }
        if world.fault.is_none() {
            world.settle(&mut chance(sequence.seed, u32::MAX))?;
        }
        world.clear()
    }

    fn new(guard: &'a mut Guard, log: Option<&'a mut Vec<String>>, chance: &mut Chance) -> Self {
        let pbx = Pbx { later_counts: chance.percent(30), ..Pbx::default() };
        let (forgets, lossy) = (chance.percent(40), chance.percent(50));
        let mut world = World {
            guard,
            log,
            pbx,
            phones: Vec::new(),
            villains: Vec::new(),
            forgets,
            lossy,
            loses: true,
            now: 0,
            wire: VecDeque::new(),
            fault: None,
        };
        let local = |port| (Ipv4Addr::new(198, 51, 100, 1), port);
        let remote = |last, port| (Ipv4Addr::new(192, 0, 2, last), port);
        for last in 0..1 + chance.below(2) as u8 {
            let tuple = Tuple { remote: remote(10 + last, 5062), local: local(LISTENS) };
            world.phones.push(Phone::new(tuple, Kind::Phone, chance));
        }
        if chance.percent(40) {
            let port = [LISTENS, PORTS.1][chance.below(2) as usize];
            let tuple = Tuple {
                remote: remote(20, port),
                local: local([LISTENS, PORTS.0][chance.below(2) as usize]),
            };
            let kind = match chance.below(4) {
                0 => Kind::Foreign,
                1 if port != LISTENS => Kind::Greeter,
                _ => Kind::Server,
            };
            world.phones.push(Phone::new(tuple, kind, chance));
        }
        for last in 0..1 + chance.below(2) as u8 {
            let tuple = Tuple { remote: remote(30 + last, 40_000), local: local(LISTENS) };
            world.villains.push(Villain::new(tuple, chance));
        }
        if chance.percent(50) {
            let [from, to] = [PORTS.0, PORTS.1].map(|port| if chance.percent(50) { port } else { LISTENS });
            let tuple = Tuple { remote: remote(40, to), local: local(from) };
            world.villains.push(Villain::new(tuple, chance));
        }
        world
    }

    fn say(&mut self, event: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(event());
        }
    }

    fn step(&mut self, chance: &mut Chance) -> Result<()> {
        match chance.below(100) {
            0..48 => self.attack(chance),
            48..60 => self.forge(chance),
            60..78 => self.telephone(chance),
            78..96 => self.serve(chance),
            _ if self.forgets => self.forget(chance),
            _ => {
                let tuples = self.tuples();
                self.let_greet(tuples[chance.below(tuples.len() as u32) as usize]);
                Ok(())
            }
        }
    }

    fn attack(&mut self, chance: &mut Chance) -> Result<()> {
        let at = chance.below(self.villains.len() as u32) as usize;
        let tuple = self.villains[at].tuple;
        let flow = self.guard.flow(tuple);
        for segment in self.villains[at].act(flow.as_ref(), self.pbx.look(tuple), chance) {
            self.come(segment, Who::Attacker, chance)?;
        }
        Ok(())
    }

    fn forge(&mut self, chance: &mut Chance) -> Result<()> {
        let tuples: Vec<Tuple> = self.phones.iter().map(|phone| phone.tuple).collect();
        let tuple = tuples[chance.below(tuples.len() as u32) as usize];
        let flow = self.guard.flow(tuple);
        let segment = forged(tuple, flow.as_ref(), self.pbx.look(tuple), chance);
        // A SYN that ends the PBX's half of a handshake, and another that begins one, keep a phone waiting that has the other half: what it
        // acknowledges is of neither connection that the guard knows.
        let half = match self.pbx.look(tuple) {
            Some(connection) => connection.state == State::SynReceived,
            None => self.phones.iter().any(|phone| phone.tuple == tuple && phone.stage != Stage::Closed),
        };
        if half && segment.has(SYN) {
            return Ok(());
        }
        self.say(|| "a forger:".to_owned());
        self.come(segment, Who::Forger, chance)
    }

    fn telephone(&mut self, chance: &mut Chance) -> Result<()> {
        let at = chance.below(self.phones.len() as u32) as usize;
        let now = self.now;
        let phone = &mut self.phones[at];
        match (phone.stage, chance.below(20)) {
            (Stage::Closed, _) if phone.kind == Kind::Phone => phone.dial(now, chance),
            (Stage::Closed, _) => return self.dial(at, chance),
            (_, 0) => {
                phone.switch_off(now);
                // Nobody does that within a second.
                let tuple = phone.tuple;
                self.guard.pass_time(tuple)?;
            }
            (Stage::Open, 1) => phone.close(now),
            (Stage::Open, 2..14) => phone.speak(now, chance),
            _ => return self.tick(at, chance),
        }
        self.flush(at, chance)
    }

    /// A timer of a legal peer, behind the PBX's own, which are shorter.
    fn tick(&mut self, at: usize, chance: &mut Chance) -> Result<()> {
        let tuple = self.phones[at].tuple;
        self.let_greet(tuple);
        if let Some(connection) = self.pbx.find(tuple)
            && connection.owes
        {
            let segment = connection.acknowledge();
            self.pbx.out.push(segment);
            self.leave(chance)?;
        }
        self.phones[at].tick(self.now);
        self.flush(at, chance)
    }

    /// The PBX dials one of the legal servers.
    fn dial(&mut self, at: usize, chance: &mut Chance) -> Result<()> {
        let tuple = self.phones[at].tuple;
        let promise = self.promise(tuple)?;
        self.pbx.dial(tuple, promise, chance);
        self.leave(chance)
    }

    /// What is promised of a connection that the PBX dials.
    fn promise(&mut self, tuple: Tuple) -> Result<Promise> {
        if tuple.remote.1 == LISTENS {
            return Ok(if tuple.local.1 == LISTENS { Promise::Waits } else { Promise::Made });
        }
        Ok(if self.guard.is_greeter(tuple)? { Promise::Waits } else { Promise::Held })
    }

    /// So much time passes that a server may greet.
    fn let_greet(&mut self, tuple: Tuple) {
        if let Some(connection) = self.pbx.find(tuple)
            && connection.promise == Promise::Held
        {
            connection.promise = Promise::Waits;
        }
    }

    fn serve(&mut self, chance: &mut Chance) -> Result<()> {
        if chance.percent(20) {
            let tuple = self.villains[chance.below(self.villains.len() as u32) as usize].tuple;
            if tuple.remote.0.octets()[3] == 40 {
                let promise = self.promise(tuple)?;
                self.pbx.dial(tuple, promise, chance);
            }
            return self.leave(chance);
        }
        if self.pbx.connections.is_empty() {
            return Ok(());
        }
        let at = chance.below(self.pbx.connections.len() as u32) as usize;
        let connection = &mut self.pbx.connections[at];
        let (tuple, state) = (connection.tuple, connection.state);
        let mut out = None;
        match (state, chance.below(20)) {
            (State::TimeWait | State::SynReceived | State::SynSent, 0..5) => {
                self.say(|| format!("{tuple}: {state:?} is over"));
                self.pbx.remove(tuple);
            }
            (_, 0..6) => out = connection.repeat(),
            (_, 6..8) if connection.owes => out = Some(connection.acknowledge()),
            (State::CloseWait, 8..16) | (State::Established, 8) => out = connection.close(),
            (State::Established, 9) => self.pbx.abort(tuple),
            _ => return self.talk(tuple, chance),
        }
        self.pbx.out.extend(out);
        self.leave(chance)
    }

    /// The application says something.
    fn talk(&mut self, tuple: Tuple, chance: &mut Chance) -> Result<()> {
        let foreign = self
            .phones
            .iter()
            .find(|phone| phone.tuple == tuple)
            .map(|phone| matches!(phone.kind, Kind::Foreign | Kind::Greeter));
        let Some(connection) = self.pbx.find(tuple) else { return Ok(()) };
        if !connection.is_open() {
            return Ok(());
        }
        let sip = match (connection.dialled, foreign) {
            (false, _) => true,
            (true, Some(foreign)) => !foreign,
            (true, None) => chance.percent(80),
        };
        let said: &[u8] = if !sip {
            b"SSH-2.0-pbx with words of its own\r\n"
        } else if connection.dialled {
            crate::message::OPTIONS
        } else {
            b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"
        };
        if connection.dialled && connection.said.is_empty() {
            let judged = match connection.promise {
                Promise::Made | Promise::Held => sip,
                Promise::Waits => sip && connection.is_untouched(),
                Promise::None => false,
            };
            connection.promise = if judged { Promise::Made } else { Promise::None };
        }
        let segment = connection.say(said);
        self.pbx.out.push(segment);
        self.leave(chance)
    }

    fn forget(&mut self, chance: &mut Chance) -> Result<()> {
        let tuples = self.tuples();
        let tuple = tuples[chance.below(tuples.len() as u32) as usize];
        self.say(|| format!("{tuple}: forgotten"));
        if let Some(connection) = self.pbx.find(tuple) {
            connection.promise = Promise::None;
        }
        self.guard.forget(tuple)
    }

    fn tuples(&self) -> Vec<Tuple> {
        let phones = self.phones.iter().map(|phone| phone.tuple);
        phones.chain(self.villains.iter().map(|villain| villain.tuple)).collect()
    }

    /// Lets come in what a legal peer sends.
    fn flush(&mut self, at: usize, chance: &mut Chance) -> Result<()> {
        self.wire.extend(self.phones[at].out.drain(..));
        self.run(chance)
    }

    /// Lets leave what the PBX sends, and come in what follows from it.
    fn leave(&mut self, chance: &mut Chance) -> Result<()> {
        self.hear(chance)?;
        self.run(chance)
    }

    fn run(&mut self, chance: &mut Chance) -> Result<()> {
        for _ in 0..ANSWERS {
            let Some(segment) = self.wire.pop_front() else { return Ok(()) };
            if self.is_lost(chance) {
                self.say(|| format!("{}: lost: {segment:?}", segment.tuple));
                continue;
            }
            self.judge(segment, Who::Legal, chance)?;
        }
        self.wire.clear();
        Ok(())
    }

    fn come(&mut self, segment: Segment, who: Who, chance: &mut Chance) -> Result<()> {
        self.judge(segment, who, chance)?;
        self.run(chance)
    }

    fn is_lost(&self, chance: &mut Chance) -> bool {
        self.loses && chance.percent(LOSS)
    }

    fn judge(&mut self, segment: Segment, who: Who, chance: &mut Chance) -> Result<()> {
        let known = (who == Who::Forger).then(|| self.guard.known(segment.tuple));
        if let Some(connection) = self.pbx.look(segment.tuple)
            && connection.dialled
            && segment.tuple.remote.1 != LISTENS
        {
            // By the model's clock, not by that of this machine.
            self.guard.hold_back(segment.tuple, connection.promise == Promise::Held)?;
        }
        let fate = self.guard.judge(&segment)?;
        if known.is_some_and(|known| known != self.guard.known(segment.tuple)) {
            self.fault =
                Some(format!("{}: a forger changed what the guard knows: {segment:?}", segment.tuple));
        }
        let why = self.guard.why;
        self.say(|| {
            let fate = match &fate {
                Fate::Reset(reset) => format!("reset at {}", reset.seq),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("{}: -> {segment:?}: {fate} ({why})", segment.tuple)
        });
        let segment = match fate {
            Fate::Dropped => return Ok(()),
            Fate::Passed => segment,
            Fate::Reset(reset) => {
                if who == Who::Legal {
                    self.fault = Some(format!("{}: a legal peer was cut: {segment:?}", segment.tuple));
                }
                reset
            }
        };
        if self.lossy && self.is_lost(chance) {
            self.say(|| "lost behind the guard".to_owned());
            return Ok(());
        }
        if who != Who::Legal
            && let Some(connection) = self.pbx.find(segment.tuple)
            && connection.promise == Promise::Waits
            && (segment.flags & (SYN | ACK) != SYN | ACK || connection.state != State::SynSent)
        {
            // Who may speak unjudged before the PBX does, and uses it, is followed from the next message on only.
            connection.promise = Promise::None;
        }
        if let Err(fault) = self.pbx.take(&segment, chance) {
            self.fault = Some(format!("{}: {fault}", segment.tuple));
        }
        self.hear(chance)
    }

    /// The guard hears what the PBX sends, and then whom it is for.
    fn hear(&mut self, chance: &mut Chance) -> Result<()> {
        for segment in std::mem::take(&mut self.pbx.out) {
            self.guard.hear(&segment)?;
            self.say(|| format!("{}: <- {segment:?}", segment.tuple));
            if self.is_lost(chance) {
                self.say(|| "lost".to_owned());
                continue;
            }
            let now = self.now;
            if let Some(phone) = self.phones.iter_mut().find(|phone| phone.tuple == segment.tuple) {
                phone.take(&segment, now, chance);
                self.wire.extend(phone.out.drain(..));
            }
        }
        Ok(())
    }

    /// What legal peers say arrives unchanged.
    fn compare(&mut self) {
        for phone in &self.phones {
            let Some(connection) = self.pbx.look(phone.tuple) else { continue };
            if phone.is_of(connection.iss) && !phone.data.starts_with(&connection.read) {
                self.fault = Some(format!("{}: the PBX read what was not sent", phone.tuple));
            }
        }
    }

    /// The attackers rest, nothing is lost any more: the legal peers get through.
    fn settle(&mut self, chance: &mut Chance) -> Result<()> {
        self.say(|| "the attackers rest".to_owned());
        self.loses = false;
        for round in 0..ROUNDS {
            self.now = 1000 + 10 * round as u32;
            for at in 0..self.phones.len() {
                self.settle_one(at, chance)?;
            }
            self.compare();
            if self.fault.is_some() || self.phones.iter().all(|phone| self.has_all(phone)) {
                return Ok(());
            }
        }
        let stuck = self.phones.iter().find(|phone| !self.has_all(phone));
        self.fault = stuck.map(|phone| format!("{}: a legal peer got stuck: {:?}", phone.tuple, phone.stage));
        Ok(())
    }

    /// Whether all that a legal peer said has arrived, and it knows.
    fn has_all(&self, phone: &Phone) -> bool {
        phone.is_heard() && self.pbx.look(phone.tuple).is_some_and(|connection| connection.read == phone.data)
    }

    fn settle_one(&mut self, at: usize, chance: &mut Chance) -> Result<()> {
        let tuple = self.phones[at].tuple;
        self.let_greet(tuple);
        if let Some(connection) = self.pbx.find(tuple) {
            let mut out = connection.repeat();
            if connection.state == State::CloseWait {
                out = connection.close();
            } else if matches!(connection.state, State::TimeWait | State::FinWait2 | State::Closing) {
                self.pbx.remove(tuple);
            }
            self.pbx.out.extend(out);
            self.leave(chance)?;
        } else if self.phones[at].kind != Kind::Phone {
            return self.dial(at, chance);
        }
        if self.has_all(&self.phones[at]) {
            return Ok(());
        }
        let (now, phone) = (self.now, &mut self.phones[at]);
        match phone.stage {
            Stage::Closed if phone.kind == Kind::Phone => phone.dial(now, chance),
            Stage::Closed => {
                self.talk(tuple, chance)?;
                return self.dial(at, chance);
            }
            Stage::Open if phone.data.is_empty() || phone.is_heard() => {
                if phone.kind != Kind::Phone {
                    self.talk(tuple, chance)?;
                }
                self.phones[at].speak(now, chance);
            }
            _ => return self.tick(at, chance),
        }
        self.flush(at, chance)
    }

    fn clear(self) -> Result<Option<String>> {
        for tuple in self.tuples() {
            self.guard.forget(tuple)?;
        }
        self.guard.forget_spoken(PORTS.0)?;
        self.guard.forget_greeters()?;
        Ok(self.fault)
    }
}
