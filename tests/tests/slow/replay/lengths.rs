//! Segments without a length, as a machine captures them before its card cuts them.

use anyhow::Result;
use sipguard_common::wire::{ipv4, ipv6};
use sipguard_tests::capture::{Form, whole};
use sipguard_tests::exclusive;
use sipguard_tests::message::good_call;
use sipguard_tests::packet::IP;
use sipguard_tests::scratch::Scratch;

use super::{connection, phone, reasons, replay, v6};

#[test]
fn segments_without_a_length_are_as_long_as_captured() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let call = good_call();
    let many = call.repeat(40_000 / call.len());
    let bad = b"no sense, and it is long enough\r\n".repeat(50);
    let segments: [&[u8]; 3] = [&many, &many[..4 * call.len()], &bad];
    for (peer, field) in [(phone(40_000), ipv4::TOTAL_LEN), (v6(), ipv6::PAYLOAD_LEN)] {
        let frames = connection(&peer, &segments);
        let (expected, _) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&frames)), &[])?;
        let mut without = frames;
        let data = 2..2 + segments.len();
        without[data].iter_mut().for_each(|frame| frame[IP + field..IP + field + 2].fill(0));
        let (report, _) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&without)), &[])?;
        assert_eq!(reasons(&report), reasons(&expected));
        assert_eq!(reasons(&report).get("bad-start-line"), Some(&1), "{report:#}");
        let notes = report["notes"].to_string();
        assert!(
            notes.contains("without a length in the IP header (segmentation offload): 3 packets"),
            "{notes}"
        );
    }
    // A segment that needs no cutting, and a datagram, have no such excuse.
    let mut short = connection(&phone(40_002), &[&call]);
    short[2][IP + ipv4::TOTAL_LEN..IP + ipv4::TOTAL_LEN + 2].fill(0);
    let (report, _) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&short)), &[])?;
    assert_eq!(reasons(&report).get("bad-ip-header"), Some(&1), "{report:#}");
    let mut datagram = phone(40_001).udp(&call);
    datagram[IP + ipv4::TOTAL_LEN..IP + ipv4::TOTAL_LEN + 2].fill(0);
    let (report, _) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&[datagram])), &[])?;
    assert_eq!(reasons(&report).get("bad-ip-header"), Some(&1), "{report:#}");
    Ok(())
}
