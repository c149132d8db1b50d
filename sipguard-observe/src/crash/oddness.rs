//! Who was it: how odd is what each device sent last, and how shortly before the death. Pure.
//!
//! All is in bits: how many times, as a power of two, an observation is likelier when the device is the cause than when it is any other.
//! A token that nobody else sends counts as much as new tokens are rare in its slot: in a branch each is new, in a header's name none.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, key};
use super::message::{self, Feature, MessageReading, neighbours};
use crate::tap::TapPacket;

/// By how many bits the first must lead.
pub(crate) const CLEARLY: f64 = 4.0;

/// The most that one token counts.
const MOST_BITS: f64 = 12.0;
/// The most that a token counts which others send as well.
const KNOWN_BITS: f64 = 2.0;
/// What a size counts beside one that others have.
const BESIDE: f64 = 0.5;
/// How often a device speaks, in seconds, when nothing is known of it.
const USUAL_PAUSE: f64 = 30.0;
/// Bits for each earlier crash that a device was there before, and how many of them count.
const EARLIER_BITS: f64 = 4.0;
const EARLIER_MOST: usize = 2;

/// A device: its address, and its identity or else its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SuspectDevice {
    /// Its address.
    pub address: IpAddr,
    /// Its identity, or its port where it has told none.
    pub name: String,
}

/// What speaks against a device, and what it has told of itself. A report has it as it is, rounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assessment {
    /// Its trunk.
    pub trunk: Option<String>,
    /// Its address of record.
    pub identity: Option<String>,
    /// Its User-Agent.
    pub user_agent: Option<String>,
    /// How likely it was the cause, in bits; the sum of the next three.
    pub score: f64,
    /// How odd what it sent is.
    pub oddness: f64,
    /// How shortly before the death that came.
    pub recency: f64,
    /// How often it was suspected before.
    pub earlier: f64,
    /// Milliseconds from that packet to the death.
    pub before_ms: f64,
    /// The score in words.
    pub why: Vec<String>,
}

/// A device that may have been the cause.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// Who it is.
    pub device: SuspectDevice,
    /// Port and transport of the packet that speaks against it.
    pub port: u16,
    /// Whether that was TCP.
    pub tcp: bool,
    /// What speaks against it, and what it has told of itself.
    pub assessment: Assessment,
    /// Its packets, as positions in what was given.
    pub packets: Vec<usize>,
}

/// Who was suspected in an earlier crash, the likeliest first.
pub(super) type Earlier = Vec<SuspectDevice>;

/// A datagram, or bytes of a stream without a gap.
struct Piece {
    device: usize,
    packet: usize,
    reading: MessageReading,
}

/// Devices by how likely each was the cause, the likeliest first. What came after the death is left out.
#[must_use]
pub fn rank(packets: &[TapPacket], death_ns: u64, baseline: &Baseline, earlier: &[Earlier]) -> Vec<Suspect> {
    let (devices, pieces) = gather(packets, death_ns);
    let around = Around::of(&pieces);
    let mut best: Vec<Option<Suspect>> = devices.iter().map(|_| None).collect();
    for piece in &pieces {
        let packet = &packets[piece.packet];
        let age_s = death_ns.saturating_sub(packet.time_ns) as f64 / 1e9;
        let (oddness, mut why) = oddness(piece, &around, baseline, devices.len() - 1);
        let (before, earlier) = known(&devices[piece.device].0, earlier);
        let recency = recency(age_s);
        why.push(format!("its packet came {} before the death", span(age_s)));
        why.extend(before);
        let score = oddness + recency + earlier;
        let slot = &mut best[piece.device];
        if slot.as_ref().is_none_or(|suspect| suspect.assessment.score < score) {
            *slot = Some(Suspect {
                device: devices[piece.device].0.clone(),
                port: packet.source().map_or(0, |source| source.port()),
                tcp: packet.header.as_ref().is_some_and(|header| header.tcp),
                assessment: Assessment {
                    trunk: packet.trunk.clone(),
                    identity: piece.reading.identity.clone(),
                    user_agent: piece.reading.user_agent.clone(),
                    score,
                    oddness,
                    recency,
                    earlier,
                    before_ms: age_s * 1e3,
                    why,
                },
                packets: Vec::new(),
            });
        }
    }
    for piece in &pieces {
        if let Some(suspect) = &mut best[piece.device] {
            // That of the odd message comes before that of another.
            let Assessment { identity, user_agent, .. } = &mut suspect.assessment;
            *identity = identity.take().or_else(|| piece.reading.identity.clone());
            *user_agent = user_agent.take().or_else(|| piece.reading.user_agent.clone());
        }
    }
    for (slot, (_, positions)) in best.iter_mut().zip(devices) {
        if let Some(suspect) = slot {
            suspect.packets = positions;
        }
    }
    let mut suspects: Vec<Suspect> = best.into_iter().flatten().collect();
    suspects.sort_by(|a, b| b.assessment.score.total_cmp(&a.assessment.score));
    suspects
}

