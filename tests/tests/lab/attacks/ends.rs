//! Ends and beginnings that the PBX ignores: whoever believes them loses the stream that the application goes on reading.

use anyhow::Result;
use sipguard_tests::{
    lab::{FAMILIES, Lab},
    message::register,
    packet::{ACK, FIN, RST},
    segment::Segment,
    sender::Sender,
    setting::Setting,
};

use super::stage::{Table, expect_judged, expect_read, first, lab, unguarded};

/// A name for, and a way of, bending a segment.
type Bend = (&'static str, fn(&mut Segment));

/// Ways to make the PBX's kernel ignore a segment.
const IGNORED: [Bend; 5] = [
    ("a wrong checksum", |segment| segment.bad_checksum = true),
    ("a place 1 behind", |segment| segment.seq = segment.seq.wrapping_sub(1)),
    ("a place far off", |segment| segment.seq = segment.seq.wrapping_add(1 << 30)),
    ("an MD5 signature", |segment| segment.options = [&[1, 1, 19, 18][..], &[7; 16]].concat()),
    ("an ACK of what was not sent", |segment| segment.ack = segment.ack.wrapping_add(1 << 20)),
];
const ENDS: [(&str, u8); 3] = [("RST", RST), ("RST, ACK", RST | ACK), ("FIN, ACK", FIN | ACK)];

/// The first part of a message, within its headers; and what goes on with it, malformed, which alone is a message with a body.
const PARTS: [&[u8]; 2] = [
    b"MESSAGE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nContent-Length: 0\r\n",
    b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 40\r\n\r\n\0\0\0\0malformed as can be\r\n\r\n\0\0\0\0",
];

/// An end that is ignored, and the SYN of a connection that would begin where this one stands.
fn end(sender: &mut Sender<'_>, flags: u8, spoil: fn(&mut Segment)) -> Result<()> {
    let mut end = sender.bare(flags);
    spoil(&mut end);
    sender.send(&end)?;
    let syn = sender.syn();
    sender.send(&syn)?;
    sender.lab().settle()
}

fn malicious(lab: &Lab, family: usize, flags: u8, spoil: fn(&mut Segment)) -> Result<String> {
    let (mut sender, mut witness) = lab.connect(family, first())?;
    sender.push(PARTS[0])?;
    end(&mut sender, flags, spoil)?;
    sender.push(PARTS[1])?;
    expect_judged(lab, &mut witness)
}

fn legal(lab: &Lab, family: usize, flags: u8, spoil: fn(&mut Segment)) -> Result<String> {
    let (mut sender, mut witness) = lab.connect(family, first())?;
    let message = register(1);
    sender.push(&message[..100])?;
    end(&mut sender, flags, spoil)?;
    sender.push(&message[100..])?;
    sender.push(&register(2))?;
    expect_read(lab, &mut witness, &[message, register(2)].concat())
}

/// What makes the machine with the guard answer with an RST of its own, as it does for what it does not translate: an answer that looks as if it
/// were the PBX's, which has never heard of it.
const PROVOKING: [Bend; 2] = [
    ("data far ahead", |segment| {
        segment.seq = segment.seq.wrapping_add(1 << 30);
        segment.payload = b"X: y\r\n".to_vec();
    }),
    ("data far behind", |segment| {
        segment.seq = segment.seq.wrapping_sub(1 << 30);
        segment.payload = b"X: y\r\n".to_vec();
    }),
];

#[test]
fn an_end_that_the_pbx_ignores_is_none() -> Result<()> {
    let mut table = Table::new("END");
    for setting in Setting::tried()? {
        let (lab, bare) = (lab(setting)?, unguarded(setting)?);
        for family in FAMILIES {
            for (what, flags) in ENDS {
                for (why, spoil) in IGNORED {
                    let outcome = legal(&bare, family, flags, spoil);
                    if outcome.is_err() {
                        // The PBX does not ignore this one: an RST acknowledges nothing.
                        continue;
                    }
                    let technique = format!("{what} with {why}, SYN, then it goes on");
                    table.row(&technique, setting, family, legal(&lab, family, flags, spoil));
                    let technique = format!("{what} with {why}, SYN, then malformed");
                    table.row(&technique, setting, family, malicious(&lab, family, flags, spoil));
                }
            }
            for (what, spoil) in PROVOKING {
                let technique = format!("{what}, SYN, then it goes on");
                table.row(&technique, setting, family, legal(&lab, family, ACK, spoil));
                let technique = format!("{what}, SYN, then malformed");
                table.row(&technique, setting, family, malicious(&lab, family, ACK, spoil));
            }
            let nothing: fn(&mut Segment) = |_| {};
            table.row(
                "SYN in a message, then it goes on",
                setting,
                family,
                legal(&lab, family, ACK, nothing),
            );
            table.row(
                "SYN in a message, then malformed",
                setting,
                family,
                malicious(&lab, family, ACK, nothing),
            );
        }
    }
    table.end()
}
