//! Segments cut, reordered, repeated and overlapping.

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::expect_same,
    chance::Chance,
    lab::{FAMILIES, FIRST, Lab},
    message::{Fault, faults, invite, negative_length, register},
    witness::{Witness, expect_well_formed},
};

use super::discarded::{Discarder, discarders};

/// Malformed messages of every kind that fits in one segment.
fn short_faults() -> Vec<Fault> {
    faults().into_iter().filter(|fault| fault.bytes.len() < 400).collect()
}

/// Three pieces that cut a malformed header line.
fn pieces() -> [Vec<u8>; 3] {
    let bytes = negative_length().bytes;
    let at = bytes.len() - 8;
    [&bytes[..20], &bytes[20..at], &bytes[at..]].map(<[u8]>::to_vec)
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn one_byte_segments() -> Result<()> {
    let lab = Lab::new(&[])?;
    lab.legal("one byte a segment", |sender| {
        let stream = [register(1), invite(), register(2)].concat();
        stream.chunks(1).try_for_each(|byte| sender.push(byte))?;
        Ok(stream)
    })?;
    for family in FAMILIES {
        lab.each_malicious(family, "one byte a segment", true, short_faults(), |sender, fault| {
            let stream = [&register(1), &fault.bytes[..], &register(2)].concat();
            stream.chunks(1).try_for_each(|byte| sender.push(byte))
        })?;
    }
    Ok(())
}

#[test]
fn cut_in_two_at_every_boundary() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for message in [register(1), invite()] {
            lab.each_legal(family, "cut in two at every boundary", 1..message.len(), |sender, at| {
                sender.push(&message[..*at])?;
                sender.push(&message[*at..])?;
                Ok(message.clone())
            })?;
        }
    }
    for fault in short_faults() {
        let name = format!("cut in two at every boundary: {}", fault.reason.name());
        for family in FAMILIES {
            lab.each_malicious(family, &name, true, 1..fault.bytes.len(), |sender, at| {
                sender.push(&fault.bytes[..*at])?;
                sender.push(&fault.bytes[*at..])
            })?;
        }
    }
    Ok(())
}

#[test]
fn reordered() -> Result<()> {
    let lab = Lab::new(&[])?;
    lab.legal("three pieces in every order, then in order", |sender| {
        let (message, mut sent) = (register(1), vec![]);
        for order in ORDERS {
            for at in order {
                let piece = sender.segment_at(at as i32 * 80, &message[at * 80..][..80]);
                sender.send(&piece)?;
            }
            // As TCP does for what is not acknowledged.
            message.chunks(80).try_for_each(|piece| sender.push(piece))?;
            sent.extend_from_slice(&message);
        }
        Ok(sent)
    })?;
    for family in FAMILIES {
        lab.each_malicious(
            family,
            "three pieces in every order, then in order",
            true,
            ORDERS,
            |sender, order| {
                let pieces = pieces();
                for at in *order {
                    let before: usize = pieces[..at].iter().map(Vec::len).sum();
                    let piece = sender.segment_at(before as i32, &pieces[at]);
                    sender.send(&piece)?;
                }
                pieces.iter().try_for_each(|piece| sender.push(piece))
            },
        )?;
    }
    Ok(())
}

#[test]
fn duplicated() -> Result<()> {
    let lab = Lab::new(&[])?;
    lab.legal("every segment three times, and all of it again", |sender| {
        let (message, all) = (register(1), register(1).repeat(3));
        for piece in all.chunks(50) {
            let segment = sender.segment(piece);
            (0..3).try_for_each(|_| sender.send(&segment))?;
            sender.skip(piece.len());
        }
        let again = sender.segment_at(-(all.len() as i32), &message);
        sender.send(&again)?;
        Ok(all)
    })?;
    lab.malicious("every segment three times", |sender| {
        for piece in pieces() {
            let segment = sender.segment(&piece);
            (0..3).try_for_each(|_| sender.send(&segment))?;
            sender.skip(piece.len());
        }
        Ok(())
    })
}

