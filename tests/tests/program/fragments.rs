//! UDP in IP fragments through the loaded program: headers that go on behind the first fragment are judged in order, and only
//! in order.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_common::abi::{DATAGRAM_REFUSED, FragmentKey, MODE_MONITOR};
use sipguard_common::framer::checks;
use sipguard_tests::message::{call, register};
use sipguard_tests::packet::{IP, Peer, TCP4, TCP6};
use sipguard_tests::program::{Program, Run, XDP_DROP, XDP_PASS};

/// A device of each address family.
fn devices() -> [Peer; 2] {
    [
        Peer::new("192.0.2.7:40000", "198.51.100.1:5060"),
        Peer::new("[2001:db8::7]:40000", "[2001:db8:1::1]:5060"),
    ]
}

/// A legal call whose header section has about 1300 bytes, with a body.
fn long() -> Vec<u8> {
    let routes = "Record-Route: <sip:192.0.2.1;lr>\r\n".repeat(28);
    call(&format!("{routes}Content-Length: 400\r\n"), &[b'b'; 400])
}

/// Three parts of [`long`] whose headers end in the third.
fn thirds() -> [Range<usize>; 3] {
    [0..400, 400..800, 800..8 + long().len()]
}

/// The call with a NUL in the byte at `at`.
fn bad_at(at: usize) -> Vec<u8> {
    let mut message = long();
    message[at] = 0;
    message
}

fn run_all(program: &mut Program, frames: &[Vec<u8>]) -> Result<Vec<Run>> {
    frames.iter().map(|frame| program.run(frame)).collect()
}

fn reasons(program: &mut Program, frames: &[Vec<u8>]) -> Result<Vec<Reason>> {
    Ok(run_all(program, frames)?.into_iter().map(|run| run.reason).collect())
}

/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn headers_are_judged_over_all_fragments() -> Result<()> {
    use Reason::{ControlByte, Valid};
    for peer in devices() {
        let mut program = Program::shared()?;
        let good = run_all(&mut program, &peer.udp_parts(&long(), 1, &thirds()))?;
        assert!(good.iter().all(|run| (run.reason, run.action) == (Valid, XDP_PASS)), "{good:?}");
        let second = run_all(&mut program, &peer.udp_parts(&bad_at(500), 2, &thirds()))?;
        let third = run_all(&mut program, &peer.udp_parts(&bad_at(900), 3, &thirds()))?;
        let ends = |runs: &[Run]| runs.iter().map(|run| (run.reason, run.action)).collect::<Vec<_>>();
        let (passed, dropped) = ((Valid, XDP_PASS), (ControlByte, XDP_DROP));
        assert_eq!(ends(&second), [passed, dropped, dropped], "what follows is dropped too");
        assert_eq!(ends(&third), [passed, passed, dropped]);
        // A body is not looked at.
        assert_eq!(reasons(&mut program, &peer.udp_parts(&bad_at(1500), 4, &thirds()))?, [Valid; 3]);

        let offenders = program.offenders()?;
        let [(key, offender)] = &offenders[..] else { panic!("one offender, not {offenders:?}") };
        assert_eq!(u16::from_be_bytes(key.port), 40000);
        assert_eq!(offender.packets, 2, "once a datagram");
        let sample = &offender.sample[..offender.sample_len as usize];
        let starts = [&bad_at(500)[392..456], &bad_at(900)[792..856]];
        assert!(starts.iter().any(|start| sample.starts_with(start)), "the fragment's own bytes");
    }
    Ok(())
}

