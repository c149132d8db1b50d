//! `sipguard replay`: captures of every form and link type, both directions, what a capture lacks, and files that are damaged.

mod answer;
mod balancers;
mod cases;
mod explain;
mod lengths;
mod several;
mod sides;
mod volume;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::{Class, Reason};
use sipguard_core::counters::Action;
use sipguard_tests::capture::{Captured, Form, on_link, whole};
use sipguard_tests::chance::Chance;
use sipguard_tests::exclusive;
use sipguard_tests::guard::{Output, neighbour};
use sipguard_tests::message::{OPTIONS, faults, good_call, invite, large, register, stun};
use sipguard_tests::packet::{ACK, FIN, PSH, Peer, SYN};
use sipguard_tests::program::Program;
use sipguard_tests::scratch::Scratch;

/// Link types of which all captures must come to the same.
const LINKS: [u32; 6] = [1, 113, 276, 101, 12, 0];
/// Most memory of a replay, in kilobytes, whatever the size of the capture.
const MOST_KB: u64 = 100 << 10;
const PBX: &str = "198.51.100.1:5060";

/// Exit status of a replay of which something would be stopped.
const WOULD_STOP: i32 = 8;

/// A run of the command on its own: no pins, no configuration of the machine.
fn run(words: &[&str], store: &Path) -> Result<Output> {
    finish(Command::new(neighbour("SIPGUARD", "sipguard")?).args(words), store)
}

fn finish(command: &mut Command, store: &Path) -> Result<Output> {
    let output = command
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-replay-test")
        .env("SIPGUARD_STORE", store)
        .env("SIPGUARD_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = output.status.code().context("an exit status")?;
    Ok(Output { status, stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// Writes a capture and replays it: the report, and the exit status.
fn replay(scratch: &Scratch, file: &[u8], options: &[&str]) -> Result<(Value, i32)> {
    let path = scratch.join("capture");
    std::fs::write(&path, file)?;
    let path = path.to_string_lossy();
    let output = run(&[&["replay", "-j", &path], options].concat(), &scratch.join("rules.db"))?;
    let mut answer: Value = serde_json::from_str(&output.stdout)
        .with_context(|| format!("status {}: {}", output.status, output.stderr))?;
    ensure!(answer["schema"] == "sipguard.replay/2", "{answer}");
    Ok((answer["rows"][0].take(), output.status))
}

fn reasons(report: &Value) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for ((reason, _), packets) in actions(report) {
        *sums.entry(reason).or_default() += packets;
    }
    sums
}

/// Packets by reason and what would become of them.
fn actions(report: &Value) -> BTreeMap<(String, String), u64> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = report["reasons"].as_array().into_iter().flatten();
    rows.map(|row| ((text(row, "reason"), text(row, "action")), row["packets"].as_u64().unwrap_or(0)))
        .collect()
}

/// What was stopped: address and port, reason, packets, number of the first.
fn stopped(report: &Value) -> Vec<(String, String, u64, u64)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = report["sources"].as_array().into_iter().flatten();
    let mut all: Vec<_> = rows
        .map(|row| {
            let source = format!("{} {}", text(row, "src_ip"), row["src_port"]);
            let number = |key: &str| row[key].as_u64().unwrap_or(0);
            (source, text(row, "reason"), number("packets"), number("first_packet"))
        })
        .collect();
    all.sort();
    all
}

/// A connection with these segments, from its SYN on.
fn connection(peer: &Peer, segments: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut frames = vec![peer.tcp(SYN, 999, b""), peer.tcp(ACK, 1000, b"")];
    let mut seq = 1000;
    for segment in segments {
        frames.push(peer.tcp(ACK | PSH, seq, segment));
        seq += segment.len() as u32;
    }
    frames.push(peer.tcp(ACK | FIN, seq, b""));
    frames
}

fn back(peer: &Peer) -> Peer {
    Peer { remote: peer.local, local: peer.remote, ..peer.clone() }
}

fn phone(port: u16) -> Peer {
    Peer::new(&format!("192.0.2.7:{port}"), PBX)
}

fn v6() -> Peer {
    Peer::new("[2001:db8::7]:40000", "[2001:db8::1]:5060")
}

/// Good and bad traffic of many phones: every fault over TCP and UDP, each from a port of its own.
fn traffic() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let (good, call) = (register(1), invite());
    frames.extend(connection(&phone(40_000), &[&good, &call[..100], &call[100..], b"\r\n\r\n", OPTIONS]));
    // As a card that puts segments together brings them.
    frames.extend(connection(&v6(), &[&good, &large()[..1400], &large()[1400..60_000]]));
    let mut port = 41_000;
    for fault in faults() {
        port += 1;
        let pieces: Vec<&[u8]> = fault.bytes.chunks(1400).collect();
        frames.extend(connection(&phone(port), &[&[&good[..]], &pieces[..], &[&b"more"[..]]].concat()));
        frames.push(phone(port + 1000).udp(&fault.bytes[..fault.bytes.len().min(1400)]));
    }
    frames.extend([
        phone(43_000).udp(&good_call()),
        phone(43_001).udp(b"\0\0\0\0"),
        phone(43_002).udp(&stun(&[])),
    ]);
    frames.push(Peer::new("192.0.2.7:40002", "198.51.100.1:40002").udp(&[0x80; 172]));
    frames.push(phone(43_003).tcp(ACK | PSH, 7, b"of an older connection"));
    let long = sipguard_tests::message::call(&format!("X: {}\r\n", "y".repeat(900)).repeat(3), b"");
    frames.extend(phone(43_004).udp_fragments(&long, 1400));
    frames
}

