//! Each check of a message, off and monitored: for devices, for a trunk, and for both. What else the sender is judged by stays as it was.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{CheckSwitches, Offender, Outcome, Rule, Settings, Trunk};
use sipguard_common::framer::{Limits, checks};
use sipguard_core::address::mapped;
use sipguard_tests::message::{OPTIONS as GOOD, bent, stun};
use sipguard_tests::packet::{ACK, Peer};
use sipguard_tests::program::{PERMANENTLY, Program, Run, XDP_DROP, XDP_PASS};

/// How a fault comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tcp,
    Tls,
    Udp,
}

/// A message whose only fault is of one check.
struct Fault {
    reason: Reason,
    by: By,
    /// The last one has the fault.
    packets: Vec<Vec<u8>>,
    /// Limits that make it one.
    limits: fn(&mut Settings),
}

fn faults() -> Vec<Fault> {
    let by = |by, reason, packets: &[&[u8]]| {
        let packets = packets.iter().map(|packet| packet.to_vec()).collect();
        Fault { reason, by, packets, limits: |_| {} }
    };
    let with = |reason, from, to: &str| by(By::Tcp, reason, &[&bent(GOOD, from, to)]);
    let more = |reason, lines: &str| with(reason, "Call-ID", &format!("{lines}\r\nCall-ID"));
    let long = vec![format!("Subject: {}", "a".repeat(4000)); 5].join("\r\n");
    let body = [&bent(GOOD, "Length: 0", "Length: 5")[..], b"hello"].concat();
    vec![
        Fault {
            limits: |settings| settings.limits.message_segments = 1,
            ..by(By::Tcp, Reason::SlowMessage, &[&GOOD[..3], &GOOD[3..]])
        },
        by(By::Tcp, Reason::BadStartLine, &[b"no sense\r\n"]),
        with(Reason::BadVersion, "pbx SIP/2.0", "pbx SIP/3.0"),
        with(Reason::ControlByte, "<sip:b@h>", "a\0b <sip:b@h>"),
        with(Reason::BareLf, "Length: 0\r\n", "Length: 0\n"),
        with(Reason::BareCr, "<sip:b@h>", "a\rb <sip:b@h>"),
        with(Reason::LineTooLong, "<sip:b@h>", &"a".repeat(5000)),
        Fault {
            limits: |settings| settings.limits.section_bytes = 16_384,
            ..more(Reason::HeadersTooLong, &long)
        },
        more(Reason::TooManyHeaders, &vec!["A: b"; 161].join("\r\n")),
        more(Reason::BadHeaderName, "no colon"),
        with(Reason::MissingHeader, "To: <sip:b@h>\r\n", ""),
        more(Reason::DuplicateHeader, "t: <sip:c@h>"),
        more(Reason::BadNumber, "Expires: 99999999999"),
        with(Reason::CseqMismatch, "1 OPTIONS", "1 INVITE"),
        with(Reason::MissingContentLength, "Content-Length: 0\r\n", ""),
        with(Reason::BadContentLength, "Length: 0", "Length: -1"),
        more(Reason::DuplicateContentLength, "l: 1"),
        Fault {
            limits: |settings| settings.limits.body_bytes = 4,
            ..by(By::Tcp, Reason::BodyTooLarge, &[&body])
        },
        by(By::Udp, Reason::NoEndOfHeaders, &[&GOOD[..GOOD.len() - 4]]),
        Fault {
            limits: |settings| settings.limits.checks |= checks::WHOLE_BODY,
            ..by(By::Udp, Reason::TruncatedBody, &[&body[..body.len() - 1]])
        },
        by(By::Udp, Reason::BadStun, &[&stun(&[0x80, 0x22, 0, 9, b'a', b'b', b'c', 0])]),
        by(By::Tls, Reason::NotTls, &[&[0x80, 0x2e, 1, 3]]),
        by(By::Tls, Reason::BadTlsRecord, &[&[22, 3, 1, 0, 2, 1, 0, 23, 9, 9, 0, 1]]),
        by(By::Tcp, Reason::BadProxyHeader, &[GOOD]),
    ]
}

