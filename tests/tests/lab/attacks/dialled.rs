//! Connections that the PBX opens: to a trunk or a phone, or to somebody who speaks no SIP.

use std::{collections::BTreeSet, fs, io::Write as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::{expect_same, wait_until},
    callee::Call,
    cpu,
    guard::Site,
    lab::{FAMILIES, Lab},
    message::{OPTIONS, SDP, bent, negative_length, register},
    process,
    sender::Sender,
    setting::Setting,
    witness::Witness,
};

use super::stage::{Table, expect_judged, expect_read, expect_refused, first, lab};

/// Where a phone says that it is to be called.
const CONTACT: u16 = 7777;
/// Bursts of each kind.
const BURSTS: u32 = 10;

/// A response with these lines behind its own, and this body.
fn response(lines: &str, body: &[u8]) -> Vec<u8> {
    let head = "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP h\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n";
    [format!("{head}{lines}\r\n").as_bytes(), body].concat()
}

fn answered() -> Vec<u8> {
    response(&format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", SDP.len()), SDP)
}

/// Malformed answers.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a negative Content-Length", response("Content-Length: -1\r\n", b"")),
        ("a NUL", bent(&answered(), "Call-ID: c", b"Call-ID: \0")),
        ("no message", b"\x01\x02garbage\r\n\r\n".to_vec()),
        ("a malformed request", negative_length().bytes),
        ("good, then malformed", [&answered()[..], &response("Content-Length: 1 0\r\n", b"")].concat()),
    ]
}

/// The PBX says something on a connection that it opened.
fn says(lab: &Lab, sender: &mut Sender<'_>, witness: &Witness, bytes: &[u8]) -> Result<()> {
    let mut stream = witness.stream();
    stream.write_all(bytes).context("the PBX says something")?;
    sender.ack = sender.ack.wrapping_add(bytes.len() as u32);
    let ack = sender.segment(&[]);
    sender.send(&ack)?;
    lab.settle()
}