#[test]
fn every_form_and_link_type_comes_to_the_same() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let frames = traffic();
    let (usual, status) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&frames)), &[])?;
    ensure!(status == WOULD_STOP && usual["packets"] == frames.len(), "{usual:#}");
    let mut same = 0;
    for link in LINKS {
        let data: Vec<Vec<u8>> = frames.iter().map(|frame| on_link(link, frame, false)).collect();
        let packets = whole(&data);
        for form in Form::ALL {
            for file in
                [form.pcap(link, &packets), form.pcapng(link, &packets), form.pcapng_simple(link, &packets)]
            {
                let (report, status) = replay(&scratch, &file, &[])?;
                let told = (reasons(&report), stopped(&report), status);
                assert_eq!(
                    told,
                    (reasons(&usual), stopped(&usual), WOULD_STOP),
                    "link type {link}, {form:?}"
                );
                same += 1;
            }
        }
    }
    println!("{same} captures of {} packets come to the same: {:?}", frames.len(), reasons(&usual));
    Ok(())
}

#[test]
fn what_is_told_is_what_the_program_does() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let frames = traffic();
    let mut program = Program::shared()?;
    let (mut counted, mut of_sources) =
        (BTreeMap::<(String, String), u64>::new(), BTreeMap::<(String, String), (u64, u64)>::new());
    for (number, frame) in (1u64..).zip(&frames) {
        let run = program.run(frame)?;
        let reason = run.reason;
        if frame.ends_with(&v6().tcp(SYN, 999, b"")[54..]) {
            program.leave(&v6().answer(1000))?;
        } else if frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] == SYN {
            program.leave(&phone(u16::from_be_bytes([frame[34], frame[35]])).answer(1000))?;
        }
        let action = Action::of_outcome(reason, run.outcome).name().to_owned();
        *counted.entry((reason.name().to_owned(), action)).or_default() += 1;
        if reason.class() != Class::Pass {
            let port = u16::from_be_bytes([frame[34], frame[35]]);
            let key = (format!("192.0.2.7 {port}"), reason.name().to_owned());
            of_sources.entry(key).or_insert((0, number)).0 += 1;
        }
    }
    let expected: Vec<_> =
        of_sources.into_iter().map(|((a, b), (packets, first))| (a, b, packets, first)).collect();
    let (report, status) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&frames)), &[])?;
    assert_eq!((actions(&report), stopped(&report), status), (counted, expected.clone(), WOULD_STOP));
    ensure!(expected.len() > 40, "only {} faults", expected.len());
    println!(
        "{} packets, {} sources and reasons that are stopped: as in runs of the program",
        frames.len(),
        expected.len()
    );
    Ok(())
}

