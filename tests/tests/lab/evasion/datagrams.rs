//! UDP in IP fragments: whatever is done to them, the application reads no datagram that a whole one would be refused for.

use std::{net::UdpSocket, ops::Range};

use anyhow::{Result, ensure};
use sipguard_common::framer::{Buffer, Limits, Stream, decide_datagram};
use sipguard_tests::{
    application::uninterrupted,
    chance::Chance,
    envelope::{PBX_MAC, SENDER_MAC},
    guard::Site,
    lab::{DEVICE, FAMILIES, Lab},
    message::call,
    packet::{IP, Peer, TCP4, TCP6},
};

/// A message whose header section has about 1300 bytes, with a body.
fn long() -> Vec<u8> {
    let routes = "Record-Route: <sip:192.0.2.1;lr>\r\n".repeat(28);
    call(&format!("{routes}Content-Length: 400\r\n"), &[b'b'; 400])
}

/// The same with a NUL in its headers.
fn bad() -> Vec<u8> {
    let mut message = long();
    message[500] = 0;
    message
}

/// Three parts of either; the NUL stands in the second.
fn thirds() -> [Range<usize>; 3] {
    [0..400, 400..800, 800..8 + long().len()]
}

/// A device, the application that it speaks to, and the datagrams that it has sent.
struct Trial<'a> {
    lab: &'a Lab,
    peer: Peer,
    application: UdpSocket,
    id: u32,
}

impl<'a> Trial<'a> {
    fn new(lab: &'a Lab, family: usize) -> Result<Self> {
        let address = |ip| std::net::SocketAddr::new(ip, 5060).to_string();
        let peer = Peer::new(&address(DEVICE[family]), &address(Site::PBX[family]));
        Ok(Self { lab, peer, application: lab.udp(family)?, id: 1 })
    }

    /// Fragments of a datagram with the id at hand.
    fn whole(&self, payload: &[u8], parts: &[Range<usize>]) -> Vec<Vec<u8>> {
        let mut frames = self.peer.udp_parts(payload, self.id, parts);
        for frame in &mut frames {
            frame[..12].copy_from_slice(&[PBX_MAC, SENDER_MAC].concat());
        }
        frames
    }

    /// The same, over IPv4 without a UDP checksum, so that those of several datagrams fit together.
    fn parts(&self, payload: &[u8], parts: &[Range<usize>]) -> Vec<Vec<u8>> {
        let mut frames = self.whole(payload, parts);
        if self.peer.remote.is_ipv4() {
            for (frame, _) in frames.iter_mut().zip(parts).filter(|(_, part)| part.start == 0) {
                frame[TCP4 + 6..TCP4 + 8].fill(0);
            }
        }
        frames
    }

    fn send(&self, frames: &[Vec<u8>]) -> Result<()> {
        for burst in frames.chunks(100) {
            burst.iter().try_for_each(|frame| self.lab.wire.send(frame))?;
            self.lab.settle()?;
        }
        Ok(())
    }

    /// What the application has read since it was asked last.
    fn read(&self) -> Result<Vec<Vec<u8>>> {
        self.lab.settle()?;
        let (mut chunk, mut all) = (vec![0; 70_000], vec![]);
        while let Ok(length) = uninterrupted(|| self.application.recv(&mut chunk)) {
            all.push(chunk[..length].to_vec());
        }
        Ok(all)
    }

    /// Fails when the application has read anything that a whole datagram would be refused for; else how much it has read.
    fn expect_well_formed(&self, name: &str) -> Result<usize> {
        let all = self.read()?;
        for datagram in &all {
            let mut buffer = Box::new(Buffer::NEW);
            let judged =
                decide_datagram(&mut Stream::NEW.clone(), &Limits::default(), &mut buffer, datagram, true);
            let shown = datagram.escape_ascii();
            judged.map_err(|malformed| {
                anyhow::anyhow!("{name}: {} was read: {shown}", malformed.reason.name())
            })?;
        }
        Ok(all.len())
    }
}