#[test]
fn overlapping() -> Result<()> {
    let lab = Lab::new(&[])?;
    for (name, old) in [("the same", false), ("other", true)] {
        let name = format!("each segment begins with {name} old bytes");
        let overlapped = |stream: &[u8], from: usize, to: usize| {
            let back = from.min(30);
            let old = if old { b"\x01".repeat(back) } else { stream[from - back..from].to_vec() };
            (back, [&old, &stream[from..to]].concat())
        };
        let play = |sender: &mut sipguard_tests::sender::Sender<'_>, stream: &[u8]| {
            for from in (0..stream.len()).step_by(40) {
                let to = (from + 40).min(stream.len());
                let (back, bytes) = overlapped(stream, from, to);
                let segment = sender.segment_at(-(back as i32), &bytes);
                sender.send(&segment)?;
                sender.skip(to - from);
            }
            anyhow::Ok(())
        };
        lab.legal(&name, |sender| {
            let stream = [register(1), invite()].concat();
            play(sender, &stream).map(|()| stream)
        })?;
        for family in FAMILIES {
            lab.each_malicious(family, &name, true, short_faults(), |sender, fault| {
                play(sender, &[&register(1), &fault.bytes[..], &register(1)].concat())
            })?;
        }
    }
    lab.malicious("a segment in the kernel's hands is told otherwise, with more", |sender| {
        let message = register(1);
        sender.push(&message[..100])?;
        let mixed = sender.segment_at(-50, &[&b"\0".repeat(50)[..], b"\0 more\r\n"].concat());
        sender.send(&mixed)
    })
}

/// One stream with two faces: good registrations, and the same with NULs in them. Segments of either, of any place and length,
/// some of them such that the kernel discards them.
fn two_faced(lab: &Lab, family: usize, seed: u64) -> Result<Witness> {
    let mut chance = Chance::new(seed);
    let good = [register(1), register(2), register(3)].concat();
    let mut bad = good.clone();
    bad.iter_mut().step_by(7).for_each(|byte| *byte = 1);
    let discarders: Vec<Discarder> = discarders(family);
    let (mut sender, mut witness) = lab.connect(family, u32::MAX - 300)?;
    let first = sender.next;
    for _ in 0..60 {
        let read = witness.read()?.len();
        expect_well_formed(&good[..read])?;
        if witness.end().is_some() || read == good.len() {
            break;
        }
        for _ in 0..1 + chance.below(4) {
            let from = (read + chance.below(120) as usize).saturating_sub(chance.below(100) as usize);
            let from = from.min(good.len() - 1);
            let to = (from + 1 + chance.below(150) as usize).min(good.len());
            sender.next = first.wrapping_add(if chance.percent(50) { read } else { from } as u32);
            let from = sender.next.wrapping_sub(first) as usize;
            let stream = if chance.percent(30) { &bad } else { &good };
            let mut segment = sender.segment(&stream[from..to.max(from + 1)]);
            if chance.percent(25) {
                (discarders[chance.below(discarders.len() as u32) as usize].spoil)(&mut segment);
            }
            sender.send(&segment)?;
        }
        lab.settle()?;
    }
    let read = witness.read()?.to_vec();
    expect_well_formed(&read)?;
    expect_same(&read, &good[..read.len()])?;
    Ok(witness)
}

#[test]
fn a_stream_with_two_faces_shows_the_good_one() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        let (before, mut read) = (lab.counts()?, 0);
        for seed in 0..150 {
            let witness = two_faced(&lab, family, seed).with_context(|| format!("seed {seed}"))?;
            read += witness.already_read();
        }
        lab.note(
            "good and malformed face, any cut, some discarded (150 times)",
            "both",
            family,
            &format!("{read} B"),
            &before,
        )?;
        ensure!(read > 20_000, "only {read} bytes got through");
    }
    Ok(())
}

#[test]
fn any_cut_any_overlap_any_order_of_legal_bytes_arrives() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        lab.each_legal(family, "legal bytes, any cut, overlap and order", 0..40, |sender, seed| {
            let stream = [register(1), invite(), register(2)].concat();
            let (mut chance, mut acked) = (Chance::new(*seed), 0usize);
            sender.next = FIRST;
            while acked < stream.len() {
                for _ in 0..chance.below(4) {
                    let from =
                        (acked + chance.below(200) as usize).saturating_sub(chance.below(200) as usize);
                    let to = (from + 1 + chance.below(200) as usize).min(stream.len());
                    let stray = sender.segment_at(from as i32 - acked as i32, &stream[from.min(to)..to]);
                    // What begins at the next byte or overlaps it moves the stream too.
                    if from > acked || to <= acked {
                        sender.send(&stray)?;
                    }
                }
                let len = (1 + chance.below(200) as usize).min(stream.len() - acked);
                sender.push(&stream[acked..acked + len])?;
                acked += len;
            }
            Ok(stream)
        })?;
    }
    Ok(())
}
