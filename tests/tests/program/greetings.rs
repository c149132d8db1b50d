//! Servers that the PBX dials on ports that are not guarded, and that speak before the PBX does.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::FlowState;
use sipguard_common::wire::tcp;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, FIN, PBX_NEXT, PSH, Peer, SYN};
use sipguard_tests::program::{Program, XDP_DROP, XDP_PASS};

/// Where a server's stream begins.
const FIRST: u32 = 1000;
const GREETING: &[u8] = b"220 mail.example ESMTP\r\n";

/// The PBX dials, and a server on a port that is not guarded answers.
fn dial(program: &mut Program, server: &Peer) -> Result<()> {
    let answer = dial_any(program, server)?;
    assert_eq!(answer, Reason::NotGuarded);
    Ok(())
}

/// The PBX dials, and a server answers.
fn dial_any(program: &mut Program, server: &Peer) -> Result<Reason> {
    program.leave(&server.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
    let answer = program.run(&server.tcp(SYN | ACK, FIRST - 1, b""))?;
    program.leave(&server.back(ACK, PBX_NEXT, FIRST, b""))?;
    Ok(answer.reason)
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
    // The PBX can't speak before the server has acknowledged its SYN, and that may be late.
    assert!(!passes_in_time(&mut program, &early)?);
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

/// Sets the window of a segment.
fn with_window(server: &Peer, mut frame: Vec<u8>, window: u16) -> Vec<u8> {
    let at = server.tcp_at() + tcp::WINDOW;
    frame[at..at + 2].copy_from_slice(&window.to_be_bytes());
    server.finish_checksum(&mut frame);
    frame
}

/// Sends a segment for longer than bytes are held back of who lets the PBX speak: whether one passed.
fn passes_in_time(program: &mut Program, frame: &[u8]) -> Result<bool> {
    let [other, ..] = servers();
    let other = Peer { remote: "192.0.2.203:25".parse()?, local: "198.51.100.1:33200".parse()?, ..other };
    dial(program, &other)?;
    let greeting = other.tcp(ACK | PSH, FIRST, GREETING);
    while program.run(&greeting)?.action == XDP_DROP {
        if program.run(frame)?.action == XDP_PASS {
            return Ok(true);
        }
    }
    Ok(program.run(frame)?.action == XDP_PASS)
}

/// A server whose window is closed, or takes but a few bytes of the PBX, does not outlast the time in which the PBX would have spoken.
#[test]
fn a_server_that_does_not_let_the_pbx_speak_is_held_back() -> Result<()> {
    for server in servers() {
        let early = server.tcp(ACK | PSH, FIRST, b"\x01\r\n\r\n");
        for window in [0, 5, 1400] {
            for late in [false, true] {
                let mut program = Program::shared()?;
                let answer = server.tcp(SYN | ACK, FIRST - 1, b"");
                program.leave(&server.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
                program.run(&if late { answer } else { with_window(&server, answer, window) })?;
                program.leave(&server.back(ACK, PBX_NEXT, FIRST, b""))?;
                if late {
                    program.run(&with_window(&server, server.tcp(ACK, FIRST, b""), window))?;
                }
                assert!(!passes_in_time(&mut program, &early)?, "{window} {late}");
                // What the PBX gets through shows that it speaks SIP.
                program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, &OPTIONS[..5]))?;
                assert_eq!(program.flow(&server)?.map(|flow| flow.state), Some(FlowState::InSync as u32));
                assert_eq!(program.run(&early)?.reason, Reason::BadStartLine);
            }
        }
        // One that opens its window later is held back from then on.
        let mut program = Program::shared()?;
        program.leave(&server.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
        program.run(&with_window(&server, server.tcp(SYN | ACK, FIRST - 1, b""), 0))?;
        program.leave(&server.back(ACK, PBX_NEXT, FIRST, b""))?;
        // What the PBX does not take opens nothing.
        let opening = server.tcp(ACK, FIRST, b"");
        let mut damaged = opening.clone();
        damaged[server.tcp_at() + tcp::CHECKSUM] ^= 1;
        program.run(&damaged)?;
        program.run(&server.tcp(ACK, FIRST.wrapping_sub(1), b""))?;
        assert!(!passes_in_time(&mut program, &early)?);
        program.run(&opening)?;
        assert!(until_passed(&mut program, &early)? > 0);
    }
    Ok(())
}

/// The PBX's first segment may be any piece of its request, on ports that are guarded too.
#[test]
fn a_first_segment_of_any_size_shows_sip() -> Result<()> {
    let mut program = Program::shared()?;
    for remote in ["192.0.2.204:7777", "192.0.2.204:5060"] {
        for len in 1..OPTIONS.len() {
            let server = Peer::new(remote, &format!("198.51.100.1:{}", 33_000 + len));
            dial_any(&mut program, &server)?;
            program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, &OPTIONS[..len]))?;
            let run = program.run(&server.tcp(ACK, FIRST, b"\x01\r\n\r\n"))?;
            assert_eq!(run.reason, Reason::BadStartLine, "{remote} {len}");
        }
    }
    Ok(())
}

