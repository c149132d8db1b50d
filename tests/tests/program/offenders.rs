//! Who sends what is malformed, as the program keeps it: by port and by address, with the line at fault.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::Tally;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, Peer};
use sipguard_tests::program::{Program, device};

#[test]
fn the_offender_is_named_with_its_first_bytes() -> Result<()> {
    let peer = device();
    let mut program = Program::shared()?;
    let long = [b"REGISTER sip:pbx SIP/9.9\r\nUser-Agent: Bad/1\r\n".as_slice(), &[b'x'; 100]].concat();
    for text in [&b"no\r\n"[..], &long] {
        program.connect(&peer, 1000)?;
        program.run(&peer.tcp(ACK, 1000, text))?;
    }
    let mut offenders = program.offenders()?;
    offenders.sort_by_key(|(key, _)| key.reason);
    assert_eq!(offenders.len(), 2);
    for ((key, offender), (reason, text)) in
        offenders.iter().zip([(Reason::BadStartLine, &b"no\r\n"[..]), (Reason::BadVersion, &long)])
    {
        assert_eq!(key.reason, reason.number());
        assert_eq!(u16::from_be_bytes(key.port), 40000);
        assert_eq!(key.address[12..], [192, 0, 2, 7]);
        assert_eq!(&offender.sample[..offender.sample_len as usize], text);
        assert_eq!((offender.packets, offender.passed), (1, 0));
        assert_eq!((offender.fault_at, offender.sample_at), (0, 0));
    }
    Ok(())
}

#[test]
fn a_device_that_comes_by_other_ports_is_one_sum_with_its_line_at_fault() -> Result<()> {
    let mut program = Program::shared()?;
    let good = OPTIONS.repeat(20);
    let (line, head) =
        (b"Content-Length: -1\r\n", b"REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/TCP c\r\nUser-Agent: Bad/1\r\n");
    let bad = [&head[..], line, b"\r\n"].concat();
    for port in 40000..40300 {
        let peer = Peer::new(&format!("192.0.2.7:{port}"), "198.51.100.1:5060");
        program.connect(&peer, 1000)?;
        let run = program.run(&peer.tcp(ACK, 1000, &bad))?;
        assert_eq!(run.reason, Reason::BadContentLength);
    }
    let fault_at = head.len() as u32;
    let all = program.all_offenders()?;
    let [(_, sum)] = all.iter().filter(|(key, _)| key.port == [0; 2]).collect::<Vec<_>>()[..] else {
        panic!("{} sums", all.len());
    };
    assert_eq!((sum.packets, sum.fault_at, sum.sample_len), (300, fault_at, bad.len() as u32));
    assert!(Tally(sum.tally).lately(sum.last_ns) >= 150, "{}", Tally(sum.tally).lately(sum.last_ns));
    let ports = program.offenders()?;
    assert_eq!(ports.len(), 300);
    assert!(ports.iter().all(|(_, port)| (port.packets, port.fault_at) == (1, fault_at)));

    // Far back in a segment, and in a line that began in the one before.
    let peer = Peer::new("192.0.2.8:40000", "198.51.100.1:5060");
    program.connect(&peer, 1000)?;
    let far = [&good, &bad[..]].concat();
    program.run(&peer.tcp(ACK, 1000, &far))?;
    let split = Peer::new("192.0.2.9:40000", "198.51.100.1:5060");
    program.connect(&split, 1000)?;
    let cut = head.len() + 8;
    program.run(&split.tcp(ACK, 1000, &bad[..cut]))?;
    program.run(&split.tcp(ACK, 1000 + cut as u32, &bad[cut..]))?;
    for (key, offender) in program.all_offenders()? {
        let (at, expected) = match key.address[15] {
            8 => (good.len() + head.len(), &far[good.len() + head.len()..]),
            9 => (0, &bad[cut..]),
            _ => continue,
        };
        let sample = &offender.sample[..offender.sample_len as usize];
        let within = at - offender.sample_at as usize;
        assert!(sample[within..].starts_with(&expected[..expected.len().min(200)]), "{}", key.address[15]);
        let fault_at = if key.address[15] == 9 { -8 } else { at as i32 };
        assert_eq!(offender.fault_at.cast_signed(), fault_at);
    }
    Ok(())
}