/// Every device that sent anything until a moment.
#[must_use]
pub(super) fn devices(packets: &[TapPacket], until_ns: u64) -> Vec<SuspectDevice> {
    gather(packets, until_ns).0.into_iter().map(|(device, _)| device).collect()
}

/// Devices with the positions of their packets, and the pieces.
fn gather(packets: &[TapPacket], death_ns: u64) -> (Vec<(SuspectDevice, Vec<usize>)>, Vec<Piece>) {
    let mut ends: HashMap<(IpAddr, u16, bool), Vec<usize>> = HashMap::new();
    let mut order = Vec::new();
    for (at, packet) in packets.iter().enumerate() {
        let Some(source) = packet.source().filter(|_| packet.time_ns <= death_ns) else { continue };
        let end = (source.ip(), source.port(), packet.header.as_ref().is_some_and(|header| header.tcp));
        let positions = ends.entry(end).or_default();
        if positions.is_empty() {
            order.push(end);
        }
        positions.push(at);
    }
    let mut devices: Vec<(SuspectDevice, Vec<usize>)> = Vec::new();
    let mut numbers: HashMap<SuspectDevice, usize> = HashMap::new();
    let mut pieces = Vec::new();
    for end in order {
        let mut positions = ends.remove(&end).unwrap_or_default();
        positions.sort_by_key(|at| packets[*at].time_ns);
        let joined = join(packets, &positions, end.2);
        let readings: Vec<(usize, MessageReading)> =
            joined.into_iter().map(|(at, bytes)| (at, message::read(&bytes))).collect();
        let identity = readings.iter().rev().find_map(|(_, reading)| reading.identity.clone());
        let device = SuspectDevice { address: end.0, name: identity.unwrap_or_else(|| end.1.to_string()) };
        let number = *numbers.entry(device.clone()).or_insert_with(|| {
            devices.push((device, Vec::new()));
            devices.len() - 1
        });
        devices[number].1.extend(positions);
        pieces.extend(readings.into_iter().map(|(packet, reading)| Piece {
            device: number,
            packet,
            reading,
        }));
    }
    (devices, pieces)
}

/// The payloads with the position of their last packet; segments that follow one another are one.
fn join(packets: &[TapPacket], positions: &[usize], tcp: bool) -> Vec<(usize, Vec<u8>)> {
    let mut pieces: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut next = None;
    for at in positions {
        let packet = &packets[*at];
        let seq = packet.header.as_ref().map(|header| header.seq);
        match pieces.last_mut() {
            Some((last, bytes)) if tcp && seq == next && !begins(packet.payload()) => {
                bytes.extend_from_slice(packet.payload());
                *last = *at;
            }
            _ => pieces.push((*at, packet.payload().to_vec())),
        }
        next = seq.map(|seq| seq.wrapping_add(packet.payload().len() as u32));
    }
    pieces
}

/// Whether a segment begins with a message, so that it need not be joined to what came before.
fn begins(payload: &[u8]) -> bool {
    let line = payload.trim_ascii_start().split(|byte| *byte == b'\r').next().unwrap_or_default();
    // A ping is nothing's rest.
    payload.trim_ascii().is_empty() || line.starts_with(b"SIP/2.0 ") || line.ends_with(b" SIP/2.0")
}

/// What devices have in a slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Pairs of device and token.
    pairs: u32,
    /// Tokens.
    tokens: u32,
    /// Tokens that only one device has.
    single: u32,
}

