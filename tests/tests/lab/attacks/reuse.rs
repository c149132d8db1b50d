//! A connection of the same ports as an earlier one: what the guard knows of the earlier says nothing about it.

use anyhow::{Context as _, Result, bail};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::Linger},
};
use sipguard_tests::{
    application::Server,
    lab::{FAMILIES, FIRST, Lab},
    message::{OPTIONS, invite, negative_length, register},
    packet::{ACK, FIN, RST},
    sender::Sender,
    setting::Setting,
    witness::{Witness, expect_well_formed_tls},
};

use super::stage::{Table, expect_judged, expect_read, lab};

/// Bytes in a segment of the earlier connection.
const SIZE: usize = 40;
/// Segments of a stream that the guard may remember.
const REMEMBERED: usize = 4;

/// Where the earlier connection ends.
#[derive(Clone, Copy, Debug)]
enum Phase {
    StartLine,
    Headers,
    BodyAhead,
    Body,
    Between,
    Record,
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
enum Close {
    ResetByDevice,
    ResetByPbx,
    FinByDevice,
    FinByPbx,
    SilentDevice,
}

const PHASES: [Phase; 6] =
    [Phase::StartLine, Phase::Headers, Phase::BodyAhead, Phase::Body, Phase::Between, Phase::Record];
const CLOSES: [Close; 5] =
    [Close::ResetByDevice, Close::ResetByPbx, Close::FinByDevice, Close::FinByPbx, Close::SilentDevice];

impl Phase {
    /// What the earlier connection has sent.
    fn stream(self) -> Vec<u8> {
        let head = b"MESSAGE sip:pbx SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n\
            CSeq: 1 MESSAGE\r\nContent-Length: 60000\r\n";
        match self {
            Self::StartLine => [OPTIONS, b"MESSAGE sip:p"].concat(),
            Self::Headers => [OPTIONS, head, b"Subject: a"].concat(),
            Self::BodyAhead => [&head[..], b"\r\n"].concat(),
            Self::Body => [&head[..], b"\r\n", &[b'b'; 6 * SIZE]].concat(),
            Self::Between => register(1),
            Self::Record => [&[22, 3, 1, 0x20, 0, 1][..], &[7; 300]].concat(),
        }
    }

    fn port(self) -> u16 {
        if matches!(self, Self::Record) { 5061 } else { 5060 }
    }
}

/// First bytes of the later connection, as places in the stream of the earlier one.
fn places(length: usize) -> Vec<(String, u32)> {
    let starts: Vec<usize> = (0..length).step_by(SIZE).collect();
    let remembered = starts.iter().rev().take(REMEMBERED).rev();
    let mut places = vec![("first".to_owned(), 0)];
    places.extend(remembered.map(|at| (format!("segment at {at}"), *at as u32)));
    for (name, ahead) in [("next - 1", -1), ("next", 0), ("next + 1", 1)] {
        places.push((name.to_owned(), (length as u32).wrapping_add_signed(ahead)));
    }
    places
}

/// A lab with applications on both ports.
struct Ports {
    lab: Lab,
    tls: [Server; 2],
}

impl Ports {
    fn new(setting: Setting) -> Result<Self> {
        let lab = lab(setting)?;
        let listen = |family| Server::listen(lab.pbx(), (lab.address(family), 5061).into());
        let tls = [listen(0)?, listen(1)?];
        Ok(Self { lab, tls })
    }

    /// The application's end of the sender's connection.
    fn accept(&self, family: usize, sender: &Sender<'_>) -> Result<Witness> {
        let server = if sender.ports[1] == 5061 { &self.tls[family] } else { self.lab.server(family) };
        loop {
            let stream = server.accept()?;
            if stream.peer_addr().is_ok_and(|peer| peer.port() == sender.ports[0]) {
                return Witness::new(stream);
            }
        }
    }

    /// Ends a connection.
    fn close(&self, sender: &mut Sender<'_>, witness: Witness, how: Close) -> Result<()> {
        if !matches!(how, Close::ResetByPbx) {
            // The witness resets otherwise.
            setsockopt(witness.stream(), Linger, &libc::linger { l_onoff: 0, l_linger: 0 })?;
        }
        match how {
            Close::ResetByDevice => {
                let reset = sender.bare(RST | ACK);
                sender.send(&reset)?;
                self.lab.settle()?;
                drop(witness);
            }
            Close::ResetByPbx | Close::SilentDevice => drop(witness),
            Close::FinByDevice => {
                let fin = sender.bare(FIN | ACK);
                sender.send(&fin)?;
                sender.skip(1);
                self.lab.settle()?;
                drop(witness);
                sender.ack = sender.ack.wrapping_add(1);
                let ack = sender.bare(ACK);
                sender.send(&ack)?;
            }
            Close::FinByPbx => {
                drop(witness);
                sender.ack = sender.ack.wrapping_add(1);
                let fin = sender.bare(FIN | ACK);
                sender.send(&fin)?;
            }
        }
        self.lab.settle()
    }