/// Kernel threads that take in frames of interfaces of that name.
fn takers() -> Result<BTreeSet<String>> {
    let begin = format!("napi/{}-", Site::INTERFACE);
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        // Processes end while they are looked at.
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with(&begin)) {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// A lab where a thread of the kernel takes in the frames of the guard's interface: on the processor of this thread and never before it has to wait.
/// So frames that are sent with one call are there together.
fn together(setting: Setting) -> Result<Lab> {
    let lab = lab(setting)?;
    let (before, cpus) = (takers()?, cpu::allowed()?);
    let command = format!("echo 1 > /sys/class/net/{}/threaded", Site::INTERFACE);
    // Which has a /sys of that namespace.
    let words = ["netns", "exec", lab.site.pbx.name(), "sh", "-c", &command];
    process::output(Command::new("ip").args(words))?;
    let new: Vec<String> = takers()?.difference(&before).cloned().collect();
    ensure!(!new.is_empty(), "no thread takes in the frames");
    for thread in new {
        process::output(Command::new("taskset").args(["-p", "-c", &cpus[0].to_string(), &thread]))?;
        process::output(Command::new("chrt").args(["--batch", "-p", "0", &thread]))?;
    }
    Ok(lab)
}

/// SYN-ACK and data in one burst; the data once more while it is not read.
fn burst(lab: &Lab, family: usize, data: &[u8], good: bool) -> Result<String> {
    let mut told = String::new();
    for number in 0..BURSTS {
        let mut call = Call::begin(lab, family, 0, 5060, first())?;
        let answer = call.sender.syn_ack();
        let segment = call.sender.segment(data);
        lab.wire.send_all(&[answer.frame(), segment.frame()])?;
        let (mut sender, mut witness) = call.established()?;
        lab.settle()?;
        // As any TCP does for what is not acknowledged.
        for _ in 0..3 {
            sender.send(&segment)?;
            lab.settle()?;
        }
        let outcome =
            if good { expect_read(lab, &mut witness, data) } else { expect_judged(lab, &mut witness) };
        told = outcome.with_context(|| format!("burst {number}"))?;
    }
    Ok(format!("{BURSTS} bursts, each {told}"))
}

#[test]
fn data_together_with_the_answer() -> Result<()> {
    let mut table = Table::new("E2");
    for setting in Setting::tried()? {
        let mut lab = together(setting)?;
        for family in FAMILIES {
            if setting == Setting::Local && family > 0 {
                // Another guard, for the first such burst may warn it of the others.
                lab = together(setting)?;
            }
            for (name, data) in malformed() {
                let technique = format!("SYN-ACK and data in one burst: {name}");
                table.row(&technique, setting, family, burst(&lab, family, &data, false));
            }
            for (name, data) in [("a request", OPTIONS.to_vec()), ("two", OPTIONS.repeat(2))] {
                let technique = format!("SYN-ACK and data in one burst: good, {name}");
                table.row(&technique, setting, family, burst(&lab, family, &data, true));
            }
        }
    }
    table.end()
}

/// Sends a greeting until the application has it, as any TCP does.
fn greet(lab: &Lab, sender: &mut Sender<'_>, witness: &mut Witness, greeting: &[u8]) -> Result<()> {
    let segment = sender.segment(greeting);
    wait_until("the greeting arrives", || {
        sender.send(&segment)?;
        lab.settle()?;
        Ok(!witness.read()?.is_empty())
    })?;
    sender.skip(greeting.len());
    expect_same(witness.read()?, greeting)
}

/// The phone sends `early` as soon as the connection is open, and again once the PBX has sent its request. Gives what the application has.
fn hasty(lab: &Lab, family: usize, [local, port]: [u16; 2], early: &[u8]) -> Result<Witness> {
    let (mut sender, mut witness) = Call::begin(lab, family, local, port, first())?.answer()?;
    let segment = sender.segment(early);
    sender.send(&segment)?;
    lab.settle()?;
    expect_same(witness.read()?, b"")?;
    says(lab, &mut sender, &witness, OPTIONS)?;
    sender.push(early)?;
    lab.settle()?;
    Ok(witness)
}

#[test]
fn a_phone_that_speaks_before_it_is_spoken_to() -> Result<()> {
    let mut table = Table::new("E10, E2");
    for setting in Setting::tried()? {
        let lab = lab(setting)?;
        for family in FAMILIES {
            // From any port, and from one that is guarded.
            for local in [0, 5061] {
                // Each at a port of its own, or it is banned.
                for ((name, early), port) in malformed().into_iter().zip(CONTACT..) {
                    let outcome = hasty(&lab, family, [local, port], &early)
                        .and_then(|mut witness| expect_refused(&lab, &mut witness));
                    let technique = format!("from port {local}: {name}, before the PBX's request");
                    table.row(&technique, setting, family, outcome);
                }
                let outcome = hasty(&lab, family, [local, CONTACT - 1], &answered())
                    .and_then(|mut witness| expect_read(&lab, &mut witness, &answered()));
                table.row(&format!("from port {local}: good"), setting, family, outcome);
            }
        }
    }
    table.end()
}

/// The PBX dials a port of the phone and begins with `request`; the phone answers. Gives what the application has.
fn conversation(
    lab: &Lab,
    family: usize,
    port: u16,
    greeting: &[u8],
    request: &[u8],
    answers: &[u8],
    size: usize,
) -> Result<Witness> {
    let (mut sender, mut witness) = Call::begin(lab, family, 0, port, first())?.answer()?;
    if !greeting.is_empty() {
        greet(lab, &mut sender, &mut witness, greeting)?;
    }
    says(lab, &mut sender, &witness, request)?;
    answers.chunks(size).try_for_each(|piece| sender.push(piece))?;
    lab.settle()?;
    Ok(witness)
}

#[test]
fn a_phone_that_is_called_at_its_contact_and_others_who_speak_no_sip() -> Result<()> {
    let mut table = Table::new("E10");
    let invite = bent(OPTIONS, "CSeq: 1 OPTIONS", "CSeq: 1 INVITE");
    let invite = bent(&invite, "OPTIONS sip:pbx", "INVITE sip:x@h:7777;transport=tcp");
    for setting in Setting::tried()? {
        let lab = lab(setting)?;
        for family in FAMILIES {
            for (method, request) in [("INVITE", &invite[..]), ("OPTIONS", OPTIONS)] {
                for (name, answer) in malformed() {
                    let technique = format!("{method} to port {CONTACT}, answered with {name}");
                    let outcome = conversation(&lab, family, CONTACT, b"", request, &answer, 50)
                        .and_then(|mut witness| expect_refused(&lab, &mut witness));
                    table.row(&technique, setting, family, outcome);
                }
                let ringing = response("Content-Length: 0\r\n", b"");
                let good = [&ringing[..], b"\r\n\r\n", &answered(), &register(1)].concat();
                for size in [1, 50, 1400] {
                    let technique = format!("{method} to port {CONTACT}, good answers, {size} B each");
                    let outcome = conversation(&lab, family, CONTACT, b"", request, &good, size)
                        .and_then(|mut witness| expect_read(&lab, &mut witness, &good));
                    table.row(&technique, setting, family, outcome);
                }
            }
            for Other { name, port, greeting, request, answer } in OTHERS {
                let outcome = conversation(&lab, family, port, greeting, request, answer, 50)
                    .and_then(|mut witness| expect_read(&lab, &mut witness, &[greeting, answer].concat()));
                table.row(&format!("{name} to port {port}"), setting, family, outcome);
            }
        }
    }
    table.end()
}

/// A service that speaks no SIP.
struct Other {
    name: &'static str,
    port: u16,
    /// What it says first.
    greeting: &'static [u8],
    /// What the PBX says then.
    request: &'static [u8],
    answer: &'static [u8],
}

const OTHERS: [Other; 6] = [
    Other {
        name: "HTTP",
        port: 8088,
        greeting: b"",
        request: b"GET /recording.wav HTTP/1.1\r\nHost: h\r\n\r\n",
        answer: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\0\x01\xff\n\r\n0\r\n\r\n",
    },
    Other {
        name: "HTTP, a method that SIP has too",
        port: CONTACT,
        greeting: b"",
        request: b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        answer: b"HTTP/1.1 204 No Content\nAllow: GET\n\n\0",
    },
    Other {
        name: "RTSP",
        port: 554,
        greeting: b"",
        request: b"OPTIONS rtsp://camera/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        answer: b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n$\0\0\x04\x80\x60\0\x01",
    },
    Other {
        name: "SSH",
        port: 22,
        greeting: b"SSH-2.0-OpenSSH_9.2p1\r\n",
        request: b"SSH-2.0-libssh\r\n\0\0\x01",
        answer: b"\0\0\x04\x1c\x0a\x14\0\x01\x02\xff",
    },
    Other {
        name: "SMTP",
        port: 25,
        greeting: b"220 mail ESMTP\r\n",
        request: b"EHLO pbx\r\n",
        answer: b"250-mail\r\n250 SIZE 1000\r\n",
    },
    Other {
        name: "AMI of another PBX",
        port: 5038,
        greeting: b"Asterisk Call Manager/9.0.0\r\n",
        request: b"Action: Login\r\nUsername: a\r\n\r\n",
        answer: b"Response: Success\r\nMessage: Authentication accepted\r\n\r\n",
    },
];
