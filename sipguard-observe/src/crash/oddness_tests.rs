use std::net::SocketAddr;

use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_core::counters::Action;

use super::*;
use crate::header::{Ends, Header};

const SECOND: u64 = 1_000_000_000;
const AGENTS: [&str; 4] =
    ["Yealink SIP-T46S 66.85", "Grandstream GXP2160", "snomD785/10.1", "PolycomVVX/5.9"];

fn packet(source: &str, tcp: bool, time_ns: u64, seq: u32, payload: &[u8]) -> TapPacket {
    let source: SocketAddr = source.parse().unwrap();
    let ends =
        Ends { from: sipguard_core::address::mapped(source.ip()), to: [0; 16], ports: [source.port(), 5060] };
    TapPacket {
        number: 0,
        time_ns,
        time: Timestamp::UNIX_EPOCH,
        count: 1,
        interface: String::new(),
        trunk: None,
        reason: Reason::Valid,
        action: Action::Pass,
        client: None,
        header: Some(Header { ends, tcp, seq, payload: 0..payload.len(), ..Header::default() }),
        frame: payload.to_vec(),
        frame_len: payload.len() as u32,
    }
}

/// A registration as a phone sends it, with what differs from one to the next.
fn register(phone: usize, number: u64, more: &str) -> Vec<u8> {
    let chance = (phone as u64 * 7919 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK{chance:x};rport\r\n\
         From: <sip:{phone}@pbx.example>;tag={chance:x}\r\nTo: <sip:{phone}@pbx.example>\r\nCall-ID: {chance:X}@192.0.2.7\r\n\
         CSeq: {number} REGISTER\r\nContact: <sip:{phone}@192.0.2.7:5060>\r\nUser-Agent: {}\r\nExpires: 300\r\n{more}\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        AGENTS[phone % 4]
    )
    .into_bytes()
}

/// A hundred phones that register every 20 seconds, until 100 s.
fn phones(phones: usize) -> Vec<TapPacket> {
    let mut packets = Vec::new();
    for phone in 0..phones {
        for number in 0..4u64 {
            let time_ns = (20 + number * 20) * SECOND + phone as u64 * 199_000_000;
            let source = format!("192.0.2.{}:{}", phone % 5, 4000 + phone);
            packets.push(packet(&source, false, time_ns, 0, &register(phone, number + 1, "")));
        }
    }
    packets.retain(|packet| packet.time_ns <= 100 * SECOND);
    packets
}

fn learned(packets: &[TapPacket]) -> Baseline {
    let mut baseline = Baseline::default();
    baseline.take(packets);
    baseline.settle(u64::MAX);
    baseline
}

#[test]
fn an_odd_packet_is_found_among_many() {
    for more in [
        "X-Firmware: a\r\n",
        "Allow: INVITE;weird=1\r\n",
        "Subject: %n%n%n\r\n",
        "Supported: path, \u{e9}t\u{e9}\r\n",
        "Expires: 000000000000000000000000000300\r\n",
    ] {
        let mut packets = phones(100);
        packets.push(packet("192.0.2.3:4033", false, 99 * SECOND + 990_000_000, 0, &register(33, 9, more)));
        for baseline in [Baseline::default(), learned(&phones(100))] {
            let suspects = rank(&packets, 100 * SECOND, &baseline, &[]);
            assert_eq!(suspects.len(), 100);
            assert_eq!(suspects[0].device.name, "sip:33@pbx.example", "{more}: {:?}", &suspects[..2]);
            assert!(
                suspects[0].assessment.score > suspects[1].assessment.score + 4.0,
                "{more}: {:?}",
                &suspects[..2]
            );
        }
    }
}