#[test]
fn what_a_capture_lacks_accuses_nobody() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let text = register(1);
    let frames = connection(&phone(40_000), &[&text[..100], &text[100..200], &text[200..], OPTIONS]);
    let number = |report: &Value, key: &str| report[key].as_u64().unwrap_or(u64::MAX);
    // Cut: the segment is not judged, nor is what follows on its connection. Another one is.
    let mut cut = whole(&frames);
    cut[3].data.truncate(80);
    cut.extend(whole(&[phone(40_001).udp(b"REGISTER sip:a SIP/3.0\r\n\r\n")]));
    let (report, status) = replay(&scratch, &Form::USUAL.pcap(1, &cut), &[])?;
    assert_eq!(
        (number(&report, "cut"), number(&report, "lacking"), number(&report, "stopped"), status),
        (1, 3, 1, WOULD_STOP)
    );
    assert_eq!(reasons(&report)["bad-version"], 1);
    // Missing: the capture lost it, the wire did not.
    let mut missing = frames.clone();
    missing.remove(3);
    let (report, status) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&missing)), &[])?;
    assert_eq!((number(&report, "lacking"), number(&report, "stopped"), status), (2, 0, 0), "{report:#}");
    // Out of order: judged once it is complete, and a fault behind is found.
    let faulty = connection(&phone(40_000), &[&text[..100], &text[100..], b"REGISTER sip:a SIP/3.0\r\n\r\n"]);
    for (frames, found, ends) in [(&frames, 0, 0), (&faulty, 1, WOULD_STOP)] {
        let mut turned = frames.clone();
        turned[2..].rotate_left(1);
        turned.swap(3, 4);
        let (report, status) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&turned)), &[])?;
        assert_eq!((number(&report, "lacking"), number(&report, "stopped"), status), (0, found, ends));
    }
    // Every packet cut within its headers: nothing is judged, nobody is accused.
    let mut all = whole(&traffic());
    for packet in &mut all {
        packet.data.truncate(40);
    }
    let (report, status) = replay(&scratch, &Form::USUAL.pcap(1, &all), &[])?;
    assert_eq!(
        (number(&report, "cut"), number(&report, "judged"), status),
        // Nothing was judged, which is no good end.
        (all.len() as u64, 0, 1),
        "{report:#}"
    );
    Ok(())
}

#[test]
fn the_clock_is_the_captures() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let text = register(1);
    let frames = connection(&phone(40_000), &[&text[..100], &text[100..]]);
    for (seconds, status) in [(29, 0), (31, WOULD_STOP)] {
        let mut packets = whole(&frames);
        packets[3..].iter_mut().for_each(|packet| packet.time_us += seconds * 1_000_000);
        let (report, ended) = replay(&scratch, &Form::USUAL.pcap(1, &packets), &[])?;
        assert_eq!(ended, status, "{seconds} s: {report:#}");
        assert_eq!(reasons(&report).contains_key(Reason::SlowMessage.name()), status == WOULD_STOP);
    }
    Ok(())
}

