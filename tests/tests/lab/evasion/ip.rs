//! Ethernet and IP around the segments: fragments, extension headers, padding, tags.

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::uninterrupted,
    envelope::{
        Envelope, datagram,
        extension::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING},
    },
    guard::Site,
    lab::{DEVICE, FAMILIES, Lab},
    message::{negative_length, register},
    segment::Segment,
};

/// Sends a message in a segment that was bent, then plainly: the legal one arrives once, the malformed one never.
pub fn bent(lab: &Lab, family: usize, name: &str, bend: impl Fn(&mut Envelope)) -> Result<()> {
    lab.legal_over(family, name, |sender| {
        let message = register(1);
        let mut segment = sender.segment(&message);
        bend(&mut segment.envelope);
        sender.send(&segment)?;
        sender.push(&message)?;
        // And from here on everything.
        bend(&mut sender.envelope);
        message.chunks(50).try_for_each(|piece| sender.push(piece))?;
        sender.envelope = Envelope::new(DEVICE[family], Site::PBX[family]);
        sender.skip(0usize.wrapping_sub(message.len()));
        sender.push(&message)?;
        Ok(message.repeat(2))
    })?;
    bent_malformed(lab, family, name, bend)
}

/// The malformed half of [`bent`].
fn bent_malformed(lab: &Lab, family: usize, name: &str, bend: impl Fn(&mut Envelope)) -> Result<()> {
    let message = negative_length().bytes;
    lab.each_malicious(family, name, false, [1000, 60, 7], |sender, size| {
        bend(&mut sender.envelope);
        message.chunks(*size).try_for_each(|piece| sender.push(piece))?;
        sender.push(&register(1))?;
        sender.push(&message)
    })
}

#[test]
fn extension_headers_before_tcp() -> Result<()> {
    let lab = Lab::new(&[])?;
    for (name, extensions) in extensions() {
        let bend = |envelope: &mut Envelope| envelope.extensions.clone_from(&extensions);
        if name.starts_with("authentication") {
            // Without a key for it the kernel discards it.
            bent_malformed(&lab, 1, &name, bend)?;
        } else {
            bent(&lab, 1, &name, bend)?;
        }
    }
    Ok(())
}

/// Extension headers, as an envelope has them.
type Headers = Vec<(u8, Vec<u8>)>;

fn extensions() -> Vec<(String, Headers)> {
    let pad = vec![0, 0, 1, 4, 0, 0, 0, 0];
    // An experimental option to be skipped (RFC 4727); so much padding would be refused.
    let long = [&[0, 5, 0x1e, 44][..], &[0; 44]].concat();
    let routing = vec![0; 8];
    let fragment = vec![0, 0, 0, 0, 0, 0, 0, 9];
    let authentication = [&[0, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &[7; 12]].concat();
    [
        ("hop-by-hop options", vec![(HOP_BY_HOP, pad.clone())]),
        ("hop-by-hop options of 48 bytes", vec![(HOP_BY_HOP, long.clone())]),
        ("destination options", vec![(DESTINATION, pad.clone())]),
        ("routing header, no segment left", vec![(ROUTING, routing.clone())]),
        ("atomic fragment", vec![(FRAGMENT, fragment.clone())]),
        ("authentication header", vec![(AUTHENTICATION, authentication)]),
        (
            "four extension headers",
            vec![
                (HOP_BY_HOP, pad.clone()),
                (DESTINATION, pad.clone()),
                (FRAGMENT, fragment),
                (DESTINATION, long),
            ],
        ),
        ("seven destination options", vec![(DESTINATION, pad.clone()); 7]),
        ("nine destination options", vec![(DESTINATION, pad.clone()); 9]),
        ("forty destination options", vec![(DESTINATION, pad); 40]),
    ]
    .map(|(name, headers)| (name.to_owned(), headers))
    .into()
}

#[test]
fn extension_headers_before_udp() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        let application = lab.udp(family)?;
        let read = |payload: &[u8], extensions: &[(u8, Vec<u8>)]| {
            let mut envelope = Envelope::new(DEVICE[family], Site::PBX[family]);
            envelope.extensions = extensions.to_vec();
            lab.wire.send(&datagram(&envelope, 5060, 5060, payload))?;
            lab.settle()?;
            let mut got = [0; 2000];
            anyhow::Ok(
                uninterrupted(|| application.recv(&mut got)).is_ok_and(|length| got[..length] == *payload),
            )
        };
        let bad = [&b"REGISTER sip:a SIP/2.0\r\nX: \0\r\n"[..], &register(1)].concat();
        for (what, payload) in [("legal", &register(1)), ("malicious", &bad)] {
            let before = lab.counts()?;
            let plain = read(payload, &[])?;
            ensure!(plain || what == "malicious", "a plain datagram does not arrive");
            let mut passed = 0;
            for (name, headers) in extensions().into_iter().filter(|_| family == 1) {
                let arrived = read(payload, &headers)?;
                // The kernel of this machine may refuse some; the guard treats none better than the plain one.
                ensure!(plain || !arrived, "{name}: a datagram is read that is refused without it");
                let usual =
                    !name.contains("nine") && !name.contains("forty") && !name.contains("authentication");
                ensure!(!usual || arrived == plain, "{name}: a legal datagram does not arrive");
                passed += u32::from(arrived);
            }
            lab.note(
                "UDP: plain, and behind extension headers",
                what,
                family,
                &format!("{plain}, {passed} of 10"),
                &before,
            )?;
        }
    }
    Ok(())
}