#[test]
fn only_in_order_it_completes() -> Result<()> {
    let complete = call("Content-Length: 900\r\n", &[0; 900]);
    for peer in devices() {
        for order in ORDERS {
            let mut program = Program::shared()?;
            let parts = order.map(|part| thirds()[part].clone());
            let runs = run_all(&mut program, &peer.udp_parts(&long(), 1, &parts))?;
            let passed = runs.iter().filter(|run| run.action == XDP_PASS).count();
            assert_eq!(passed == 3, order == [0, 1, 2], "{order:?}: {runs:?}");
            assert!(runs.iter().all(|run| !run.reason.is_malformed()), "{order:?}: {runs:?}");
            assert!(program.offenders()?.is_empty());

            let end = 8 + complete.len();
            let parts = order.map(|part| [0..600, 600..800, 800..end][part].clone());
            let runs = run_all(&mut program, &peer.udp_parts(&complete, 2, &parts))?;
            let expected = |run: &Run| [Reason::Valid, Reason::NotGuarded].contains(&run.reason);
            assert!(runs.iter().all(expected), "headers that end in the first: {order:?}: {runs:?}");

            // Behind the end of the headers any order will do.
            let parts = [0..400, 400..1320, 1400..1480, 1320..1400, 1480..8 + long().len()];
            let end = long().windows(4).position(|end| end == b"\r\n\r\n").context("an end")? + 12;
            assert!((400..1320).contains(&end), "{end}");
            assert_eq!(reasons(&mut program, &peer.udp_parts(&long(), 3, &parts))?, [Reason::Valid; 5]);
        }
    }
    Ok(())
}

#[test]
fn gaps_overlaps_and_repetitions_are_dropped() -> Result<()> {
    use Reason::{FragmentOrder, Valid};
    for peer in devices() {
        let mut program = Program::shared()?;
        let end = 8 + long().len();
        let ways: [(Range<usize>, Reason); 10] = [
            (0..400, Valid),
            (408..800, FragmentOrder),
            (392..800, FragmentOrder),
            (0..400, FragmentOrder),
            (400..800, Valid),
            (400..800, FragmentOrder),
            (400..end, FragmentOrder),
            (800..end, Valid),
            (800..end, FragmentOrder),
            (0..400, FragmentOrder),
        ];
        for (part, reason) in ways {
            let frames = peer.udp_parts(&long(), 1, std::slice::from_ref(&part));
            let run = program.run(&frames[0])?;
            assert_eq!(run.reason, reason, "{part:?}");
            assert_eq!(run.action, if reason == Valid { XDP_PASS } else { XDP_DROP });
        }
    }
    Ok(())
}

/// What comes early is remembered also when another first fragment comes between that has no need of it.
#[test]
fn a_fragment_before_the_first_ends_the_datagram() -> Result<()> {
    let complete = call("Content-Length: 900\r\n", &[0; 900]);
    for peer in devices() {
        let mut program = Program::shared()?;
        let tail = peer.udp_parts(&bad_at(500), 1, &[400..800, 800..8 + long().len()]);
        assert_eq!(reasons(&mut program, &tail)?, [Reason::NotGuarded; 2]);
        let other = &peer.udp_parts(&complete, 1, &[0..600, 600..908])[0];
        assert_eq!(program.run(other)?.reason, Reason::Valid);
        let [first] = &peer.udp_parts(&bad_at(500), 1, std::slice::from_ref(&(0..400)))[..] else { panic!() };
        for _ in 0..2 {
            let run = program.run(first)?;
            assert_eq!((run.reason, run.action), (Reason::FragmentOrder, XDP_DROP));
        }
        assert_eq!(program.run(&tail[0])?.reason, Reason::FragmentOrder);
        // Not so for another datagram, sender or receiver.
        assert_eq!(reasons(&mut program, &peer.udp_parts(&long(), 2, &thirds()))?, [Reason::Valid; 3]);
        let mut neighbour = peer.clone();
        neighbour.remote.set_ip(if peer.remote.is_ipv4() {
            "192.0.2.8".parse()?
        } else {
            "2001:db8::8".parse()?
        });
        assert_eq!(reasons(&mut program, &neighbour.udp_parts(&long(), 1, &thirds()))?, [Reason::Valid; 3]);
    }
    Ok(())
}

