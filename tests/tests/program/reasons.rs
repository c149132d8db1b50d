//! Every reason through the loaded program: one way to each, with verdict and counter.

use std::collections::BTreeSet;

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::abi::{
    CLASS_DEVICES, CONNECTIONS, INVITES, MESSAGES, MODE_MONITOR, Outcome, PACKETS, PERMANENT, REGISTERS,
    Rate, Rule, Trunk, UDP, rule_flags, rules_in_use,
};
use sipguard_common::framer::{checks, methods};
use sipguard_common::{Class, Reason};
use sipguard_tests::message::{OPTIONS as GOOD, good_call, register, stun};
use sipguard_tests::packet::{ACK, FIN, IP, PBX_NEXT, Peer, SYN, TCP4};
use sipguard_tests::program::{PERMANENTLY, Program, Run, XDP_DROP, XDP_PASS, device, last, stream};

fn bent(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// One way to each reason, except [`Reason::UnknownStream`] and [`Reason::OutOfStep`], which take a socket (see `sockets.rs`).
fn ways() -> Result<Vec<(Reason, Run)>> {
    let peer = device();
    let data = peer.tcp(ACK, 1000, GOOD);
    let malformed = |text: &[u8]| -> Result<Run> { Ok(stream(&peer, &[text])?.remove(0)) };
    let message = |headers: &str| format!("OPTIONS sip:pbx SIP/2.0\r\n{headers}\r\n\r\n").into_bytes();

    let stops = Rule { flags: rule_flags::BLOCK, ..PERMANENTLY };
    let connected = |prepare: &dyn Fn(&mut Program) -> Result<()>, frame: &[u8]| {
        let prepare = |program: &mut Program| {
            prepare(program)?;
            program.connect(&peer, 1000)
        };
        after(prepare, frame)
    };
    let mut followed = Program::shared()?;
    followed.connect(&peer, 1000)?;
    let valid = followed.run(&data)?;
    let retransmission = followed.run(&data)?;
    let conflict = followed.run(&peer.tcp(ACK, 1000, &b"x".repeat(GOOD.len())))?;
    let gap = followed.run(&peer.tcp(ACK, 2000, GOOD))?;
    let mut watched = Program::shared()?;
    watched.change(|settings| settings.mode = MODE_MONITOR)?;
    watched.connect(&peer, 1000)?;
    watched.run(&peer.tcp(ACK, 1000, b"no sense\r\n"))?;
    let mid_stream = watched.run(&peer.tcp(ACK, 1010, b"more of it"))?;
    drop((followed, watched));
    let nonsense = peer.tcp(ACK, 1000, b"no sense\r\n");
    let end = nonsense.len() - 4;
    let slow = |program: &mut Program| {
        program.change(|settings| settings.limits.message_segments = 1)?;
        program.connect(&peer, 1000)?;
        program.run(&peer.tcp(ACK, 1000, b"OPT")).map(drop)
    };
    let unfinished = |program: &mut Program| {
        program.change(|settings| {
            settings.rules |= rules_in_use::UNFINISHED;
            settings.unfinished = 1;
        })?;
        program.connect(&peer, 1000)?;
        program.run(&peer.tcp(ACK, 1000, b"OPT")).map(drop)
    };
    let short = String::from_utf8(GOOD.to_vec())?.replace("Length: 0", "Length: 1").into_bytes();
    let tls = |text: &[u8]| -> Result<Run> {
        let peer = Peer::new("192.0.2.7:40000", "198.51.100.1:5061");
        after(|program| program.connect(&peer, 1000), &peer.tcp(ACK, 1000, text))
    };

    let with_agent =
        String::from_utf8(GOOD.to_vec())?.replace("Call-ID", "User-Agent: Scanner\r\nCall-ID").into_bytes();
    let trunk = Peer::new("192.0.2.9:5060", "198.51.100.1:33333");
    // The peer has acknowledged more than any window since.
    let not_acceptable = |program: &mut Program| {
        program.connect(&peer, 1000)?;
        program.change_flow(&peer, |flow| {
            flow.sent = PBX_NEXT.wrapping_add(1 << 20);
            flow.una = flow.sent;
        })
    };
    let small_section =
        |program: &mut Program| program.change(|settings| settings.limits.section_bytes = 16_384);
    let balancer = |program: &mut Program| {
        program.rule("192.0.2.7", Rule { trunk: 1, ..Rule::zeroed() })?;
        program.trunk(1, Trunk { proxy_protocol: 1, ..Trunk::zeroed() })
    };
    let busy = |program: &mut Program| {
        program.connect(&peer, 1000)?;
        program.change_flow(&peer, |flow| flow.lock = 99)
    };
    let fragment = bent(data.clone(), IP + 6, 0x20);
    let routes = format!("OPTIONS sip:pbx SIP/2.0\r\n{}", "Route: <sip:192.0.2.1;lr>\r\n".repeat(50));
    let first = peer.udp_fragments(routes.as_bytes(), 800).remove(0);
    let long_line = format!("To: {}", "a".repeat(5000));
    let long_section = vec![format!("Subject: {}", "a".repeat(4000)); 5].join("\r\n");
    Ok(vec![
        (Reason::NotIp, last(&[bent(data.clone(), 12, 0x88)])?),
        (Reason::NotGuarded, last(&[Peer::new("192.0.2.7:40000", "198.51.100.1:22").tcp(ACK, 1, GOOD)])?),
        (Reason::TcpControl, last(&[peer.tcp(SYN, 1, b"")])?),
        (Reason::Valid, valid),
        (Reason::Retransmission, retransmission),
        (Reason::MidStream, mid_stream),
        (Reason::NoConnection, last(std::slice::from_ref(&data))?),
        (Reason::NatPing, last(&[peer.udp(b"\r\n\r\n")])?),
        (Reason::Stun, last(&[peer.udp(&stun(&[0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]))])?),
        (Reason::Tls, tls(&[22, 3, 1, 0, 2, 1, 0])?),
        (Reason::Internal, last(&[data[..IP + 2].to_vec()])?),
        (Reason::BlockedHost, after(|program| program.block("192.0.2.7", PERMANENT), &data)?),
        (Reason::BlockedPrefix, after(|program| program.block("192.0.2.0/24", PERMANENT), &data)?),
        (Reason::BadIpHeader, last(&[bent(data.clone(), IP, 0x44)])?),
        (Reason::TcpFragment, last(&[fragment])?),
        (Reason::TinyFragment, last(&[bent(peer.udp(GOOD), IP + 6, 0x20)])?),
        (Reason::BadTcpHeader, last(&[bent(data.clone(), TCP4 + 12, 0x40)])?),
        (Reason::BadTcpOptions, last(&[bent(data.clone(), TCP4 + 23, 1)])?),
        (Reason::BadTcpFlags, last(&[peer.tcp(SYN | FIN, 1, b"")])?),
        (Reason::BadUdpHeader, last(&[bent(peer.udp(GOOD), TCP4 + 4, 9)])?),
        (Reason::BadChecksum, connected(&|_| Ok(()), &bent(nonsense, end, b'z'))?),
        (Reason::SequenceGap, gap),
        (Reason::Conflict, conflict),
        (Reason::UnfinishedMessages, after(unfinished, &peer.tcp(SYN, 1, b""))?),
        (Reason::SlowMessage, after(slow, &peer.tcp(ACK, 1003, b"IONS"))?),
        (Reason::BadStartLine, malformed(b"no sense\r\n")?),
        (Reason::BadVersion, malformed(b"OPTIONS sip:pbx SIP/3.0\r\n")?),
        (Reason::ControlByte, malformed(b"OPTIONS sip:pbx SIP/2.0\r\nTo: a\0b\r\n")?),
        (Reason::BareLf, malformed(b"OPTIONS sip:pbx SIP/2.0\r\nVia: a\n")?),
        (Reason::BareCr, malformed(b"OPTIONS sip:pbx SIP/2.0\r\nTo: a\rb\r\n")?),
        (Reason::LineTooLong, malformed(&message(&long_line))?),
        (Reason::HeadersTooLong, connected(&small_section, &peer.tcp(ACK, 1000, &message(&long_section)))?),
        (Reason::TooManyHeaders, malformed(&message(&["A: b"; 161].join("\r\n")))?),
        (Reason::BadHeaderName, malformed(&message("no colon"))?),
        (Reason::MissingHeader, malformed(&message("Content-Length: 0"))?),
        (Reason::DuplicateHeader, malformed(&message("To: a\r\nt: b"))?),
        (Reason::BadNumber, malformed(&message("CSeq: 4294967296 OPTIONS"))?),
        (Reason::CseqMismatch, malformed(&message("CSeq: 1 INVITE"))?),
        (Reason::MissingContentLength, malformed(&message("To: a"))?),
        (Reason::BadContentLength, malformed(&message("Content-Length: -1"))?),
        (Reason::DuplicateContentLength, malformed(&message("Content-Length: 1\r\nl: 2"))?),
        (Reason::BodyTooLarge, malformed(&message("Content-Length: 524289"))?),
        (Reason::NoEndOfHeaders, last(&[peer.udp(b"OPTIONS sip:pbx SIP/2.0\r\nTo: a")])?),
        (
            Reason::TruncatedBody,
            after(
                |program| program.change(|settings| settings.limits.checks |= checks::WHOLE_BODY),
                &peer.udp(&short),
            )?,
        ),
        (Reason::BadStun, last(&[peer.udp(&stun(&[0x80, 0x22, 0, 9, b'a', b'b', b'c', 0]))])?),
        (Reason::NotTls, tls(&[0x80, 0x2e, 1, 3])?),
        (Reason::FragmentOrder, last(&[first.clone(), first])?),
        (Reason::BadTlsRecord, tls(&[22, 3, 1, 0, 2, 1, 0, 23, 9, 9, 0, 1])?),
        (
            Reason::TransportDenied,
            after(
                |program| program.change(|settings| settings.denied[CLASS_DEVICES][UDP] = methods::ALL),
                &peer.udp(GOOD),
            )?,
        ),
        (
            Reason::MethodDenied,
            connected(
                &|program| program.change(|settings| settings.denied[CLASS_DEVICES] = [methods::OPTIONS; 3]),
                &data,
            )?,
        ),
        (Reason::BlockedDevice, after(|program| program.device("192.0.2.7:40000", stops), &data)?),
        (Reason::BannedDevice, after(|program| program.ban("192.0.2.7:40000", PERMANENT), &data)?),
        (Reason::BannedAddress, after(|program| program.ban("192.0.2.7:0", PERMANENT), &data)?),
        (Reason::BlockedIdentity, connected(&|program| program.identity("a@h", stops), &data)?),
        (
            Reason::BlockedUserAgent,
            connected(&|program| program.user_agent("scan", stops), &peer.tcp(ACK, 1000, &with_agent))?,
        ),
        (Reason::RatePackets, one_too_many(PACKETS, &peer.udp(GOOD))?),
        (Reason::RateMessages, one_too_many(MESSAGES, &peer.udp(GOOD))?),
        (Reason::RateRegister, one_too_many(REGISTERS, &peer.udp(&register(1)))?),
        (Reason::RateInvite, one_too_many(INVITES, &peer.udp(&good_call()))?),
        (Reason::RateConnections, one_connection_too_many(&peer)?),
        (Reason::OpenConnections, after(|program| program.open(&peer), &peer.tcp(SYN, 1, b""))?),
        (Reason::NotAcceptable, after(not_acceptable, &data)?),
        (Reason::FlowBusy, after(busy, &data)?),
        (Reason::BadProxyHeader, connected(&balancer, &data)?),
        (
            Reason::EarlyAnswer,
            after(
                |program| program.dial(&trunk, 1000, b"").map(drop),
                &trunk.tcp(ACK, 1000, b"no sense\r\n"),
            )?,
        ),
    ])
}

/// A frame on a program that something was done to.
fn after(prepare: impl Fn(&mut Program) -> Result<()>, frame: &[u8]) -> Result<Run> {
    let mut program = Program::shared()?;
    prepare(&mut program)?;
    program.run(frame)
}

/// The second of two connections where one is allowed.
fn one_connection_too_many(peer: &Peer) -> Result<Run> {
    let mut program = Program::shared()?;
    program.change(|settings| {
        settings.rules |= rules_in_use::RATES;
        settings.rates[CONNECTIONS] = Rate::new(1, 1);
    })?;
    program.connect(peer, 1000)?;
    program.leave(&peer.answer(5000))?;
    program.run(&peer.tcp(ACK, 5000, b""))
}

/// The second of two frames where one of a kind is allowed.
fn one_too_many(kind: usize, frame: &[u8]) -> Result<Run> {
    let mut program = Program::shared()?;
    program.change(|settings| {
        settings.rules |= rules_in_use::RATES;
        settings.rates[kind] = Rate::new(1, 1);
    })?;
    program.run(frame)?;
    program.run(frame)
}

#[test]
fn every_reason_has_a_way() -> Result<()> {
    // Others show these: `lab`, and `syns` what is counted in monitor mode alone.
    let mut seen =
        BTreeSet::from([Reason::UnknownStream, Reason::OutOfStep, Reason::SynData].map(Reason::number));
    for (expected, run) in ways()? {
        assert_eq!(run.reason, expected, "{}", expected.name());
        // A datagram has no connection to reset.
        let datagram = matches!(expected, Reason::NoEndOfHeaders | Reason::TruncatedBody | Reason::BadStun);
        let action = if expected.class() == Class::Drop || datagram { XDP_DROP } else { XDP_PASS };
        assert_eq!(run.action, action, "{}", expected.name());
        let reset = expected.class() != Class::Pass && action == XDP_PASS;
        let outcome = if reset { Outcome::Reset } else { Outcome::Plain };
        assert_eq!(run.outcome, outcome, "{}", expected.name());
        seen.insert(expected.number());
    }
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(&reason.number())).collect();
    assert!(missing.is_empty(), "no test for {missing:?}");
    Ok(())
}
