//! The table of public bug reports in a capture.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sipguard_tests::capture::{Form, whole};
use sipguard_tests::cases::{Expected, cases};
use sipguard_tests::exclusive;
use sipguard_tests::scratch::Scratch;

use super::{phone, replay, stopped};

/// What is said of a capture is what the attached guard does.
#[test]
fn messages_of_public_bug_reports_as_expected() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let (mut frames, mut expected) = (Vec::new(), BTreeMap::new());
    let mut port = 40_000u16;
    for case in cases()? {
        // No time passes in a capture.
        if case.tcp_port != 5060 || case.expected == Expected::Ends {
            continue;
        }
        for connection in &case.tcp {
            port += 1;
            let pieces: Vec<&[u8]> = connection.iter().flat_map(|write| write.chunks(1400)).collect();
            frames.extend(super::connection(&phone(port), &pieces));
            expected.insert(port, (case.id.clone(), case.expected));
        }
        for datagram in case.udp.iter().filter(|datagram| datagram.len() < 1400) {
            port += 1;
            frames.push(phone(port).udp(datagram));
            expected.insert(port, (case.id.clone(), case.expected));
        }
    }
    let (report, _) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&frames)), &[])?;
    let accused: Vec<u16> =
        stopped(&report).iter().filter_map(|(source, ..)| source.split(' ').nth(1)?.parse().ok()).collect();
    for (port, (id, expected)) in expected {
        let should = matches!(expected, Expected::Refused | Expected::FrontOnly);
        ensure!(accused.contains(&port) == should, "{id} at port {port}: {expected:?}, {report:#}");
    }
    Ok(())
}