#[test]
fn an_id_may_come_again_after_a_while() -> Result<()> {
    for peer in devices() {
        // The kernel's 30 and 60 seconds have passed, or not yet.
        let units = if peer.remote.is_ipv4() { [28, 34] } else { [56, 64] };
        let mut program = Program::shared()?;
        let frames = peer.udp_parts(&long(), 1, &thirds());
        let bad = peer.udp_parts(&bad_at(500), 1, &thirds());
        let age = |program: &mut Program, units: u32| -> Result<()> {
            for (key, mut datagram) in program.datagrams()? {
                datagram.until_ns = datagram.until_ns.saturating_sub(u64::from(units) << 30);
                program.set_datagram(key, datagram)?;
            }
            Ok(())
        };
        for next in [&bad, &frames] {
            assert_eq!(program.run(&frames[0])?.reason, Reason::Valid);
            assert_eq!(program.run(&frames[1])?.reason, Reason::Valid);
            age(&mut program, units[0])?;
            assert_eq!(program.run(&next[0])?.reason, Reason::FragmentOrder);
            age(&mut program, units[1] - units[0])?;
            let begun = reasons(&mut program, &next[..2])?;
            assert_eq!(begun[0], Reason::Valid, "it begins anew");
            assert_eq!(begun[1], if next == &bad { Reason::ControlByte } else { Reason::Valid });
            age(&mut program, units[1])?;
        }
        // A later one behind a first one that is forgotten is one without its first.
        assert_eq!(reasons(&mut program, &frames[1..])?, [Reason::NotGuarded; 2]);
        program.age_early_fragments(units[0])?;
        assert_eq!(program.run(&frames[0])?.reason, Reason::FragmentOrder);
        program.age_early_fragments(units[1] - units[0])?;
        age(&mut program, units[1])?;
        assert_eq!(reasons(&mut program, &frames)?, [Reason::Valid; 3]);
    }
    Ok(())
}

#[test]
fn fragments_of_other_ports_pass_in_any_order() -> Result<()> {
    for mut peer in devices() {
        let mut program = Program::shared()?;
        peer.local.set_port(53);
        for (id, order) in ORDERS.iter().enumerate() {
            let parts = order.map(|part| thirds()[part].clone());
            let twice = [parts.clone(), parts].concat();
            let got = reasons(&mut program, &peer.udp_parts(&bad_at(500), id as u32, &twice))?;
            assert_eq!(got, [Reason::NotGuarded; 6], "{order:?}");
        }
        assert!(program.datagrams()?.is_empty());
    }
    Ok(())
}

/// RFC 8200 section 4.5: the next header of the first fragment counts.
#[test]
fn ipv6_fragments_belong_together_whatever_protocol_they_say() -> Result<()> {
    let [_, peer] = devices();
    for protocol in [6, 0, 44, 58, 59, 60, 255] {
        let mut program = Program::shared()?;
        let mut frames = peer.udp_parts(&bad_at(500), 1, &thirds());
        frames[1][TCP6] = protocol;
        let expected = [Reason::Valid, Reason::ControlByte, Reason::ControlByte];
        assert_eq!(reasons(&mut program, &frames)?, expected, "next header {protocol}");
        // The same before the first one.
        let mut frames = peer.udp_parts(&bad_at(500), 2, &thirds());
        frames[1][TCP6] = protocol;
        frames.swap(0, 1);
        assert_eq!(reasons(&mut program, &frames)?[1], Reason::FragmentOrder, "next header {protocol}");
    }
    Ok(())
}