#[test]
fn legal_datagrams_are_read_whole() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        let mut trial = Trial::new(&lab, family)?;
        let before = lab.counts()?;
        let (message, complete) = (long(), call("Content-Length: 1500\r\n", &[0; 1500]));
        let mut sent = 0;
        for size in (256..=1448).step_by(149).map(|size| size / 8 * 8) {
            trial.id += 1;
            trial.send(&trial.whole(&message, &cut(message.len(), size)))?;
            ensure!(trial.read()? == [&message[..]], "in fragments of {size} bytes");
            // Headers that end in the first fragment: any order.
            trial.id += 1;
            let mut parts = cut(complete.len(), size.max(600) / 8 * 8);
            parts.reverse();
            trial.send(&trial.whole(&complete, &parts))?;
            ensure!(trial.read()? == [&complete[..]], "the last first, of {size} bytes");
            sent += 2;
        }
        // A wire that repeats every fragment, and one that swaps them, after which the device sends it again.
        trial.id += 1;
        let [a, b, c] = &trial.whole(&message, &thirds())[..] else { unreachable!() };
        trial.send(&[a, a, b, b, c, c].map(Clone::clone))?;
        ensure!(trial.read()? == [&message[..]], "every fragment twice");
        trial.id += 1;
        let [a, b, c] = &trial.whole(&message, &thirds())[..] else { unreachable!() };
        trial.send(&[a, c, b].map(Clone::clone))?;
        ensure!(trial.read()?.is_empty(), "swapped");
        trial.id += 1;
        trial.send(&trial.whole(&message, &thirds()))?;
        ensure!(trial.read()? == [&message[..]], "sent again");
        lab.expect_nothing_malformed(&before)?;
        lab.note("datagrams in fragments", "legal", family, &format!("{} datagrams", sent + 2), &before)?;
    }
    Ok(())
}

fn cut(payload: usize, size: usize) -> Vec<Range<usize>> {
    (0..8 + payload).step_by(size).map(|at| at..(at + size).min(8 + payload)).collect()
}

#[test]
fn malformed_headers_never_complete() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        let mut trial = Trial::new(&lab, family)?;
        let before = lab.counts()?;
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            trial.id += 1;
            let frames = trial.parts(&bad(), &thirds());
            trial.send(&order.map(|part| frames[part].clone()))?;
            ensure!(trial.expect_well_formed("in any order")? == 0, "{order:?} completes");
            trial.send(&frames)?;
            ensure!(trial.expect_well_formed("and again")? == 0, "{order:?} completes");
        }
        lab.note("a NUL in the second of three fragments", "malicious", family, "nothing", &before)?;

        let before = lab.counts()?;
        tricks(&mut trial)?;
        lab.note("fragments that speak of another first one", "malicious", family, "nothing", &before)?;
    }
    Ok(())
}