    /// An earlier connection, and a later one that begins at a place of it.
    fn again(&self, family: usize, phase: Phase, how: Close, place: u32) -> Result<(Sender<'_>, Witness)> {
        let mut sender = self.lab.sender(family, FIRST);
        sender.ports[1] = phase.port();
        sender.shake_hands_anew()?;
        let mut witness = self.accept(family, &sender)?;
        let stream = phase.stream();
        stream.chunks(SIZE).try_for_each(|piece| sender.push(piece))?;
        expect_read(&self.lab, &mut witness, &stream).context("the earlier connection")?;
        self.close(&mut sender, witness, how)?;
        sender.next = FIRST.wrapping_add(place);
        sender.shake_hands_anew().context("the later connection")?;
        let witness = self.accept(family, &sender)?;
        Ok((sender, witness))
    }

    /// What the later connection sends is judged from its first byte on.
    fn malicious(&self, family: usize, phase: Phase, how: Close, place: u32, sends: &[&[u8]]) -> Result<()> {
        let (mut sender, mut witness) = self.again(family, phase, how, place)?;
        sends.iter().try_for_each(|piece| sender.push(piece))?;
        if matches!(phase, Phase::Record) {
            self.lab.settle()?;
            return expect_well_formed_tls(witness.read()?);
        }
        expect_judged(&self.lab, &mut witness).map(drop)
    }

    fn legal(&self, family: usize, phase: Phase, how: Close, place: u32, size: usize) -> Result<()> {
        let (mut sender, mut witness) = self.again(family, phase, how, place)?;
        let sent = [register(7), invite(), register(8)].concat();
        sent.chunks(size).try_for_each(|piece| sender.push(piece))?;
        expect_read(&self.lab, &mut witness, &sent).map(drop)
    }
}

/// Every place of one phase and end: how many of them held, and which did not.
fn places_of(lab: &Ports, family: usize, phase: Phase, how: Close) -> Result<String> {
    let (stream, evil) = (phase.stream(), negative_length().bytes);
    let (mut tries, mut failed) = (0, vec![]);
    for (name, place) in places(stream.len()) {
        let repeated = stream.get(place as usize..).unwrap_or_default();
        let pieces: Vec<&[u8]> = evil.chunks(SIZE).collect();
        let again: Vec<&[u8]> = repeated.chunks(SIZE).chain(evil.chunks(SIZE)).collect();
        let mut note = |what: &str, outcome: Result<()>| {
            tries += 1;
            if let Err(error) = outcome {
                failed.push((format!("{name}: {what}"), error));
            }
        };
        note("malformed", lab.malicious(family, phase, how, place, &[&evil]));
        note("malformed in pieces", lab.malicious(family, phase, how, place, &pieces));
        if !repeated.is_empty() {
            note("the same again, then malformed", lab.malicious(family, phase, how, place, &again));
        }
        note("legal", lab.legal(family, phase, how, place, 1400));
        note("legal in pieces", lab.legal(family, phase, how, place, SIZE));
    }
    let Some((_, first)) = failed.first() else { return Ok(format!("{tries} of {tries}")) };
    let names: Vec<&str> = failed.iter().map(|(name, _)| &name[..]).collect();
    bail!("{} of {tries} failed ({}), the first: {first:#}", failed.len(), names.join("; "))
}

fn matrix(setting: Setting) -> Result<()> {
    if !Setting::tried()?.contains(&setting) {
        println!("skipped: the setting {} is not among those of SIPGUARD_SETTINGS", setting.name());
        return Ok(());
    }
    let (lab, mut table) = (Ports::new(setting)?, Table::new("E18"));
    for family in FAMILIES {
        for phase in PHASES {
            for how in CLOSES {
                let outcome = places_of(&lab, family, phase, how);
                table.row(&format!("{phase:?}, {how:?}"), setting, family, outcome);
            }
        }
    }
    table.end()
}

#[test]
fn the_same_ports_again_local() -> Result<()> {
    matrix(Setting::Local)
}

#[test]
fn the_same_ports_again_behind_a_bridge() -> Result<()> {
    matrix(Setting::Bridge)
}

#[test]
fn the_same_ports_again_in_a_container() -> Result<()> {
    matrix(Setting::Dnat)
}

#[test]
fn the_same_ports_again_in_a_container_with_a_proxy() -> Result<()> {
    matrix(Setting::DnatListener)
}

/// A device with a fixed port and a fixed first sequence number, which loses its power again and again.
fn reboots(lab: &Ports, family: usize, how: Close) -> Result<String> {
    let mut sender = lab.lab.sender(family, FIRST);
    for (number, lengths) in [(1, 1), (22_222, 1), (3, 2), (4_444, 1)] {
        (sender.next, sender.clock) = (FIRST, 1_000_000);
        sender.shake_hands_anew().with_context(|| format!("start {number}"))?;
        let mut witness = lab.accept(family, &sender)?;
        let sent = register(number).repeat(lengths);
        sender.push(&sent)?;
        expect_read(&lab.lab, &mut witness, &sent).with_context(|| format!("start {number}"))?;
        lab.close(&mut sender, witness, how)?;
    }
    Ok("4 starts, each read".to_owned())
}

#[test]
fn a_device_that_always_begins_alike() -> Result<()> {
    let mut table = Table::new("E19");
    for setting in Setting::tried()? {
        let lab = Ports::new(setting)?;
        for family in FAMILIES {
            for how in CLOSES {
                let technique = format!("fixed first sequence number and port, {how:?}");
                table.row(&technique, setting, family, reboots(&lab, family, how));
            }
        }
    }
    table.end()
}