#[test]
fn extension_headers_and_tags_are_walked() -> Result<()> {
    let [v4, v6] = devices();
    let pad = [1, 4, 0, 0, 0, 0];
    let options = |frame: &mut Vec<u8>, number: u8| {
        let next = std::mem::replace(&mut frame[IP + 6], number);
        frame.splice(TCP6..TCP6, [&[next, 0][..], &pad].concat());
        let length = (frame.len() - TCP6) as u16;
        frame[IP + 4..IP + 6].copy_from_slice(&length.to_be_bytes());
    };
    // Before the fragment header.
    for (number, id) in [(0, 1), (60, 2)] {
        let mut program = Program::shared()?;
        let mut frames = v6.udp_parts(&bad_at(900), id, &thirds());
        frames.iter_mut().for_each(|frame| options(frame, number));
        let expected = [Reason::Valid, Reason::Valid, Reason::ControlByte];
        assert_eq!(reasons(&mut program, &frames)?, expected);
    }
    // Behind it, as a part of what is in fragments.
    for (message, last) in [(long(), Reason::Valid), (bad_at(900), Reason::ControlByte)] {
        let mut program = Program::shared()?;
        let mut frames = v6.udp_parts(&message, 1, &thirds());
        for (number, frame) in frames.iter_mut().enumerate() {
            if number == 0 {
                frame[TCP6] = 60;
                frame.splice(TCP6 + 8..TCP6 + 8, [&[17, 0][..], &pad].concat());
                let length = (frame.len() - TCP6) as u16;
                frame[IP + 4..IP + 6].copy_from_slice(&length.to_be_bytes());
            } else {
                let offset = u16::from_be_bytes(frame[TCP6 + 2..TCP6 + 4].try_into()?) + 8;
                frame[TCP6 + 2..TCP6 + 4].copy_from_slice(&offset.to_be_bytes());
            }
        }
        assert_eq!(reasons(&mut program, &frames)?, [Reason::Valid, Reason::Valid, last]);
    }
    // A fragment header within a fragment.
    for outer in [[0, 1], [0, 0], [0, 9]] {
        let mut program = Program::shared()?;
        // The inner one says that it is the first of several, or all.
        let [high, low] = outer;
        let part = 0..if low == 1 { 8 + long().len() } else { 800 };
        let mut frame = v6.udp_parts(&long(), 1, std::slice::from_ref(&part)).remove(0);
        frame.splice(TCP6..TCP6, [44, 0, high, low, 0, 0, 0, 5]);
        let length = (frame.len() - TCP6) as u16;
        frame[IP + 4..IP + 6].copy_from_slice(&length.to_be_bytes());
        let reason = if low == 9 { Reason::NotGuarded } else { Reason::BadIpHeader };
        assert_eq!(program.run(&frame)?.reason, reason, "{outer:?}");
    }
    // Tags are no part of what the kernel tells datagrams by.
    for peer in [v4, v6] {
        let mut program = Program::shared()?;
        let mut frames = peer.udp_parts(&bad_at(900), 1, &thirds());
        for (tags, frame) in frames.iter_mut().enumerate() {
            for _ in 0..tags {
                frame.splice(12..12, [0x81, 0, 0, 7]);
            }
        }
        assert_eq!(reasons(&mut program, &frames)?, [Reason::Valid, Reason::Valid, Reason::ControlByte]);
    }
    Ok(())
}

/// Fragments that the driver hands over in several buffers.
#[test]
fn large_fragments_are_judged() -> Result<()> {
    for peer in devices() {
        let mut program = Program::shared()?;
        let lines = format!("Record-Route: <sip:192.0.2.1;lr;x={}>\r\n", "x".repeat(130)).repeat(90);
        let good = call(&format!("{lines}Content-Length: 40000\r\n"), &[0; 40_000]);
        let mut bad = good.clone();
        bad[14_000] = 0;
        for (id, (message, reason)) in
            [(&good, Reason::Valid), (&bad, Reason::ControlByte)].iter().enumerate()
        {
            let parts = [0..8000, 8000..15_000, 15_000..50_000, 50_000..8 + good.len()];
            let got = reasons(&mut program, &peer.udp_parts(message, id as u32, &parts))?;
            assert_eq!(got[..2], [Reason::Valid, *reason]);
            let parts = [0..8000, 8000..50_000, 50_000..8 + good.len()];
            let got = reasons(&mut program, &peer.udp_parts(message, 10 + id as u32, &parts))?;
            assert_eq!(got, [Reason::Valid, *reason, *reason]);
        }
    }
    Ok(())
}