/// Whose a switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Devices,
    Trunk,
    Guard,
}

/// Senders so far: each has an address of its own, for emptying the maps takes longer than a case does.
static SENDERS: AtomicU32 = AtomicU32::new(0);

/// Index of the trunk.
const TRUNK: u32 = 3;

/// A sender that the program has never seen, and switches.
struct Sender<'a> {
    program: &'a mut Program,
    peer: Peer,
    by: By,
    next: u32,
}

impl<'a> Sender<'a> {
    fn new(
        program: &'a mut Program,
        fault: &Fault,
        whose: Whose,
        switches: CheckSwitches,
        is_trunk: bool,
    ) -> Result<Sender<'a>> {
        let number = SENDERS.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + number);
        let of = |names: &[Whose]| if names.contains(&whose) { switches } else { CheckSwitches::NONE };
        program.change(|settings| {
            settings.limits = Limits::default();
            settings.checks = of(&[Whose::Devices, Whose::Guard]);
            (fault.limits)(settings);
        })?;
        let checks = of(&[Whose::Trunk, Whose::Guard]);
        let proxy_protocol = u32::from(fault.reason == Reason::BadProxyHeader);
        program.trunk(TRUNK, Trunk { checks, proxy_protocol, ..Trunk::zeroed() })?;
        if is_trunk {
            program.rule(&address.to_string(), Rule { trunk: TRUNK as u16, ..PERMANENTLY })?;
        }
        let port = if fault.by == By::Tls { 5061 } else { 5060 };
        let peer = Peer::new(&format!("{address}:40000"), &format!("198.51.100.1:{port}"));
        if fault.by != By::Udp {
            program.connect(&peer, 1000)?;
        }
        Ok(Sender { program, peer, by: fault.by, next: 1000 })
    }

    /// What is reported of it.
    fn accused(&mut self) -> Result<Vec<Offender>> {
        let address = mapped(self.peer.remote.ip());
        let all = self.program.offenders()?.into_iter();
        Ok(all.filter(|(key, _)| key.address == address).map(|(_, one)| one).collect())
    }

    fn send(&mut self, payload: &[u8]) -> Result<Run> {
        if self.by == By::Udp {
            return self.program.run(&self.peer.udp(payload));
        }
        let frame = self.peer.tcp(ACK, self.next, payload);
        self.next = self.next.wrapping_add(payload.len() as u32);
        self.program.run(&frame)
    }

    /// Sends all of a fault; what became of the packet that has it.
    fn send_all(&mut self, fault: &Fault) -> Result<Run> {
        let (last, others) = fault.packets.split_last().context("a packet")?;
        for packet in others {
            let run = self.send(packet)?;
            ensure!(run.reason == Reason::Valid, "{run:?}");
        }
        self.send(last)
    }
}

fn verdict(run: &Run) -> (Reason, Outcome, u32) {
    (run.reason, run.outcome, run.action)
}

fn refused(reason: Reason, by: By) -> (Reason, Outcome, u32) {
    let (outcome, action) =
        if by == By::Udp { (Outcome::Plain, XDP_DROP) } else { (Outcome::Reset, XDP_PASS) };
    (reason, outcome, action)
}

/// Each fault, whoever sends it and whose switch it is: whether the switch is about the sender.
fn each(mut test: impl FnMut(&mut Program, &Fault, Whose, bool, &str) -> Result<()>) -> Result<()> {
    let mut program = Program::shared()?;
    for fault in faults() {
        for whose in [Whose::Devices, Whose::Trunk, Whose::Guard] {
            // Only balancers, which are trunks, send a PROXY header.
            let senders = if fault.reason == Reason::BadProxyHeader { 1..2 } else { 0..2 };
            for is_trunk in senders.map(|trunk| trunk == 1) {
                let text = format!("{} of {whose:?}, sent by a trunk: {is_trunk}", fault.reason.name());
                test(&mut program, &fault, whose, is_trunk, &text)?;
            }
        }
    }
    Ok(())
}