#[test]
fn what_all_send_or_what_came_after_is_not_odd() {
    let mut packets = phones(100);
    let death_ns = 100 * SECOND;
    packets.push(packet("192.0.2.3:4033", false, death_ns + 1, 0, &register(33, 9, "X-Firmware: a\r\n")));
    let suspects = rank(&packets, death_ns, &learned(&phones(100)), &[]);
    assert!(
        suspects[0].assessment.oddness < 8.0
            && suspects[0].assessment.score < suspects[1].assessment.score + 4.0,
        "{:?}",
        &suspects[..2]
    );
}

#[test]
fn a_rare_phone_that_was_always_there_is_no_suspect() {
    let rare = |number: u64| {
        let more = "X-Rare: one of a kind\r\nX-Vendor: only;mine=1\r\n";
        packet("192.0.2.4:4044", false, (20 + number * 19) * SECOND, 0, &register(44, number, more))
    };
    let mut packets = phones(100);
    packets.extend((0..4).map(rare));
    let baseline = learned(&packets);
    packets.push(packet("192.0.2.3:4033", false, 99 * SECOND, 0, &register(33, 9, "X-Firmware: a\r\n")));
    packets.push(packet(
        "192.0.2.4:4044",
        false,
        99 * SECOND + 900_000_000,
        0,
        &register(44, 9, "X-Rare: one of a kind\r\n"),
    ));
    let suspects = rank(&packets, 100 * SECOND, &baseline, &[]);
    assert_eq!(suspects[0].device.name, "sip:33@pbx.example", "{:?}", &suspects[..2]);
}

#[test]
fn the_last_of_equals_comes_first_and_whoever_was_there_before() {
    let packets = phones(100);
    let baseline = learned(&packets);
    let suspects = rank(&packets, 100 * SECOND, &baseline, &[]);
    let last = packets.iter().max_by_key(|packet| packet.time_ns).unwrap();
    assert_eq!(suspects[0].assessment.before_ms, (100 * SECOND - last.time_ns) as f64 / 1e6);
    let device = suspects[20].device.clone();
    let again = rank(&packets, 100 * SECOND, &baseline, &[vec![device.clone()], vec![device.clone()]]);
    assert_eq!(again[0].device, device, "{:?}", again[0]);
    assert!(
        again[0].assessment.why.iter().any(|why| why == "also before 2 of 2 earlier crashes"),
        "{:?}",
        again[0].assessment.why
    );
}

#[test]
fn a_message_in_segments_is_one_and_a_device_by_many_ports_too() {
    let mut packets = phones(100);
    let odd = register(33, 9, "X-Firmware: a\r\n");
    let (first, second) = odd.split_at(odd.len() - 60);
    for (port, time_ns) in [(5001, 90 * SECOND), (5002, 99 * SECOND)] {
        let source = format!("192.0.2.3:{port}");
        packets.push(packet(&source, true, time_ns, 7, first));
        packets.push(packet(&source, true, time_ns + 1000, 7 + first.len() as u32, second));
    }
    let suspects = rank(&packets, 100 * SECOND, &learned(&phones(100)), &[]);
    assert_eq!(suspects.len(), 100, "its ports are one device");
    assert_eq!((suspects[0].device.name.as_str(), suspects[0].port), ("sip:33@pbx.example", 5002));
    assert!(
        suspects[0].assessment.why[0].contains("no other of 99 devices"),
        "{:?}",
        suspects[0].assessment.why
    );
}

#[test]
fn a_number_with_one_digit_more_says_less_than_a_long_one() {
    let baseline = learned(&phones(100));
    let around = Around::of(&[]);
    let usual = message::read(&register(3, 1, ""))
        .features
        .into_iter()
        .find(|one| one.slot == "length:cseq")
        .unwrap();
    let bits = |token: &str| {
        let feature = Feature { slot: usual.slot.clone(), token: token.to_owned() };
        surprise(&feature, &around, &baseline, 99).0
    };
    let near = bits(&neighbours(&usual.token)[1]);
    let far = bits("1025 to 1536");
    assert!(
        far > 5.0 && (near - far * BESIDE).abs() < 1e-9,
        "{near} beside {}, {far} far from it",
        usual.token
    );
}
