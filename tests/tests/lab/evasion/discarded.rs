//! Segments that the kernel discards, and what they may not do: move the guard away from the stream that the application reads.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use sipguard_tests::{
    envelope::extension::{DESTINATION, HOP_BY_HOP, ROUTING},
    lab::{FAMILIES, Lab},
    message::register,
    segment::Segment,
};

/// A way to make the kernel discard a segment that would do otherwise.
pub struct Discarder {
    /// What is wrong with it.
    pub name: &'static str,
    /// Spoils a segment.
    pub spoil: fn(&mut Segment),
}

/// Those of an address family.
pub fn discarders(family: usize) -> Vec<Discarder> {
    let make = |name, spoil| Discarder { name, spoil };
    let mut all = vec![
        make("bad TCP checksum", |segment| segment.bad_checksum = true),
        make("ACK of what was not sent", |segment| segment.ack = segment.ack.wrapping_add(1 << 20)),
        make("ACK of long ago", |segment| segment.ack = segment.ack.wrapping_sub(1 << 26)),
        make("old timestamp", |segment| {
            segment.timestamps = segment.timestamps.map(|[value, echo]| [value.wrapping_sub(500_000), echo]);
        }),
        make("MD5 signature", |segment| {
            segment.options = [&[1, 1, 19, 18][..], &[7; 16]].concat();
        }),
        make("another's Ethernet address", |segment| segment.envelope.to_mac = [2, 0, 0, 0, 0, 0x77]),
    ];
    if family == 0 {
        all.extend([
            make("bad IPv4 checksum", |segment| segment.envelope.bad_checksum = true),
            make("loose source route", |segment| {
                segment.envelope.options = vec![131, 7, 4, 10, 77, 0, 9, 1];
            }),
            make("the same addresses mapped into IPv6", |segment| {
                for address in [&mut segment.envelope.from, &mut segment.envelope.to] {
                    if let IpAddr::V4(v4) = address {
                        *address = IpAddr::V6(v4.to_ipv6_mapped());
                    }
                }
            }),
        ]);
    } else {
        all.extend([
            make("hop-by-hop options in second place", |segment| {
                let options = vec![0, 0, 1, 4, 0, 0, 0, 0];
                segment.envelope.extensions = vec![(DESTINATION, options.clone()), (HOP_BY_HOP, options)];
            }),
            make("unknown option", |segment| {
                segment.envelope.extensions = vec![(DESTINATION, vec![0, 0, 0xc5, 4, 0, 0, 0, 0])];
            }),
            make("routing header with a segment left", |segment| {
                let header = [&[0, 2, 0, 1, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
                segment.envelope.extensions = vec![(ROUTING, header)];
            }),
        ]);
    }
    all
}

/// A registration, and the same malformed: with a NUL in a header line.
fn faces() -> (Vec<u8>, Vec<u8>) {
    let good = register(1);
    let mut bad = good.clone();
    bad[60] = 0;
    (good, bad)
}

#[test]
fn the_kernel_discards_them_indeed() -> Result<()> {
    let lab = Lab::unguarded()?;
    for family in FAMILIES {
        for Discarder { name, spoil } in discarders(family) {
            let (mut sender, mut witness) = lab.connect(family, 100)?;
            let mut segment = sender.segment(b"discarded");
            spoil(&mut segment);
            sender.send(&segment)?;
            lab.settle()?;
            ensure!(witness.read()?.is_empty(), "{name}: the application read it");
            sender.push(b"good")?;
            lab.settle()?;
            ensure!(witness.read()? == b"good", "{name}: it does not go on");
        }
    }
    Ok(())
}

#[test]
fn the_same_bytes_again_arrive() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for Discarder { name, spoil } in discarders(family) {
            lab.legal_over(family, &format!("{name}, then the same bytes again"), |sender| {
                let (good, _) = faces();
                let mut spoiled = sender.segment(&good);
                spoil(&mut spoiled);
                sender.send(&spoiled)?;
                sender.push(&good)?;
                sender.push(&good)?;
                Ok(good.repeat(2))
            })?;
        }
    }
    Ok(())
}

#[test]
fn other_bytes_in_their_place_are_not_read() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for Discarder { name, spoil } in discarders(family) {
            let (good, bad) = faces();
            let longer = [&bad[..], &good].concat();
            // As long as the first, shorter, longer, and from the middle of it on.
            let second = [(0, bad.clone()), (0, bad[..100].to_vec()), (0, longer), (0, bad[..61].to_vec())];
            let name = format!("{name}, then malformed ones in their place");
            lab.each_malicious(family, &name, false, second, |sender, (ahead, second)| {
                let mut spoiled = sender.segment(&good);
                spoil(&mut spoiled);
                sender.send(&spoiled)?;
                let conflicting = sender.segment_at(*ahead, second);
                sender.send(&conflicting)?;
                // And in two pieces.
                let (first, rest) = second.split_at(50);
                let first = sender.segment(first);
                let rest = sender.segment_at(50, rest);
                sender.send(&first)?;
                sender.send(&rest)
            })?;
        }
    }
    Ok(())
}

#[test]
fn malformed_ones_are_not_read_either() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for Discarder { name, spoil } in discarders(family) {
            let (good, bad) = faces();
            // The guard may take the first for an end of the stream that the kernel knows nothing of.
            lab.malicious_over(family, &format!("{name}: malformed, then malformed and good"), |sender| {
                let mut spoiled = sender.segment(&bad);
                spoil(&mut spoiled);
                sender.send(&spoiled)?;
                sender.send(&spoiled)?;
                sender.push(&bad)?;
                sender.push(&good)
            })?;
        }
    }
    Ok(())
}

/// The first half of a message, in its header section, with its Content-Length; and what continues it such that the application
/// reads something malformed while a guard that has lost its place would see a message with a body.
pub fn halves() -> (Vec<u8>, Vec<u8>) {
    let first = b"MESSAGE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nContent-Length: 0\r\n".to_vec();
    let second =
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 40\r\n\r\n\0\0\0\0malformed as can be\r\n\r\n\0\0\0\0"
            .to_vec();
    (first, second)
}