/// Datagrams that the kernel puts together from what several of the same id have sent.
fn tricks(trial: &mut Trial<'_>) -> Result<()> {
    let end = 8 + long().len();
    let [first, second, third] = thirds();
    let whole = long();
    // Ends its headers in the first fragment, so that what follows is a body.
    let complete = call("Content-Length: 1\r\n", &vec![b'b'; end]);
    let complete = &complete[..end - 8];

    // The kernel loses a fragment that the guard has seen: its checksum is wrong, or it is none of IPv6.
    trial.id += 1;
    let good = trial.parts(&long(), &thirds());
    let evil = trial.parts(&bad(), &[first.clone(), second.clone(), third.clone()]);
    let mut lost = good[1].clone();
    lost[if trial.peer.remote.is_ipv4() { IP + 10 } else { 0 }] ^= 4;
    trial.send(&[
        good[0].clone(),
        lost,
        good[2].clone(),
        evil[1].clone(),
        evil[0].clone(),
        evil[1].clone(),
    ])?;
    trial.expect_well_formed("a fragment that the kernel does not take")?;

    // A first fragment after which nothing would be judged, beside the one that the kernel has.
    trial.id += 1;
    let evil = trial.parts(&bad(), &thirds());
    let other = trial.parts(complete, std::slice::from_ref(&first));
    trial.send(&[evil[0].clone(), other[0].clone(), evil[1].clone(), evil[2].clone()])?;
    trial.expect_well_formed("another first fragment, second")?;
    trial.id += 1;
    let evil = trial.parts(&bad(), &thirds());
    let other = trial.parts(complete, std::slice::from_ref(&first));
    trial.send(&[other[0].clone(), evil[1].clone(), evil[0].clone(), evil[2].clone()])?;
    trial.expect_well_formed("another first fragment, first")?;

    // The kernel forgets a first fragment when many others of the sender came (`ipfrag_max_dist`).
    let before = trial.id + 1;
    trial.id = before;
    let evil = trial.parts(&bad(), &thirds());
    let begun = trial.parts(complete, &[first.clone(), second.clone()]);
    trial.send(&begun)?;
    for _ in 0..100 {
        trial.id += 1;
        trial.send(&trial.parts(complete, std::slice::from_ref(&second)))?;
    }
    trial.send(&evil[1..])?;
    trial.send(&evil)?;
    trial.expect_well_formed("a first fragment that the kernel forgets")?;

    // The tail first, then so many others that one would forget it.
    trial.id += 1;
    let evil = trial.parts(&bad(), &thirds());
    trial.send(&evil[1..])?;
    let mut others = vec![];
    for number in 0..300 {
        trial.id += 1;
        others.extend(
            trial.parts(if number % 2 == 0 { complete } else { &whole }, &[first.clone(), second.clone()]),
        );
    }
    trial.send(&others)?;
    trial.send(&evil[..1])?;
    trial.expect_well_formed("the tail first, and others after it")?;

    // Overlaps, of which a kernel takes the one or the other.
    trial.id += 1;
    let good = trial.parts(&long(), &[0..400, 400..480, 480..end]);
    let evil = trial.parts(&bad(), &[480..800, 472..end, 400..end, 480..end]);
    trial.send(&[&good[..2], &evil, &good[2..]].concat())?;
    trial.expect_well_formed("overlaps")?;

    if trial.peer.remote.is_ipv6() {
        // Only the first fragment's next header counts.
        for protocol in [6, 59, 60] {
            trial.id += 1;
            let mut evil = trial.parts(&bad(), &thirds());
            evil[1..].iter_mut().for_each(|frame| frame[TCP6] = protocol);
            trial.send(&evil)?;
            ensure!(trial.expect_well_formed("another next header")? == 0);
        }
    }
    Ok(())
}

/// Fragments of several datagrams with the same id, in any order.
#[test]
fn mixed_datagrams() -> Result<()> {
    const TRIES: u32 = 250;
    let lab = Lab::new(&[])?;
    let mut chance = Chance::new(5);
    let end = 8 + long().len();
    let lf = String::from_utf8(long())?.replace("\r\n", "\n");
    let lf = [lf.as_bytes(), &b"\0bad\r\n\r\nX\n\n".repeat(100)].concat();
    let complete = call("Content-Length: 1\r\n", &b"\0bad\r\n\r\n".repeat(200));
    let payloads = [long(), bad(), lf[..end - 8].to_vec(), complete[..end - 8].to_vec()];
    for family in FAMILIES {
        let mut trial = Trial::new(&lab, family)?;
        let (before, mut read) = (lab.counts()?, 0);
        for number in 0..TRIES {
            trial.id += 1;
            let a = 256 + 8 * chance.below(100) as usize;
            let b = a + 8 + 8 * chance.below(40) as usize;
            let parts = [0..a, a..b, b..end];
            let mut frames = vec![];
            for _ in 0..3 + chance.below(5) {
                let payload = &payloads[chance.below(4) as usize];
                let part = parts[chance.below(3) as usize].clone();
                let mut frame = trial.parts(payload, &[part]).remove(0);
                if family == 0 && chance.percent(10) {
                    frame[IP + 10] ^= 4;
                }
                frames.push(frame);
            }
            trial.send(&frames)?;
            read += trial.expect_well_formed(&format!("try {number}"))?;
        }
        let what = format!("datagrams of one id mixed ({TRIES} times)");
        lab.note(&what, "malicious", family, &format!("{read} datagrams"), &before)?;
    }
    Ok(())
}