/// How many devices send what.
#[derive(Default)]
struct Around {
    tokens: HashMap<u64, HashSet<usize>>,
    slots: HashMap<u64, Slot>,
}

impl Around {
    fn of(pieces: &[Piece]) -> Around {
        let mut around = Around::default();
        let mut slot_of = HashMap::new();
        for piece in pieces {
            for feature in &piece.reading.features {
                let (slot, token) = key(feature);
                around.tokens.entry(token).or_default().insert(piece.device);
                slot_of.insert(token, slot);
            }
        }
        for (token, devices) in &around.tokens {
            let entry: &mut Slot = around.slots.entry(slot_of[token]).or_default();
            entry.pairs += devices.len() as u32;
            entry.tokens += 1;
            entry.single += u32::from(devices.len() == 1);
        }
        around
    }
}

/// How odd a piece is, and why.
fn oddness(piece: &Piece, around: &Around, baseline: &Baseline, others: usize) -> (f64, Vec<String>) {
    let mut found: Vec<(f64, String)> = Vec::new();
    for feature in &piece.reading.features {
        let (bits, words) = surprise(feature, around, baseline, others);
        if bits > 0.5 {
            found.push((bits, words));
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    // Tokens of one oddity come together: the first counts whole, each further one half of the one before.
    let mut weight = 1.0;
    let mut sum = 0.0;
    for (bits, _) in &found {
        sum += bits * weight;
        weight /= 2.0;
    }
    (sum, found.into_iter().take(3).map(|(_, words)| words).collect())
}

fn surprise(feature: &Feature, around: &Around, baseline: &Baseline, others: usize) -> (f64, String) {
    let (slot, token) = key(feature);
    let sharing = around.tokens.get(&token).map_or(0, |devices| devices.len().saturating_sub(1));
    let Slot { pairs, tokens, single } = around.slots.get(&slot).copied().unwrap_or_default();
    let before = baseline.seen(token);
    let (learned, novel) = baseline.slot(slot);
    if sharing == 0 && before == 0 {
        // A slot that nobody else has is as rare as its header or parameter is, which counts by itself.
        let total = f64::from(pairs.saturating_sub(1) + learned);
        let rate = (f64::from(single.saturating_sub(1) + novel) + 0.5) / (total + 1.0);
        let mut bits = (-rate.log2()).clamp(0.0, MOST_BITS);
        // A number that grew by a digit is no oddity: a size beside one that others have says little.
        let sent = |token: u64| around.tokens.contains_key(&token) || baseline.seen(token) > 0;
        let near = |range: String| sent(key(&Feature { slot: feature.slot.clone(), token: range }).1);
        if neighbours(&feature.token).into_iter().any(near) {
            bits *= BESIDE;
        }
        let since = if baseline.is_empty() { "" } else { ", and none sent earlier" };
        return (bits, format!("{} that no other of {others} devices sends{since}", feature.words()));
    }
    let total = f64::from(pairs + learned);
    // Rarer than the tokens of its slot are on the average; in a From each is a device's own.
    let usual = f64::from(tokens.max(novel).max(1));
    let bits = (0.25 * (total / (sharing as f64 + f64::from(before)) / usual).log2()).clamp(0.0, KNOWN_BITS);
    (bits, format!("{} that {sharing} of {others} other devices send", feature.words()))
}

/// Bits for a packet that came so long before the death: most causes act at once, some only after a while.
fn recency(age_s: f64) -> f64 {
    let soon = |mean: f64| (-age_s / mean).exp() / mean;
    ((0.8 * soon(0.2) + 0.2 * soon(10.0)) * USUAL_PAUSE).log2().max(-10.0)
}

fn known(device: &SuspectDevice, earlier: &[Earlier]) -> (Option<String>, f64) {
    const FIRST: usize = 3;
    let hits = earlier.iter().filter(|crash| crash.iter().take(FIRST).any(|other| other == device)).count();
    if hits == 0 {
        return (None, 0.0);
    }
    let share = hits as f64 / earlier.len() as f64;
    let bits = EARLIER_BITS * share * hits.min(EARLIER_MOST) as f64;
    (Some(format!("also before {hits} of {} earlier crashes", earlier.len())), bits)
}

fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.001 => "less than a millisecond".to_owned(),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
#[path = "oddness_tests.rs"]
mod tests;
