//! Handshakes, ends, urgent bytes and the wrap of the sequence number.

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::{End, expect_same},
    lab::{FAMILIES, Lab},
    message::{invite, negative_length, register},
    packet::{ACK, FIN, RST, SYN, URG},
    witness::expect_well_formed,
};

use super::discarded::halves;

#[test]
fn the_sequence_number_wraps() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        let before = lab.counts()?;
        for back in [0u32, 1, 2, 23, 24, 100, 270] {
            for size in [1, 7, 100, 1000] {
                let (mut sender, mut witness) = lab.connect(family, 0u32.wrapping_sub(back))?;
                let stream = [register(1), invite()].concat();
                stream.chunks(size).try_for_each(|piece| sender.push(piece))?;
                lab.settle()?;
                expect_same(witness.read()?, &stream).with_context(|| format!("{back} before the wrap"))?;
                // What is old is old on the other side of the wrap, too.
                let again = sender.segment_at(-(stream.len() as i32), &stream);
                sender.send(&again)?;
                sender.push(&register(2))?;
                lab.settle()?;
                expect_same(witness.read()?, &[&stream[..], &register(2)].concat())?;
            }
        }
        // A segment that begins before the wrap and what is new of it behind: to be cut in the right place.
        for (back, sent) in [(10u32, 20usize), (1, 2), (100, 101), (3, 200)] {
            let (mut sender, mut witness) = lab.connect(family, 0u32.wrapping_sub(back))?;
            let stream = [register(1), invite()].concat();
            sender.push(&stream[..sent])?;
            let again = sender.segment_at(-(sent as i32), &stream);
            sender.send(&again)?;
            lab.settle()?;
            expect_same(witness.read()?, &stream)
                .with_context(|| format!("{back} before the wrap, {sent} sent"))?;
        }
        lab.note("first sequence number just below the wrap", "legal", family, "all", &before)?;
        lab.expect_nothing_malformed(&before)?;
        for back in [0u32, 1, 24, 50, 85] {
            let before = lab.counts()?;
            let (mut sender, mut witness) = lab.connect(family, 0u32.wrapping_sub(back))?;
            negative_length().bytes.chunks(5).try_for_each(|piece| sender.push(piece))?;
            lab.settle()?;
            expect_well_formed(witness.read()?)?;
            lab.note(
                &format!("the wrap after {back} bytes"),
                "malicious",
                family,
                &witness.to_string(),
                &before,
            )?;
            ensure!(witness.end() == Some(End::Reset), "not reset with the wrap after {back} bytes");
        }
    }
    Ok(())
}

#[test]
fn data_on_syn() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for (what, bytes, good) in
            [("legal", register(1), true), ("malicious", negative_length().bytes, false)]
        {
            let before = lab.counts()?;
            let mut sender = lab.sender(family, 100);
            let syn = sender.syn();
            let mut full = syn.clone().carrying(&bytes);
            full.flags = SYN;
            sender.send(&full)?;
            // Whether that is let through or not, TCP sends the SYN again.
            sender.send(&syn)?;
            sender.take_answer()?;
            // The ACK of the handshake carries the data again.
            sender.push(&bytes)?;
            lab.settle()?;
            if good {
                let mut witness = lab.accept(family)?;
                lab.settle()?;
                expect_same(witness.read()?, &bytes)?;
                lab.expect_nothing_malformed(&before)?;
                lab.note(
                    "data on SYN and with the handshake's ACK",
                    what,
                    family,
                    &witness.to_string(),
                    &before,
                )?;
            } else {
                lab.note("data on SYN and with the handshake's ACK", what, family, "no connection", &before)?;
                let refused = lab.server(family).try_accept()?.is_none();
                ensure!(refused, "a connection came about with malformed bytes in its first segment");
            }
        }
    }
    Ok(())
}

#[test]
fn resets_and_ends_in_the_middle_of_a_message() -> Result<()> {
    let lab = Lab::new(&[])?;
    let ways = [
        ("RST", RST),
        ("RST, ACK", RST | ACK),
        ("FIN, ACK", FIN | ACK),
        ("SYN", SYN),
        ("SYN, ACK", SYN | ACK),
    ];
    for (name, flags) in ways {
        for (place, ahead) in
            [("in place", 0), ("1 ahead", 1), ("1000 ahead", 1000), ("1 behind", -1), ("far off", 1 << 30)]
        {
            let technique = format!("{name} {place} in mid-message");
            let exact = flags & (FIN | RST) != 0 && ahead == 0;
            // A FIN ahead ends the stream when the bytes before it have come.
            let ends = exact || flags & FIN != 0 && (0..2000).contains(&ahead);
            lab.malicious(&technique, |sender| {
                let (first, second) = halves();
                sender.push(&first)?;
                let mut stray = sender.bare(flags);
                stray.seq = stray.seq.wrapping_add_signed(ahead);
                sender.send(&stray)?;
                sender.push(&second)?;
                sender.push(&negative_length().bytes)
            })?;
            if ends {
                continue;
            }
            lab.legal(&technique, |sender| {
                let message = register(1);
                sender.push(&message[..100])?;
                let mut stray = sender.bare(flags);
                stray.seq = stray.seq.wrapping_add_signed(ahead);
                sender.send(&stray)?;
                sender.push(&message[100..])?;
                sender.push(&register(2))?;
                Ok([message, register(2)].concat())
            })?;
        }
    }
    Ok(())
}

#[test]
fn urgent_bytes() -> Result<()> {
    let lab = Lab::new(&[])?;
    let message = register(1);
    // The kernel takes the byte that an urgent pointer names out of the stream: here the CR of a line end.
    let cr = message.iter().position(|byte| *byte == b'\r').context("a line end")?;
    lab.malicious("urgent byte within a segment", |sender| {
        let mut urgent = sender.segment(&message);
        urgent.flags |= URG;
        urgent.urgent = cr as u16 + 1;
        sender.send(&urgent)?;
        sender.push(&message)
    })?;
    lab.legal("urgent pointer without the flag", |sender| {
        let mut segment = sender.segment(&message);
        segment.urgent = cr as u16 + 1;
        sender.send(&segment)?;
        sender.skip(message.len());
        Ok(message.clone())
    })
}

/// Lets the PBX answer every SYN with a cookie and without a socket, as while somebody floods it.
pub fn always_cookies(lab: &Lab) -> Result<()> {
    lab.site.pbx.enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2"))?.context("a setting")
}

#[test]
fn cookies_instead_of_sockets() -> Result<()> {
    let lab = Lab::new(&[])?;
    always_cookies(&lab)?;
    for size in [9, 100, 1000] {
        lab.legal("SYN cookies", |sender| {
            register(1).chunks(size).try_for_each(|piece| sender.push(piece))?;
            Ok(register(1))
        })?;
        lab.malicious("SYN cookies", |sender| {
            negative_length().bytes.chunks(size).try_for_each(|piece| sender.push(piece))
        })?;
    }
    Ok(())
}