#[test]
fn ip_options_of_ipv4_are_walked() -> Result<()> {
    let [peer, _] = devices();
    let mut program = Program::shared()?;
    let mut frames = peer.udp_parts(&bad_at(900), 1, &thirds());
    for frame in &mut frames {
        frame.splice(TCP4..TCP4, [1, 1, 1, 1]);
        frame[IP] = 0x46;
        let total = (frame.len() - IP) as u16;
        frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
    }
    assert_eq!(reasons(&mut program, &frames)?, [Reason::Valid, Reason::Valid, Reason::ControlByte]);
    Ok(())
}

#[test]
fn the_udp_length_ends_the_message() -> Result<()> {
    for peer in devices() {
        let udp_at = if peer.remote.is_ipv4() { TCP4 } else { TCP6 + 8 };
        let mut program = Program::shared()?;
        let mut claim = |id: u32, length: u16, parts: &[Range<usize>]| -> Result<Vec<Reason>> {
            let mut frames = peer.udp_parts(&bad_at(900), id, parts);
            frames[0][udp_at + 4..udp_at + 6].copy_from_slice(&length.to_be_bytes());
            reasons(&mut program, &frames)
        };
        // All that the application reads stands in the first fragment, or in the second.
        assert_eq!(claim(1, 300, &thirds())?[0], Reason::NoEndOfHeaders);
        assert_eq!(claim(2, 700, &thirds())?[..2], [Reason::Valid, Reason::NoEndOfHeaders]);
        assert_eq!(claim(3, 800, &thirds())?[..2], [Reason::Valid, Reason::NoEndOfHeaders]);
        assert_eq!(claim(4, 12, &thirds())?[0], Reason::NatPing);
        assert_eq!(claim(5, 8, &thirds())?[0], Reason::NatPing);
        // It ends before that: the kernel discards it.
        let end = 8 + long().len();
        assert_eq!(claim(6, 2000, &[0..400, 400..end])?, [Reason::Valid, Reason::BadUdpHeader]);
    }
    Ok(())
}

#[test]
fn what_is_cut_where_none_may_be_is_dropped() -> Result<()> {
    for peer in devices() {
        let mut program = Program::shared()?;
        // The kernel cuts off what is over, or refuses it.
        let first = peer.udp_parts(&long(), 1, std::slice::from_ref(&(0..401)));
        assert_eq!(reasons(&mut program, &first)?, [Reason::FragmentOrder]);
        let later = peer.udp_parts(&long(), 2, &[0..400, 400..801, 400..400, 400..800]);
        let [a, b, c, d] = reasons(&mut program, &later)?[..] else { panic!() };
        assert_eq!(
            (a, b, c, d),
            (Reason::Valid, Reason::FragmentOrder, Reason::FragmentOrder, Reason::Valid)
        );
    }
    Ok(())
}

#[test]
fn the_end_is_judged_as_that_of_a_whole_datagram() -> Result<()> {
    for peer in devices() {
        let mut program = Program::shared()?;
        let good = long();
        let headers = good.windows(4).position(|end| end == b"\r\n\r\n").context("an end")?;
        let text = "OPTIONS sip:a".to_owned() + &"b".repeat(1000);
        let cases: [(&[u8], Reason); 4] = [
            (&good[..headers], Reason::NoEndOfHeaders),
            (text.as_bytes(), Reason::BadStartLine),
            (&b"\r\n".repeat(400), Reason::NatPing),
            (&[&b"\r\n".repeat(300)[..], b"no sense\r\n\r\n", &register(1)].concat(), Reason::BadStartLine),
        ];
        for (id, (message, reason)) in cases.iter().enumerate() {
            let end = 8 + message.len();
            let frames = peer.udp_parts(message, id as u32, &[0..400, 400..600, 600..end]);
            let got = reasons(&mut program, &frames)?;
            let idle = *reason == Reason::NatPing || id == 3;
            assert_eq!(got[..2], [if idle { Reason::NatPing } else { Reason::Valid }; 2][..2].to_vec());
            assert_eq!(got[2], *reason, "{}", message.escape_ascii());
        }
        // A body that is shorter than it says, in the strict profile, wherever the headers end.
        program.change(|settings| settings.limits.checks |= checks::WHOLE_BODY)?;
        let short = &good[..good.len() - 1];
        for (id, first) in [400, 1384].into_iter().enumerate() {
            let parts = [0..first, first..8 + short.len()];
            let got = reasons(&mut program, &peer.udp_parts(short, 10 + id as u32, &parts))?;
            assert_eq!(got[usize::from(first == 400)], Reason::TruncatedBody);
            let parts = [0..first, first..8 + good.len()];
            let got = reasons(&mut program, &peer.udp_parts(&good, 20 + id as u32, &parts))?;
            assert!(!got.contains(&Reason::TruncatedBody));
        }
    }
    Ok(())
}

