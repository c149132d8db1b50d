//! A bad wire: a relay between two cables that loses, damages, reorders and repeats TCP segments, the same ones in every run of a
//! seed as far as the traffic is the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use sipguard_common::wire::{ether_type, ethernet, ipv4, ipv6, protocol::TCP};

use crate::{
    chance::Chance,
    guard::{Guard, Site, neighbour},
    netns::{Netns, veth},
    packet::IP,
    wire::{Wire, wait_for_any},
};

/// A held frame is let go after this time, if no other frame came.
const HOLD: Duration = Duration::from_millis(3);

/// What the relay does, in percent of the TCP segments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Harm {
    /// Segments that are lost.
    pub lost: u32,
    /// Segments of which one bit is not as it was, so that their checksum is wrong.
    pub damaged: u32,
    /// Segments that are overtaken by the next one to three.
    pub reordered: u32,
    /// Segments that arrive twice.
    pub duplicated: u32,
    /// Chance's seed.
    pub seed: u64,
}

/// What the relay has done.
#[derive(Debug, Default)]
struct Tally {
    forwarded: AtomicU64,
    lost: AtomicU64,
    damaged: AtomicU64,
    reordered: AtomicU64,
    duplicated: AtomicU64,
}

/// A PBX and a phone with a relay between them. Both machines have the addresses of a [`Site`].
#[derive(Debug)]
pub struct BadWire {
    relay: Option<JoinHandle<Result<()>>>,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    /// The guard of the PBX, not yet attached.
    pub guard: Guard,
    /// The machine with the PBX.
    pub pbx: Netns,
    /// The machine at the other end.
    pub phone: Netns,
    _between: Netns,
}

impl BadWire {
    /// Lays both cables, without offloads, and starts the relay.
    pub fn new(harm: Harm) -> Result<Self> {
        let program = neighbour("SIPGUARD", "sipguard")?;
        let (pbx, between, phone) = (Netns::new("pbx")?, Netns::new("relay")?, Netns::new("phone")?);
        // The relay's own addresses serve nothing; its kernel takes no part.
        veth(&pbx, Site::INTERFACE, "10.77.0.1/24", &between, "pbx", "10.78.0.1/24", false)?;
        veth(&phone, Site::INTERFACE, "10.77.0.2/24", &between, "phone", "10.79.0.1/24", false)?;
        pbx.add_address(Site::INTERFACE, "fd77::1/64")?;
        phone.add_address(Site::INTERFACE, "fd77::2/64")?;
        let wires = [Wire::open(&between, "phone")?, Wire::open(&between, "pbx")?];
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let relay = Relay { wires, harm, stop: Arc::clone(&stop), tally: Arc::clone(&tally) };
        let relay = Some(std::thread::spawn(move || relay.run()));
        Ok(Self { relay, stop, tally, guard: Guard::new(&pbx, &program), pbx, phone, _between: between })
    }

    /// Stops the relay and tells how many frames it forwarded, lost, damaged, reordered and sent twice.
    pub fn stop(mut self) -> Result<[u64; 5]> {
        self.end()?;
        let Tally { forwarded, lost, damaged, reordered, duplicated } = &*self.tally;
        Ok([forwarded, lost, damaged, reordered, duplicated].map(|count| count.load(Ordering::Relaxed)))
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.relay.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result.context("the relay"),
            Some(Err(_)) => Err(anyhow!("the relay's thread panicked")),
        }
    }
}

impl Drop for BadWire {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lab: {error:#}");
        }
    }
}

struct Relay {
    wires: [Wire; 2],
    harm: Harm,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

/// One direction of the relay.
struct Direction<'a> {
    from: &'a Wire,
    to: &'a Wire,
    chance: Chance,
    /// A frame, how many others still overtake it, and since when it waits.
    held: Option<(Vec<u8>, u32, Instant)>,
}

impl Relay {
    fn run(&self) -> Result<()> {
        let [phone, pbx] = &self.wires;
        let seed = self.harm.seed;
        let mut directions = [
            Direction { from: phone, to: pbx, chance: Chance::new(seed), held: None },
            Direction { from: pbx, to: phone, chance: Chance::new(seed + 1), held: None },
        ];
        while !self.stop.load(Ordering::Relaxed) {
            wait_for_any(&[phone, pbx], HOLD)?;
            for direction in &mut directions {
                while let Some(frame) = direction.from.receive(Instant::now())? {
                    self.carry(direction, frame)?;
                }
                let waits = direction.held.as_ref().is_some_and(|(_, _, since)| since.elapsed() > HOLD);
                if waits && let Some((frame, ..)) = direction.held.take() {
                    direction.to.send(&frame)?;
                }
            }
        }
        Ok(())
    }

    fn carry(&self, direction: &mut Direction<'_>, mut frame: Vec<u8>) -> Result<()> {
        ensure!(frame.len() <= 1514, "a frame of {} bytes: offloads are on", frame.len());
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&self.tally.forwarded);
        // Whatever else goes over the wire (ARP, neighbour discovery) is only there to make it work.
        let harm = if is_tcp(&frame) { self.harm } else { Harm::default() };
        if direction.chance.percent(harm.lost) {
            count(&self.tally.lost);
            return Ok(());
        }
        let tcp_at = IP + if frame[IP] >> 4 == 6 { ipv6::LEN } else { usize::from(frame[IP] & 15) * 4 };
        if direction.chance.percent(harm.damaged) && frame.len() > tcp_at {
            count(&self.tally.damaged);
            let bit = direction.chance.below(8 * (frame.len() - tcp_at) as u32);
            frame[tcp_at + bit as usize / 8] ^= 1 << (bit % 8);
        }
        if direction.held.is_none() && direction.chance.percent(harm.reordered) {
            count(&self.tally.reordered);
            direction.held = Some((frame, 1 + direction.chance.below(3), Instant::now()));
            return Ok(());
        }
        direction.to.send(&frame)?;
        if direction.chance.percent(harm.duplicated) {
            count(&self.tally.duplicated);
            direction.to.send(&frame)?;
        }
        if let Some((held, left, since)) = direction.held.take() {
            if left > 1 {
                direction.held = Some((held, left - 1, since));
            } else {
                direction.to.send(&held)?;
            }
        }
        Ok(())
    }
}

fn is_tcp(frame: &[u8]) -> bool {
    let kind = frame.get(ethernet::TYPE..IP).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
    match kind {
        Some(ether_type::IPV4) => frame.get(IP + ipv4::PROTOCOL) == Some(&TCP),
        Some(ether_type::IPV6) => frame.get(IP + ipv6::NEXT_HEADER) == Some(&TCP),
        _ => false,
    }
}
