//! A million spoofed segments, and connections that the guard has lost sight of.

use anyhow::{Result, ensure};
use sipguard_tests::{
    application::expect_same,
    envelope::Envelope,
    guard::Site,
    lab::{FAMILIES, Lab},
    message::{negative_length, register, register_with},
    packet::{ACK, SYN},
    segment::Segment,
    witness::expect_well_formed,
};

/// Sends what `make` makes of `count` spoofed 4-tuples: it gets a segment with data and a SYN of each.
pub fn spoofed(lab: &Lab, count: u32, make: impl Fn(Segment, Segment) -> Vec<Segment>) -> Result<u64> {
    // What is answered goes to the device, which does not care.
    lab.site.pbx.run(&["ip", "route", "replace", "198.18.0.0/15", "via", "10.77.0.102"])?;
    let (mut frames, mut sent) = (vec![], 0);
    for number in 0..count {
        let [_, a, b, c] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
        let envelope = Envelope::new([198, 18 | (a & 1), b, c].into(), Site::PBX[0]);
        let ports = [1024 + (number >> 4) as u16, 5060];
        let mut data =
            Segment::new(envelope.clone(), ports, 1001, ACK).carrying(b"OPTIONS sip:a SIP/2.0\r\n");
        data.ack = number;
        let mut syn = Segment::new(envelope, ports, 1000, SYN);
        syn.options = vec![2, 4, 5, 0xb4];
        frames.extend(make(data, syn).iter().map(Segment::frame));
        if frames.len() >= 100 || number + 1 == count {
            sent += frames.len() as u64;
            lab.wire.send_all(&frames)?;
            frames.clear();
            lab.settle()?;
        }
    }
    Ok(sent)
}

#[test]
fn spoofed_data_opens_no_flow() -> Result<()> {
    let lab = Lab::new(&[])?;
    let message = register(1);
    let (first, second) = message.split_at(100);
    let mut open = vec![];
    for family in FAMILIES {
        let (mut sender, witness) = lab.connect(family, 100)?;
        sender.push(first)?;
        open.push((sender, witness));
    }
    lab.settle()?;
    let flows = lab.flows()?;
    let sent = spoofed(&lab, 1_000_000, |data, _| vec![data])?;
    ensure!(sent == 1_000_000 && lab.flows()? == flows, "{} flows, not {flows}", lab.flows()?);
    for (family, (mut sender, mut witness)) in open.into_iter().enumerate() {
        let before = lab.counts()?;
        sender.push(second)?;
        lab.settle()?;
        expect_same(witness.read()?, &message)?;
        lab.note(
            "after 1,000,000 spoofed segments in mid-message",
            "legal",
            family,
            &witness.to_string(),
            &before,
        )?;
        lab.expect_nothing_malformed(&before)?;
        sender.push(&negative_length().bytes)?;
        lab.settle()?;
        expect_well_formed(witness.read()?)?;
        lab.note(
            "after 1,000,000 spoofed segments, then malformed",
            "malicious",
            family,
            &witness.to_string(),
            &before,
        )?;
    }
    Ok(())
}

/// The guard comes while a message is half sent.
fn half_sent(cut: usize, message: &[u8], rest: &[u8], grace: &str) -> Result<Vec<String>> {
    let lab = Lab::unguarded()?;
    let mut rows = vec![];
    let mut open = vec![];
    for family in FAMILIES {
        let (mut sender, witness) = lab.connect(family, 100)?;
        sender.push(&message[..cut])?;
        open.push((family, sender, witness));
    }
    lab.settle()?;
    lab.attach(&["--grace", grace])?;
    for (family, mut sender, mut witness) in open {
        let before = lab.counts()?;
        // Bytes of the unseen part again, and a gap, tell the guard nothing new.
        let again = sender.segment_at(-(cut as i32), &message[..cut]);
        sender.send(&again)?;
        let ahead = sender.segment_at(10, b"\0ahead");
        sender.send(&ahead)?;
        sender.push(rest)?;
        lab.settle()?;
        let read = witness.read()?.to_vec();
        lab.note(
            "attached while a message is half sent",
            "malicious",
            family,
            &witness.to_string(),
            &before,
        )?;
        expect_well_formed(&read)?;
        rows.push(witness.to_string());
    }
    Ok(rows)
}

#[test]
fn attached_in_mid_message() -> Result<()> {
    let message = register_with("Content-Length: 0\r\n\r\n");
    for rest in [&b"\0\0"[..], b"no header\r\n\r\n", b"Content-Length: -1\r\n\r\n"] {
        for read in half_sent(40, &message, rest, "1ms")? {
            ensure!(read == "40 B, Reset", "{read}");
        }
    }
    Ok(())
}