#[test]
fn bytes_behind_the_packet() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for padding in [&b"\0\0\0\0\0\0"[..], b"\0malformed\r\n\r\n", &negative_length().bytes] {
            bent(&lab, family, &format!("{} bytes behind the packet", padding.len()), |envelope| {
                envelope.padding = padding.to_vec();
            })?;
        }
    }
    Ok(())
}

#[test]
fn ipv4_options() -> Result<()> {
    let lab = Lab::new(&[])?;
    for (name, options) in [
        ("no-operation", vec![1; 4]),
        ("no-operation, 40 bytes", vec![1; 40]),
        ("router alert", vec![148, 4, 0, 0]),
        ("record route", [&[7, 39, 4][..], &[0; 36], &[0]].concat()),
        ("timestamp", [&[68, 36, 5, 0][..], &[0; 32]].concat()),
    ] {
        bent(&lab, 0, &format!("IPv4 option: {name}"), |envelope| envelope.options.clone_from(&options))?;
    }
    Ok(())
}

#[test]
fn tags() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        // Tags of VLAN 0 carry a priority and no VLAN, and the kernel takes them off by itself.
        for tags in [vec![0], vec![0, 0]] {
            bent(&lab, family, &format!("802.1Q tags {tags:?}"), |envelope| envelope.tags.clone_from(&tags))?;
        }
        // A VLAN that this machine is not in.
        for tags in [vec![7], vec![0, 7], vec![7, 0], vec![7, 7, 7]] {
            lab.malicious_over(family, &format!("802.1Q tags {tags:?}"), |sender| {
                sender.envelope.tags.clone_from(&tags);
                sender.push(&negative_length().bytes)?;
                sender.envelope.tags.clear();
                sender.push(&register(1))
            })?;
        }
    }
    Ok(())
}

/// Sends the segment in fragments.
type Cut = fn(&Segment) -> Vec<Vec<u8>>;

#[test]
fn fragments() -> Result<()> {
    let lab = Lab::new(&[])?;
    let cuts: [(&str, Cut); 8] = [
        ("two fragments", |segment| segment.fragments(&[0..40, 40..segment.bytes().len()])),
        ("two fragments, the last first", |segment| segment.fragments(&[40..segment.bytes().len(), 0..40])),
        ("the smallest first fragment", |segment| segment.fragments(&[0..8, 8..segment.bytes().len()])),
        ("many fragments", |segment| {
            let end = segment.bytes().len();
            segment.fragments(&(0..end).step_by(8).map(|at| at..(at + 8).min(end)).collect::<Vec<_>>())
        }),
        ("overlapping fragments", |segment| {
            let end = segment.bytes().len();
            segment.fragments(&[0..48, 24..end, 0..48, 40..end])
        }),
        ("fragments that cover the ports again", |segment| {
            let mut other = segment.clone();
            other.ports[1] = 6060;
            let end = segment.bytes().len();
            [other.fragments(&[0..40, 40..end])[..1].to_vec(), segment.fragments(&[0..24, 40..end])].concat()
        }),
        ("the TCP header in the second fragment", |segment| {
            let mut behind = segment.clone();
            let long = segment.envelope.from.is_ipv6();
            if long {
                behind.envelope.extensions = vec![(DESTINATION, vec![0, 0, 1, 4, 0, 0, 0, 0]); 2];
            }
            behind.fragments(&[0..16, 16..behind.bytes().len() + if long { 16 } else { 0 }])
        }),
        ("one fragment that is all", |segment| {
            segment.fragments(std::slice::from_ref(&(0..segment.bytes().len())))
        }),
    ];
    for family in FAMILIES {
        for (name, cut) in cuts {
            lab.legal_over(family, name, |sender| {
                let message = register(1);
                let segment = sender.segment(&message);
                for frame in cut(&segment) {
                    sender.send_frame(&frame)?;
                }
                // TCP sends it again, not in fragments.
                sender.push(&message)?;
                sender.push(&message)?;
                Ok(message.repeat(2))
            })?;
            lab.malicious_over(family, name, |sender| {
                let segment = sender.segment(&negative_length().bytes);
                for frame in cut(&segment) {
                    sender.send_frame(&frame)?;
                }
                Ok(())
            })
            .map(drop)
            .context("fragments")?;
        }
    }
    Ok(())
}
