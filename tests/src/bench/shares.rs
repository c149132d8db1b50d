//! What the dearest payloads cost: each against an INVITE of the same size and transport, for a sender pays by the byte.

use std::{fmt, os::fd::AsFd as _};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sipguard_common::Reason;

use super::{counted_alike, frames, kernel::test_run, stepper::Step, stepper::Stepper};
use crate::{
    interrupt,
    message::stun,
    packet::{ACK, PSH, Peer, TCP4},
    program::Program,
};

/// Payload of a datagram on Ethernet.
const DATAGRAM: usize = 1472;
/// Payload of a segment with timestamps on Ethernet.
const SEGMENT: usize = 1448;
/// Sequence number of a connection's first byte.
const FIRST: u32 = 1000;
/// How many times as much as an INVITE a payload may cost that the framer goes through by blocks. A share depends on the processor, above
/// all on what a call costs there: the dearest of these was 3.4.
const BLOCKS: f64 = 4.0;
/// The same of what is nothing but header lines, each of which is judged, or but records: below 10 on one processor, 11.0 on another.
const LINES: f64 = 12.0;
/// Start line, and the headers that no message is without.
const HEAD: &str = "A sip:a SIP/2.0\r\nv:a\r\nf:a\r\nt:a\r\ni:a\r\nCSeq:1 A\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp,
    Tcp,
    Tls,
}

/// A payload, and what was measured.
#[derive(Debug)]
pub struct Share {
    /// What it is.
    pub name: &'static str,
    /// What it was counted as.
    pub reason: Reason,
    /// Nanoseconds of the fastest round.
    pub ns: u32,
    /// How many times as much as an INVITE.
    pub of_invite: f64,
    /// How many times as much it may cost.
    pub most: f64,
}

/// All that was measured.
#[derive(Debug)]
pub struct Shares(pub Vec<Share>);

struct Case {
    name: &'static str,
    way: Way,
    payload: Vec<u8>,
    most: f64,
    stepper: Option<Stepper>,
    measured: Option<(Reason, u32)>,
}

impl Case {
    fn new(name: &'static str, way: Way, most: f64, payload: Vec<u8>) -> Case {
        Case { name, way, payload, most, stepper: None, measured: None }
    }

    /// One round.
    fn measure(&mut self, program: &mut Program, repeat: u32) -> Result<()> {
        let by = self.payload.len() as u32;
        let port = if self.way == Way::Tls { 5061 } else { 5060 };
        let peer = Peer::new("10.0.0.2:40000", &format!("10.0.0.1:{port}"));
        let descriptor = program.descriptor()?;
        let mut frame = peer.udp(&self.payload);
        if self.way != Way::Udp {
            program.connect(&peer, FIRST)?;
            let mut next = FIRST;
            if self.way == Way::Tls {
                let hello = [22, 3, 1, 0, 1, 1];
                let run = program.run(&peer.tcp(ACK | PSH, FIRST, &hello))?;
                ensure!(run.reason == Reason::Tls, "the first record is {:?}", run.reason);
                next += hello.len() as u32;
            }
            frame = peer.tcp(ACK | PSH, next.wrapping_sub(by), &self.payload);
            if self.stepper.is_none() {
                let step =
                    Step { word_at: TCP4 as i16 + 4, check_at: TCP4 as i16 + 16, by: by.cast_signed() };
                self.stepper = Some(Stepper::new(step, descriptor.as_fd())?);
            }
        }
        let runner = self.stepper.as_ref().map_or(descriptor.as_fd(), Stepper::program);
        let before = program.counters()?;
        let ns = test_run(runner, &mut frame, repeat)?.ns;
        let reason = counted_alike(&before, &program.counters()?, repeat)?;
        self.measured = Some((reason, self.measured.map_or(ns, |(_, least)| least.min(ns))));
        Ok(())
    }
}

impl Shares {
    /// Measures: rounds of `repeat` runs, of which the fastest counts.
    pub fn measure(rounds: u32, repeat: u32) -> Result<Shares> {
        let mut program = Program::new()?;
        let mut cases = cases();
        for _ in 0..rounds {
            interrupt::check()?;
            for case in &mut cases {
                case.measure(&mut program, repeat).with_context(|| case.name.to_owned())?;
            }
        }
        let invite = |way| {
            let way = if way == Way::Tls { Way::Tcp } else { way };
            let case = cases.iter().find(|case| case.way == way)?;
            Some(case.measured?.1)
        };
        let share = |case: &Case| {
            let (reason, ns) = case.measured.context("no round was run")?;
            let invite = invite(case.way).context("an INVITE is measured")?;
            let of_invite = f64::from(ns) / f64::from(invite.max(1));
            Ok(Share { name: case.name, reason, ns, of_invite, most: case.most })
        };
        Ok(Shares(cases.iter().map(share).collect::<Result<_>>()?))
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let share = |share: &Share| {
            json!({
                "payload": share.name,
                "reason": share.reason.name(),
                "sipguard_ns": share.ns,
                "against_invite": share.of_invite,
                "most_against_invite": share.most,
            })
        };
        self.0.iter().map(share).collect()
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<36}{:<22}{:>6}   x INVITE, of the most there may be",
            format!("{DATAGRAM} bytes of UDP, {SEGMENT} of TCP"),
            "counted as",
            "ns"
        )?;
        for Share { name, reason, ns, of_invite, most } in &self.0 {
            writeln!(f, "{name:<36}{:<22}{ns:>6}   {of_invite:.1} of {most:.0}", reason.name())?;
        }
        Ok(())
    }
}

