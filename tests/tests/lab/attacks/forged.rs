//! Segments of somebody who knows the addresses and ports of another's connection, and not where its streams stand. Its kernel ignores them,
//! so they may not harm it.

use anyhow::{Context as _, Result};
use sipguard_tests::{
    application::{expect_same, udp, uninterrupted},
    chance::Chance,
    lab::{FAMILIES, Lab},
    message::{OPTIONS, bent, negative_length, register},
    packet::{ACK, SYN},
    segment::Segment,
    sender::Sender,
    setting::Setting,
    witness::Witness,
};

use super::stage::{Table, expect_read, lab, unguarded};

/// How often a device may have to send a segment until it is read: the first may be one too many, and more is no longer prompt.
const PROMPT: usize = 3;

/// A legal device and the application's end of its connection.
struct Victim<'a> {
    lab: &'a Lab,
    sender: Sender<'a>,
    witness: Witness,
    sent: Vec<u8>,
}

impl<'a> Victim<'a> {
    /// One that has registered.
    fn new(lab: &'a Lab, family: usize, first: u32) -> Result<Self> {
        let (sender, witness) = lab.connect(family, first)?;
        let mut victim = Self { lab, sender, witness, sent: vec![] };
        victim.speak(&register(1)).context("before the attack")?;
        Ok(victim)
    }

    /// It says something, which has to be read promptly.
    fn speak(&mut self, bytes: &[u8]) -> Result<()> {
        self.sent.extend_from_slice(bytes);
        let segment = self.sender.segment(bytes);
        for _ in 0..PROMPT {
            self.sender.send(&segment)?;
            self.lab.settle()?;
            if self.witness.read()?.len() == self.sent.len() {
                break;
            }
        }
        self.sender.skip(bytes.len());
        expect_same(self.witness.read()?, &self.sent)
    }

    /// It goes on, and its connection lives.
    fn goes_on(mut self) -> Result<String> {
        for number in 2..5 {
            self.speak(&register(number)).with_context(|| format!("registration {number}"))?;
        }
        expect_read(self.lab, &mut self.witness, &self.sent)
    }

    /// A segment that says that it is of this connection.
    fn forged(&self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Segment {
        let mut segment = Segment::new(self.sender.envelope.clone(), self.sender.ports, seq, flags);
        segment.ack = ack;
        if payload.is_empty() { segment } else { segment.carrying(payload) }
    }
}

/// A SYN before, and line ends at, two places that are as far from each other as can be: one of them is ahead of the stream, and one behind.
fn blind(lab: &Lab, family: usize, seed: u32) -> Result<String> {
    let mut chance = Chance::new(u64::from(seed));
    let mut victim = Victim::new(lab, family, 7_000_000)?;
    let place = chance.below(u32::MAX);
    for place in [place, place.wrapping_add(1 << 31)] {
        let syn = victim.forged(SYN, place.wrapping_sub(1), 0, b"");
        victim.sender.send(&syn)?;
        let ends = victim.forged(ACK, place, chance.below(u32::MAX), b"\r\n");
        victim.sender.send(&ends)?;
    }
    victim.goes_on()
}

#[test]
fn a_blind_forger_kills_no_connection() -> Result<()> {
    let mut table = Table::new("E5");
    for setting in Setting::tried()? {
        let (lab, bare) = (lab(setting)?, unguarded(setting)?);
        for family in FAMILIES {
            table.row("SYN and line ends, without a guard", setting, family, blind(&bare, family, 1));
            for seed in 1..5 {
                let technique = format!("SYN and line ends at a place and half the world away, {seed}");
                table.row(&technique, setting, family, blind(&lab, family, seed));
            }
        }
    }
    table.end()
}

/// Where a forged segment begins, in bytes from the stream's next one; and how far from the truth its acknowledgement is.
const PLACES: [i32; 5] = [0, -400, -1, 1, 400];
const ACKS: [u32; 3] = [1 << 20, 1 << 30, (1u32 << 26).wrapping_neg()];

/// Three forged segments on one connection.
fn near(lab: &Lab, family: usize, place: i32, payload: &[u8]) -> Result<String> {
    let mut victim = Victim::new(lab, family, 7_000_000)?;
    for ahead in ACKS {
        let seq = victim.sender.next.wrapping_add_signed(place);
        let forged = victim.forged(ACK, seq, victim.sender.ack.wrapping_add(ahead), payload);
        victim.sender.send(&forged)?;
    }
    victim.goes_on()
}

/// Three times as many streams as make a ban, each from the same port; then the victim comes anew, over TCP and UDP.
fn banned(lab: &Lab, family: usize, payload: &[u8]) -> Result<String> {
    let application = udp(lab.pbx(), (lab.address(family), 5060))?;
    application.set_nonblocking(true)?;
    let mut port = None;
    for number in 0..10 {
        let mut sender = lab.sender(family, 1_000_000 * number);
        let port = *port.get_or_insert(sender.ports[0]);
        sender.ports[0] = port;
        sender.shake_hands_anew().context("the victim connects anew")?;
        let mut victim = Victim { lab, sender, witness: lab.accept(family)?, sent: vec![] };
        victim.speak(OPTIONS)?;
        let forged = victim.forged(ACK, victim.sender.next, victim.sender.ack.wrapping_add(1 << 20), payload);
        victim.sender.send(&forged)?;
        lab.settle()?;
    }
    let port = port.context("a port")?;
    let envelope = lab.sender(family, 0).envelope;
    lab.wire.send(&sipguard_tests::envelope::datagram(&envelope, port, 5060, OPTIONS))?;
    lab.settle()?;
    let mut read = [0; 2000];
    let length = uninterrupted(|| application.recv(&mut read)).context("nothing is read over UDP")?;
    expect_same(&read[..length], OPTIONS)?;
    Ok("connected 10 times, and read over UDP".to_owned())
}

#[test]
fn a_forged_segment_harms_no_connection() -> Result<()> {
    let mut table = Table::new("E8");
    let malformed = negative_length().bytes;
    let control = bent(OPTIONS, "Via: SIP/2.0/TCP h", b"Via: a\0b");
    for setting in Setting::tried()? {
        let (lab, bare) = (lab(setting)?, unguarded(setting)?);
        for family in FAMILIES {
            for (what, payload) in [
                ("malformed", &malformed[..]),
                ("a NUL", &control),
                ("well-formed", OPTIONS),
                ("begun", b"MESSAGE sip:a SIP/2.0\r\nContent-Length: 60000\r\n\r\n"),
            ] {
                for place in PLACES {
                    let technique = format!("forged: {what}, {place} from the next byte, without a guard");
                    if place == 0 {
                        table.row(&technique, setting, family, near(&bare, family, place, payload));
                    }
                    let technique = format!("forged: {what}, {place} from the next byte");
                    table.row(&technique, setting, family, near(&lab, family, place, payload));
                }
            }
            let outcome = banned(&lab, family, &control);
            table.row("forged: malformed, on ten connections of a port", setting, family, outcome);
        }
    }
    table.end()
}
