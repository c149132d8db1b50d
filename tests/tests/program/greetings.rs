//! Servers that the PBX dials on ports that are not guarded, and that speak before the PBX does.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::FlowState;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, FIN, PBX_NEXT, PSH, Peer, SYN};
use sipguard_tests::program::{Program, XDP_DROP, XDP_PASS};

/// Where a server's stream begins.
const FIRST: u32 = 1000;
const GREETING: &[u8] = b"220 mail.example ESMTP\r\n";

/// The PBX dials, and the server answers.
fn dial(program: &mut Program, server: &Peer) -> Result<()> {
    program.leave(&server.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
    assert_eq!(program.run(&server.tcp(SYN | ACK, FIRST - 1, b""))?.reason, Reason::NotGuarded);
    program.leave(&server.back(ACK, PBX_NEXT, FIRST, b""))
}

/// Servers on ports that are not guarded.
fn servers() -> [Peer; 3] {
    [
        ("192.0.2.201:7777", "198.51.100.1:33100"),
        ("[2001:db8::201]:7777", "[2001:db8::1]:33101"),
        // From the port on which the PBX listens.
        ("192.0.2.202:7777", "198.51.100.1:5060"),
    ]
    .map(|(remote, local)| Peer::new(remote, local))
}

/// Sends a segment until it passes: how often it was held back.
fn until_passed(program: &mut Program, frame: &[u8]) -> Result<u64> {
    let mut held = 0;
    loop {
        let run = program.run(frame)?;
        if run.action == XDP_PASS {
            assert_eq!(run.reason, Reason::NotGuarded);
            return Ok(held);
        }
        assert_eq!((run.reason, run.action), (Reason::EarlyAnswer, XDP_DROP));
        held += 1;
    }
}

#[test]
fn what_comes_before_the_pbx_speaks_sip_is_judged_then() -> Result<()> {
    for server in servers() {
        let mut program = Program::shared()?;
        dial(&mut program, &server)?;
        for early in [&b"\x01\r\n\r\n"[..], OPTIONS, b"\r\n\r\n"] {
            let run = program.run(&server.tcp(ACK | PSH, FIRST, early))?;
            assert_eq!((run.reason, run.action), (Reason::EarlyAnswer, XDP_DROP));
        }
        assert_eq!(program.run(&server.tcp(ACK, FIRST, b""))?.action, XDP_PASS, "no bytes");
        assert_eq!(program.run(&server.tcp(ACK | FIN, FIRST, b""))?.action, XDP_PASS, "no bytes");
        program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, OPTIONS))?;
        assert_eq!(program.flow(&server)?.map(|flow| flow.state), Some(FlowState::InSync as u32));
        assert_eq!(program.run(&server.tcp(ACK, FIRST, OPTIONS))?.reason, Reason::Valid);
        let next = FIRST + OPTIONS.len() as u32;
        assert_eq!(program.run(&server.tcp(ACK, next, b"\x01\r\n\r\n"))?.reason, Reason::BadStartLine);
    }
    Ok(())
}

/// Only what the PBX acknowledges says when and where the server may begin: answers that it does not take, because they are damaged, or late.
#[test]
fn other_answers_change_nothing() -> Result<()> {
    let [server, _, from_its_port] = servers();
    for server in [server, from_its_port] {
        let mut program = Program::shared()?;
        let early = server.tcp(ACK | PSH, FIRST, b"\x01\r\n\r\n");
        program.leave(&server.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
        program.run(&server.tcp(SYN | ACK, FIRST + 4711, b""))?;
        until_passed(&mut program, &early)?;
        program.leave(&server.back(ACK, PBX_NEXT, FIRST, b""))?;
        program.run(&server.tcp(SYN | ACK, FIRST + 9, b""))?;
        assert_eq!(program.run(&early)?.reason, Reason::EarlyAnswer);
        program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, OPTIONS))?;
        assert_eq!(program.flow(&server)?.map(|flow| flow.state), Some(FlowState::InSync as u32));
        assert_eq!(program.run(&early)?.reason, Reason::BadStartLine);
    }
    Ok(())
}

/// The server answers a SYN with a SYN (RFC 9293 section 3.5, figure 7).
#[test]
fn both_dial_at_once() -> Result<()> {
    let [server, ..] = servers();
    let mut program = Program::shared()?;
    program.leave(&server.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
    program.run(&server.tcp(SYN, FIRST - 1, b""))?;
    program.leave(&server.back(SYN | ACK, PBX_NEXT.wrapping_sub(1), FIRST, b""))?;
    let early = server.tcp(ACK | PSH, FIRST, b"\x01\r\n\r\n");
    assert_eq!(program.run(&early)?.reason, Reason::EarlyAnswer);
    program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, OPTIONS))?;
    assert_eq!(program.run(&early)?.reason, Reason::BadStartLine);
    Ok(())
}

#[test]
fn a_server_that_greets_waits_once() -> Result<()> {
    for server in servers() {
        let mut program = Program::shared()?;
        dial(&mut program, &server)?;
        let greeting = server.tcp(ACK | PSH, FIRST, GREETING);
        assert!(until_passed(&mut program, &greeting)? > 0);
        let next = FIRST + GREETING.len() as u32;
        program.leave(&server.back(ACK | PSH, PBX_NEXT, next, b"EHLO pbx.example\r\n"))?;
        assert_eq!(program.run(&server.tcp(ACK, next, b"250 go on\r\n"))?.reason, Reason::NotGuarded);
        // Other connections to it, to whatever port.
        for port in [7777, 2525] {
            let mut again = server.clone();
            again.remote.set_port(port);
            again.local.set_port(33_110 + port % 7);
            dial(&mut program, &again)?;
            assert_eq!(until_passed(&mut program, &again.tcp(ACK | PSH, FIRST, GREETING))?, 0, "{port}");
        }
    }
    Ok(())
}

/// A client that speaks first, as of HTTP, makes no greeter of its server.
#[test]
fn a_server_that_answers_is_not_held_back_and_not_believed() -> Result<()> {
    let [server, ..] = servers();
    let mut program = Program::shared()?;
    dial(&mut program, &server)?;
    program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, b"GET / HTTP/1.1\r\n"))?;
    assert_eq!(program.run(&server.tcp(ACK, FIRST, b"HTTP/1.1 200 OK\r\n"))?.reason, Reason::NotGuarded);
    let again = Peer::new("192.0.2.201:7777", "198.51.100.1:33120");
    dial(&mut program, &again)?;
    assert_eq!(program.run(&again.tcp(ACK, FIRST, GREETING))?.reason, Reason::EarlyAnswer);
    Ok(())
}