#[test]
fn the_policy_is_the_files_and_the_stores() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let trunk = Peer::new("203.0.113.9:5060", PBX);
    let on_5080 = Peer::new("192.0.2.8:40000", "198.51.100.1:5080");
    let frames = vec![
        trunk.udp(&register(1)),
        trunk.udp(&good_call()),
        phone(40_000).udp(&register(2)),
        on_5080.udp(b"REGISTER sip:a SIP/3.0\r\n\r\n"),
    ];
    let file = Form::USUAL.pcap(1, &whole(&frames));
    let (plain, status) = replay(&scratch, &file, &[])?;
    assert_eq!(
        (reasons(&plain), status),
        ([("not-guarded".to_owned(), 1), ("valid".to_owned(), 3)].into(), 0)
    );
    let config = scratch.write(
        "guard.toml",
        "[guard]\nmode = \"monitor\"\nports = [5060, 5080]\n[limits]\npackets = \"1/s burst 1\"\n[trunks.carrier]\npeers = [\"203.0.113.9\"]\nmethods = [\"INVITE\"]\n",
    )?;
    let config = config.to_string_lossy();
    let (report, status) = replay(&scratch, &file, &["--config", &config])?;
    assert_eq!(
        stopped(&report).iter().map(|one| one.1.as_str()).collect::<Vec<_>>(),
        ["bad-version", "method-denied"]
    );
    assert_eq!(status, WOULD_STOP);
    assert_eq!(report["trunks"][0]["trunk"], "carrier", "{report:#}");
    // The store: not without being asked, and never changed.
    let store = scratch.join("rules.db");
    let none = run(&["replay", "--with-store", "capture"], &store)?.expect(1)?;
    ensure!(none.stderr.contains("there is no store") && !store.exists(), "{}", none.stderr);
    run(&["block", "192.0.2.7", "--for", "1h"], &store)?.expect(0)?;
    let before = std::fs::read(&store)?;
    let (report, _) = replay(&scratch, &file, &["--config", &config])?;
    assert_eq!(stopped(&report).len(), 2);
    let (report, _) = replay(&scratch, &file, &["--config", &config, "--with-store"])?;
    assert_eq!(stopped(&report).len(), 3, "{report:#}");
    assert_eq!(reasons(&report)["blocked-host"], 1);
    ensure!(std::fs::read(&store)? == before, "the store changed");
    let (report, _) = replay(&scratch, &file, &["--port", "5080"])?;
    assert_eq!(reasons(&report)["bad-version"], 1);
    Ok(())
}

#[test]
fn damaged_files() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let packets = whole(&[phone(40_000).udp(&register(1)), phone(40_001).udp(&register(2))]);
    let (usual, big) = (Form::USUAL, Form { big_endian: true, ..Form::USUAL });
    let pcap = usual.pcap(1, &packets);
    let one = usual.pcap(1, &packets[..1]);
    let next = |head: [u32; 4]| {
        [&one[..], &head.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()].concat()
    };
    let ng = usual.pcapng(1, &packets[..1]);
    let mut uneven = usual.enhanced(0, &packets[1]);
    let end = uneven.len();
    uneven[end - 4] ^= 8;
    let mut long = usual.enhanced(0, &packets[1]);
    long[20..24].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    let mut over = usual.enhanced(0, &packets[1]);
    over[20..24].copy_from_slice(&200_000_u32.to_le_bytes());
    let mut huge = usual.enhanced(0, &packets[1]);
    huge[4..8].copy_from_slice(&0x7fff_fff0_u32.to_le_bytes());
    huge.resize(20 << 20, 0);
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("empty.pcap", Vec::new()),
        ("text.pcap", b"this is a text, and no capture at all\n".to_vec()),
        ("packed.pcap.gz", [&[0x1f, 0x8b, 8, 0][..], &[0; 60]].concat()),
        ("short-header.pcap", pcap[..20].to_vec()),
        ("ends-in-a-packet.pcap", pcap[..pcap.len() - 7].to_vec()),
        ("ends-in-a-packet-header.pcap", pcap[..one.len() + 9].to_vec()),
        ("a-length-of-4-gib.pcap", next([0, 0, u32::MAX, u32::MAX])),
        ("a-length-of-1-mib.pcap", [next([0, 0, 1 << 20, 1 << 20]), vec![0; 2 << 20]].concat()),
        ("ends-in-a-block.pcapng", usual.pcapng(1, &packets)[..ng.len() + 30].to_vec()),
        ("an-interface-that-there-is-not.pcapng", [ng.clone(), usual.enhanced(7, &packets[1])].concat()),
        ("two-lengths.pcapng", [ng.clone(), uneven].concat()),
        ("longer-than-its-block.pcapng", [ng.clone(), over].concat()),
        ("a-packet-of-4-gib.pcapng", [ng.clone(), long].concat()),
        ("a-block-of-2-gib.pcapng", [ng.clone(), huge].concat()),
        ("a-block-of-8-bytes.pcapng", [&ng[..], &[6, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0]].concat()),
        ("no-interface.pcapng", [big.section(&[]), big.enhanced(0, &packets[0])].concat()),
        ("of-bluetooth.pcap", usual.pcap(201, &packets)),
        ("of-the-user.pcap", usual.pcap(147, &packets)),
        ("stopped.pcap", usual.pcap(1, &whole(&[phone(40_000).udp(b"REGISTER sip:a SIP/3.0\r\n\r\n")]))),
        ("stopped-and-cut.pcap", {
            let bad = phone(40_000).udp(b"REGISTER sip:a SIP/3.0\r\n\r\n");
            let file = usual.pcap(1, &whole(&[bad, phone(40_001).udp(&register(2))]));
            file[..file.len() - 7].to_vec()
        }),
        ("good.pcap", pcap.clone()),
    ];
    let mut said = String::new();
    for (name, file) in files {
        let path = scratch.join(name);
        std::fs::write(&path, file)?;
        let output = run(&["replay", &path.to_string_lossy()], &scratch.join("rules.db"))?;
        let text = format!(
            "$ sipguard replay {name}\n{}{}exit status {}\n\n",
            output.stdout, output.stderr, output.status
        );
        said += &text.replace(&format!("{}/", scratch.path().display()), "");
    }
    let output = run(&["replay", "/nonexistent.pcap", "/"], &scratch.join("rules.db"))?;
    said += &format!("{}{}exit status {}\n", output.stdout, output.stderr, output.status);
    insta::assert_snapshot!(said);
    Ok(())
}