/// A word alone shows nothing of SIP, unless it is one of its methods.
#[test]
fn words_of_other_protocols_are_no_sip() -> Result<()> {
    let [server, ..] = servers();
    for word in ["GET ", "POST ", "PING", "LOGIN ", "Q"] {
        let mut program = Program::shared()?;
        dial(&mut program, &server)?;
        program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, word.as_bytes()))?;
        assert_eq!(
            program.run(&server.tcp(ACK, FIRST, b"HTTP/1.1 200 OK\r\n"))?.reason,
            Reason::NotGuarded,
            "{word}"
        );
    }
    Ok(())
}

/// Line ends before the request show nothing.
#[test]
fn what_follows_line_ends_shows_sip() -> Result<()> {
    let [server, ..] = servers();
    let mut program = Program::shared()?;
    dial(&mut program, &server)?;
    program.leave(&server.back(ACK | PSH, PBX_NEXT, FIRST, b"\r\n\r\n"))?;
    program.leave(&server.back(ACK | PSH, PBX_NEXT.wrapping_add(4), FIRST, OPTIONS))?;
    assert_eq!(program.run(&server.tcp(ACK, FIRST, b"\x01\r\n\r\n"))?.reason, Reason::BadStartLine);
    Ok(())
}

/// A connection on which the PBX listened to a greeting is not held back again when another is dialled from its port.
#[test]
fn connections_of_one_port_do_not_hold_each_other_back() -> Result<()> {
    let [server, ..] = servers();
    let mut other = server.clone();
    other.remote.set_port(7778);
    let mut program = Program::shared()?;
    dial(&mut program, &server)?;
    let greeting = server.tcp(ACK | PSH, FIRST, GREETING);
    until_passed(&mut program, &greeting)?;
    dial(&mut program, &other)?;
    assert_eq!(program.run(&greeting)?.reason, Reason::NotGuarded);
    assert_eq!(program.run(&other.tcp(ACK | PSH, FIRST, GREETING))?.reason, Reason::EarlyAnswer);
    Ok(())
}

/// A server that closes without a word has not greeted.
#[test]
fn a_fin_is_no_greeting() -> Result<()> {
    let [server, ..] = servers();
    for said in [&b"GET / HTTP/1.1\r\n"[..], b""] {
        let mut program = Program::shared()?;
        dial(&mut program, &server)?;
        program.run(&server.tcp(ACK | FIN, FIRST, b""))?;
        let flags = if said.is_empty() { ACK | FIN } else { ACK | PSH };
        program.leave(&server.back(flags, PBX_NEXT, FIRST + 1, said))?;
        let mut again = server.clone();
        again.local.set_port(33_500);
        dial(&mut program, &again)?;
        assert_eq!(program.run(&again.tcp(ACK, FIRST, GREETING))?.reason, Reason::EarlyAnswer);
    }
    Ok(())
}

/// A client that hears a greeting, and closes, makes a greeter of its server too.
#[test]
fn a_client_that_says_nothing_waits_once() -> Result<()> {
    let [server, ..] = servers();
    let mut program = Program::shared()?;
    dial(&mut program, &server)?;
    let greeting = server.tcp(ACK | PSH, FIRST, GREETING);
    until_passed(&mut program, &greeting)?;
    program.leave(&server.back(ACK | FIN, PBX_NEXT, FIRST + GREETING.len() as u32, b""))?;
    let mut again = server.clone();
    again.local.set_port(33_400);
    dial(&mut program, &again)?;
    assert_eq!(until_passed(&mut program, &again.tcp(ACK | PSH, FIRST, GREETING))?, 0);
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