/// The INVITE of a transport stands before all others of it.
fn cases() -> Vec<Case> {
    use Way::{Tcp, Tls, Udp};
    let filled = |piece: &str| piece.as_bytes().repeat(DATAGRAM / piece.len());
    let headers = |line: &dyn Fn(usize) -> String| {
        let mut message = HEAD.to_owned();
        let mut number = 0;
        while message.len() + line(number).len() + 2 <= DATAGRAM {
            message += &line(number);
            number += 1;
        }
        (message + "\r\n").into_bytes()
    };
    let name = |number: usize| {
        let letter = |number: usize| char::from(b'a' + (number % 26) as u8);
        format!("{}{}", letter(number), letter(number / 26))
    };
    let messages = |end: &str| [HEAD, end].concat().as_bytes().repeat(SEGMENT / (HEAD.len() + end.len()));
    let records = |record: &[u8]| record.repeat(SEGMENT / record.len());
    vec![
        Case::new("INVITE, UDP", Udp, BLOCKS, frames::invite("UDP", DATAGRAM)),
        Case::new("CRLF, UDP", Udp, BLOCKS, filled("\r\n")),
        Case::new("LF, UDP", Udp, BLOCKS, filled("\n")),
        Case::new("tabs, UDP", Udp, BLOCKS, filled("\t")),
        Case::new("tabs in headers, UDP", Udp, BLOCKS, headers(&|_| format!("a:{}\r\n", "\t".repeat(200)))),
        Case::new("spaces and tabs, UDP", Udp, BLOCKS, headers(&|_| format!("a:{}\r\n", " \t".repeat(100)))),
        Case::new(
            "escaped bytes, UDP",
            Udp,
            LINES,
            headers(&|_| format!("a:\"{}\"\r\n", "\\\x01".repeat(30))),
        ),
        Case::new(
            "lines with an escape, UDP",
            Udp,
            LINES,
            headers(&|n| format!("{}:\"\\\x01\"\r\n", name(n))),
        ),
        Case::new("lines of 4 bytes, UDP", Udp, LINES, headers(&|n| format!("{}:\r\n", name(n)))),
        Case::new("lines of 11 bytes, UDP", Udp, LINES, headers(&|n| format!("{}: x y z\r\n", name(n)))),
        Case::new(
            "continuation lines, UDP",
            Udp,
            LINES,
            headers(&|n| ["l:\r\n", " \r\n"][n.min(1)].to_owned()),
        ),
        Case::new(
            "names of 18 bytes, UDP",
            Udp,
            LINES,
            headers(&|n| format!("{}-a-longer-name-x:\r\n", name(n))),
        ),
        Case::new("names with blanks, UDP", Udp, LINES, headers(&|n| format!("{}     :\r\n", name(n)))),
        Case::new("Vias with numbers, UDP", Udp, LINES, headers(&|_| "v:1:12345;=\r\n".to_owned())),
        Case::new("padded lengths, UDP", Udp, LINES, headers(&|_| "l:  0 \r\n".to_owned())),
        Case::new(
            "padded sequence, UDP",
            Udp,
            LINES,
            headers(&|n| ["Max-Forwards:  \t 1 \r\n", " \t 1\t\r\n"][n.min(1)].to_owned()),
        ),
        Case::new(
            "STUN, 60 attributes, UDP",
            Udp,
            BLOCKS,
            stun(&[0, 9, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].repeat(60)),
        ),
        Case::new("STUN, 363 attributes, UDP", Udp, BLOCKS, stun(&[0, 9, 0, 0].repeat(363))),
        Case::new("INVITE, TCP", Tcp, BLOCKS, frames::invite("TCP", SEGMENT)),
        Case::new("CRLF, TCP", Tcp, BLOCKS, b"\r\n".repeat(SEGMENT / 2)),
        Case::new("smallest messages, TCP", Tcp, LINES, messages("l:0\r\n\r\n")),
        Case::new("smallest with a body, TCP", Tcp, LINES, messages("l:1\r\n\r\nx")),
        Case::new(
            "messages of short lines, TCP",
            Tcp,
            LINES,
            messages(
                &["a:\r\n".repeat(32), "b:\r\n".repeat(32), "c:\r\n".repeat(32), "l:0\r\n\r\n".to_owned()]
                    .concat(),
            ),
        ),
        Case::new("empty records, TLS", Tls, BLOCKS, records(&[23, 3, 3, 0, 0])),
        Case::new("records of a byte, TLS", Tls, LINES, records(&[23, 3, 3, 0, 1, 9])),
    ]
}