fn is_about(whose: Whose, is_trunk: bool) -> bool {
    whose == Whose::Guard || is_trunk == (whose == Whose::Trunk)
}

const PASSED: fn(Reason) -> (Reason, Outcome, u32) = |reason| (reason, Outcome::Plain, XDP_PASS);

#[test]
fn there_is_a_fault_for_each_check() {
    let found: Vec<Reason> = faults().iter().map(|fault| fault.reason).collect();
    let all: Vec<Reason> = Reason::ALL.iter().copied().filter(|reason| reason.is_check()).collect();
    assert_eq!(found, all);
}

#[test]
fn a_check_that_is_off_takes_nothing_from_the_others() -> Result<()> {
    each(|program, fault, whose, is_trunk, text| {
        let reason = fault.reason;
        if reason.loses_framing() {
            // No command and no file switches it off.
            return Ok(());
        }
        let switches = CheckSwitches { off: reason.check_bit(), monitored: 0 };
        let mut sender = Sender::new(program, fault, whose, switches, is_trunk)?;
        let run = sender.send_all(fault)?;
        if !is_about(whose, is_trunk) {
            assert_eq!(verdict(&run), refused(reason, fault.by), "{text}");
            return Ok(());
        }
        let passed = if reason == Reason::BadStun { Reason::Stun } else { Reason::Valid };
        assert_eq!(verdict(&run), PASSED(passed), "{text}");
        assert_eq!(sender.accused()?, [], "{text}");
        goes_on(&mut sender, text)?;
        another_fault_behind_it(program, fault, whose, switches, is_trunk, text)
    })
}

/// What is good passes, and another fault is refused.
fn goes_on(sender: &mut Sender, text: &str) -> Result<()> {
    assert_eq!(verdict(&sender.send(GOOD)?), PASSED(Reason::Valid), "{text}: the next message");
    let run = sender.send(b"no sense\r\n")?;
    assert_eq!(verdict(&run), refused(Reason::BadStartLine, sender.by), "{text}: another fault");
    Ok(())
}

/// Another fault in the same packet is refused, and the packet counted for it alone.
fn another_fault_behind_it(
    program: &mut Program,
    fault: &Fault,
    whose: Whose,
    switches: CheckSwitches,
    is_trunk: bool,
    text: &str,
) -> Result<()> {
    if fault.by == By::Udp {
        return Ok(());
    }
    let mut packets = fault.packets.clone();
    packets.last_mut().context("a packet")?.extend_from_slice(b"no sense\r\n");
    let both = Fault { packets, ..*fault };
    let run = Sender::new(program, &both, whose, switches, is_trunk)?.send_all(&both)?;
    assert_eq!(verdict(&run), refused(Reason::BadStartLine, fault.by), "{text}: two faults");
    Ok(())
}

#[test]
fn a_monitored_check_counts_what_it_would_stop() -> Result<()> {
    each(|program, fault, whose, is_trunk, text| {
        let reason = fault.reason;
        let switches = CheckSwitches { off: 0, monitored: reason.check_bit() };
        let outcome = if fault.by == By::Udp { Outcome::WouldDrop } else { Outcome::WouldReset };
        let before = program.count_of_trunk(TRUNK, outcome, reason)?;
        let mut sender = Sender::new(program, fault, whose, switches, is_trunk)?;
        let run = sender.send_all(fault)?;
        if !is_about(whose, is_trunk) {
            assert_eq!(verdict(&run), refused(reason, fault.by), "{text}");
            return Ok(());
        }
        assert_eq!(verdict(&run), (reason, outcome, XDP_PASS), "{text}");
        assert!(run.frame.ends_with(&fault.packets[fault.packets.len() - 1]), "{text}: not as it came");
        let of_trunk = sender.program.count_of_trunk(TRUNK, outcome, reason)? - before;
        assert_eq!(of_trunk, u64::from(is_trunk), "{text}");
        let accused = usize::from(reason.is_malformed());
        let offenders = sender.accused()?;
        assert_eq!(offenders.len(), accused, "{text}");
        assert!(offenders.iter().all(|one| (one.packets, one.passed) == (1, 1)), "{text}");
        if reason.loses_framing() {
            return framing_is_lost(&mut sender, reason, text);
        }
        goes_on(&mut sender, text)?;
        another_fault_behind_it(program, fault, whose, switches, is_trunk, text)
    })
}