/// Files with a few bytes changed: whatever they say, the command ends as it should, within its memory.
#[test]
fn hostile_files_end_in_a_report_or_an_error() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let packets = whole(&traffic()[..40]);
    let forms = [
        Form::USUAL.pcap(1, &packets),
        Form::ALL[1].pcapng(113, &packets),
        Form::USUAL.pcapng_simple(101, &packets),
    ];
    let mut chance = Chance::new(7);
    let mut ends = BTreeMap::new();
    let names: Vec<String> = (0..60)
        .map(|number| {
            let mut file = forms[number % forms.len()].clone();
            for _ in 0..1 + chance.below(20) {
                let at = chance.below(file.len() as u32) as usize;
                file[at] = chance.below(256) as u8;
            }
            let path = scratch.join(&format!("{number}"));
            std::fs::write(&path, file)?;
            Ok(path.to_string_lossy().into_owned())
        })
        .collect::<Result<_>>()?;
    // One at a time, so that one that panics is named.
    for name in names {
        let output = run(&["replay", "-j", &name], &scratch.join("rules.db"))?;
        ensure!(
            [0, 1, WOULD_STOP].contains(&output.status),
            "{name} ended with {}: {}",
            output.status,
            output.stderr
        );
        *ends.entry(output.status).or_insert(0) += 1;
    }
    println!("60 hostile files by exit status: {ends:?}");
    Ok(())
}

/// Captures of real traffic, where `SIPGUARD_CORPUS` names a directory with such: told, and read to their ends.
#[test]
fn captures_of_the_corpus() -> Result<()> {
    let _shared = exclusive::beside_others();
    let Some(directory) = std::env::var_os("SIPGUARD_CORPUS") else {
        println!("skipped: SIPGUARD_CORPUS names no directory");
        return Ok(());
    };
    let mut directories = vec![std::path::PathBuf::from(directory)];
    let scratch = Scratch::new("replay")?;
    let mut found = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "pcap" || end == "pcapng") {
                let output = run(&["replay", &path.to_string_lossy()], &scratch.join("rules.db"))?;
                ensure!([0, 1, WOULD_STOP].contains(&output.status), "{}: {}", path.display(), output.stderr);
                println!("{}", output.stdout);
                found += 1;
            }
        }
    }
    println!("{found} captures in SIPGUARD_CORPUS");
    Ok(())
}