/// Two CPUs with fragments of one datagram at the same time: the later fragment is dropped.
#[test]
fn a_datagram_in_work_is_left_alone() -> Result<()> {
    for peer in devices() {
        let mut program = Program::shared()?;
        let frames = peer.udp_parts(&long(), 1, &thirds());
        assert_eq!(program.run(&frames[0])?.reason, Reason::Valid);
        let (key, mut datagram) = program.datagrams()?[0];
        datagram.busy = 1;
        program.set_datagram(key, datagram)?;
        assert_eq!(program.run(&frames[1])?.reason, Reason::FragmentOrder);
        datagram.busy = 0;
        program.set_datagram(key, datagram)?;
        assert_eq!(reasons(&mut program, &frames[1..])?, [Reason::Valid; 2]);
        assert_eq!(program.datagrams()?[0].1.busy, 0);
    }
    Ok(())
}

#[test]
fn monitor_mode_passes_and_counts() -> Result<()> {
    for peer in devices() {
        let mut program = Program::shared()?;
        program.change(|settings| settings.mode = MODE_MONITOR)?;
        for run in run_all(&mut program, &peer.udp_parts(&bad_at(500), 1, &thirds()))? {
            assert_eq!((run.action, run.let_pass), (XDP_PASS, run.reason != Reason::Valid), "{run:?}");
        }
        assert_eq!(program.datagrams()?[0].1.state, DATAGRAM_REFUSED);
        assert_eq!(program.offenders()?[0].1.packets, 1);
    }
    Ok(())
}

/// A flood can't make the guard forget, nor can it keep out others once it is over.
#[test]
fn a_full_map_takes_no_other_until_the_time_is_over() -> Result<()> {
    let [peer, _] = devices();
    let mut program = Program::shared()?;
    assert_eq!(
        program.run(&peer.udp_parts(&bad_at(500), 1, &thirds())[0])?.reason,
        Reason::Valid,
        "before the flood"
    );
    let (mut key, datagram) = program.datagrams()?[0];
    let mut known = vec![];
    for number in 0u32.. {
        key.remote[12..].copy_from_slice(&(0x0a00_0000 | number).to_be_bytes());
        if program.set_datagram(key, datagram).is_err() {
            break;
        }
        known.push(key);
    }
    println!("{} datagrams fill the map", known.len());
    assert!(known.len() > 10_000);
    let next = peer.udp_parts(&long(), 2, &thirds());
    assert_eq!(program.run(&next[0])?.reason, Reason::FragmentOrder);
    assert_eq!(
        reasons(&mut program, &peer.udp_parts(&bad_at(500), 1, &thirds())[1..])?,
        [Reason::ControlByte; 2],
        "what was known stays known"
    );
    for key in known {
        program.set_datagram(key, sipguard_common::abi::Datagram { until_ns: 1, ..datagram })?;
    }
    // They are looked for once a second.
    let until = Instant::now() + Duration::from_secs(60);
    while program.run(&peer.udp_parts(&long(), 3, &thirds())[0])?.reason != Reason::Valid {
        ensure!(Instant::now() < until, "the map stays full");
        std::thread::sleep(Duration::from_millis(100));
    }
    let left: Vec<FragmentKey> = program.datagrams()?.into_iter().map(|(key, _)| key).collect();
    assert!(left.len() <= 2, "{} are left", left.len());
    Ok(())
}