/// Nothing is judged until a message begins; from then on everything is.
fn framing_is_lost(sender: &mut Sender, monitored: Reason, text: &str) -> Result<()> {
    let (rest, message, passed): (&[u8], &[u8], Reason) = if sender.by == By::Tls {
        (b"the rest of it", &[23, 3, 3, 0, 1, 0], Reason::Tls)
    } else {
        (b"the rest of it", GOOD, Reason::Valid)
    };
    for _ in 0..2 {
        assert_eq!(verdict(&sender.send(rest)?), PASSED(Reason::MidStream), "{text}: the rest");
    }
    assert_eq!(verdict(&sender.send(message)?), PASSED(passed), "{text}: a message");
    if sender.by == By::Tcp && monitored != Reason::BadStartLine {
        let run = sender.send(b"no sense\r\n")?;
        assert_eq!(verdict(&run), refused(Reason::BadStartLine, sender.by), "{text}: another fault");
    }
    Ok(())
}

/// A rule that only counts is counted once, although the framer goes through the packet twice.
#[test]
fn what_is_gone_through_twice_is_counted_once() -> Result<()> {
    use sipguard_common::abi::rule_flags::{BLOCK, MONITOR};
    for (lines, count) in [
        ("Expires: 99999999999\r\nFrom: <sip:a@h>;tag=1", 1),
        ("From: <sip:a@h>;tag=1\r\nExpires: 99999999999", 1),
        ("m: <sip:a@h>\r\nExpires: 99999999999\r\nFrom: <sip:a@h>;tag=1", 2),
    ] {
        let mut program = Program::shared()?;
        program.change(|settings| settings.checks.monitored = Reason::BadNumber.check_bit())?;
        program.identity("a@h", Rule { flags: BLOCK | MONITOR, ..PERMANENTLY })?;
        let peer = Peer::new("192.0.2.7:40000", "198.51.100.1:5060");
        program.connect(&peer, 1000)?;
        let message = bent(GOOD, "From: <sip:a@h>;tag=1", lines);
        let (action, _) = program.run_uncounted(&peer.tcp(ACK, 1000, &message))?;
        assert_eq!(action, XDP_PASS, "{lines}");
        assert_eq!(program.rule_of_identity("a@h")?.packets, count, "{lines}");
        assert_eq!(program.count_of(Outcome::WouldReset, Reason::BlockedIdentity)?, count, "{lines}");
        assert_eq!(program.count_of(Outcome::WouldReset, Reason::BadNumber)?, 1, "{lines}");
    }
    Ok(())
}

/// A segment that was damaged on its way is no fault of its sender, and the PBX does not get it.
#[test]
fn a_damaged_segment_is_no_fault_of_a_monitored_check() -> Result<()> {
    let mut program = Program::shared()?;
    program.change(|settings| settings.checks.monitored = Reason::BadNumber.check_bit())?;
    let peer = Peer::new("192.0.2.7:40000", "198.51.100.1:5060");
    program.connect(&peer, 1000)?;
    let message = bent(GOOD, "Call-ID", "Expires: 99999999999\r\nCall-ID");
    let mut frame = peer.tcp(ACK, 1000, &message);
    let last = frame.len() - 1;
    frame[last - 30] ^= 1;
    assert_eq!(program.run(&frame)?.reason, Reason::BadChecksum);
    let run = program.run(&peer.tcp(ACK, 1000, &message))?;
    assert_eq!(verdict(&run), (Reason::BadNumber, Outcome::WouldReset, XDP_PASS));
    Ok(())
}
