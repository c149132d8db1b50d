//! What a replay comes to: the answer first, the commands last; from standard input too, and of several captures at once.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::capture::{Form, whole};
use sipguard_tests::exclusive;
use sipguard_tests::guard::{Output, neighbour};
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, PSH, Peer, RST};
use sipguard_tests::scratch::Scratch;

use super::{PBX, WOULD_STOP, connection, finish, phone, replay, run, traffic};

/// A phone that sends good messages and, in packet 6, one whose CSeq is too large.
fn phone_at_fault() -> Result<(Vec<Vec<u8>>, String)> {
    let bad = String::from_utf8(OPTIONS.to_vec())?.replace("CSeq: ", "CSeq: 99999999999");
    ensure!(bad.as_bytes() != OPTIONS, "the message has a CSeq");
    let mut frames = connection(&phone(45_000), &[OPTIONS, OPTIONS]);
    frames.push(phone(45_001).udp(bad.as_bytes()));
    Ok((frames, bad))
}

#[test]
fn the_answer_comes_first_and_its_commands_let_it_pass() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let (path, store) = (scratch.join("one capture"), scratch.join("rules.db"));
    let (frames, bad) = phone_at_fault()?;
    std::fs::write(&path, Form::USUAL.pcap(1, &whole(&frames)))?;
    let shown = path.to_string_lossy();
    let told = run(&["replay", &shown], &store)?.expect(WOULD_STOP)?.stdout;
    let first = told.lines().next().context("an answer")?;
    let answer = "perhaps something legal: 1 packet of 3 would be stopped, of 1 address; 1 of them also sent what is \
                  well-formed, and is in use";
    assert_eq!(first, format!("{shown}: {answer}"));
    let row = told.lines().find(|line| line.trim_start().starts_with("192.0.2.7 ")).context("whose")?;
    let words: Vec<&str> = row.split_whitespace().collect();
    let at = bad.find("CSeq").context("the line at fault")?.to_string();
    assert_eq!(words[..6], ["192.0.2.7", "bad-number", "1", "2", "6", &at], "{told}");
    ensure!(row.contains("CSeq: 99999999999"), "{told}");
    ensure!(told.contains("\n  bad-number: A number that overflows"), "{told}");
    // The last lines, to be typed as they are.
    let commands: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("    sipguard ")).collect();
    ensure!(told.ends_with(&format!("    sipguard {}\n", commands[commands.len() - 1])), "{told}");
    assert_eq!(commands, ["checks set bad-number off --devices", &format!("replay '{shown}' --with-store")]);
    run(&commands[0].split(' ').collect::<Vec<_>>(), &store)?.expect(0)?;
    let told = run(&["replay", &shown, "--with-store"], &store)?.expect(0)?.stdout;
    ensure!(told.starts_with(&format!("{shown}: nothing would be stopped of 3 packets\n")), "{told}");
    ensure!(!told.contains("let it pass"), "{told}");
    let report: Value = serde_json::from_str(&run(&["replay", "-j", &shown], &store)?.stdout)?;
    let answer = &report["rows"][0]["answer"];
    assert_eq!(
        (&answer["verdict"], &answer["faults"][0]["well_formed"]),
        (&"perhaps-legal".into(), &2.into())
    );
    Ok(())
}

/// What there is nothing to be said of is no good capture.
#[test]
fn a_capture_of_nothing_guarded_is_not_called_good() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let voice = Peer::new("192.0.2.7:40000", "198.51.100.1:40002").udp(&[0x80; 172]);
    let older = Peer::new("192.0.2.7:40000", PBX).tcp(ACK, 7, OPTIONS);
    for (frames, why) in [
        (vec![], "no packet came in for a guarded port (5060, 5061)"),
        (vec![voice.clone(); 3], "no packet came in for a guarded port (5060, 5061)"),
        (vec![voice, older], "nothing could be judged: 1 packets lack"),
    ] {
        let file = Form::USUAL.pcap(1, &whole(&frames));
        let (report, status) = replay(&scratch, &file, &["--pbx", "198.51.100.1"])?;
        assert_eq!((status, &report["answer"]["verdict"]), (1, &"nothing-judged".into()), "{report:#}");
        let path = scratch.join("capture");
        let told = run(&["replay", &path.to_string_lossy()], &scratch.join("rules.db"))?.expect(1)?;
        let expected = format!("{}: nothing can be said: ", path.display());
        ensure!(told.stdout.starts_with(&expected) && told.stdout.contains(why), "{told:?}");
        ensure!(told.stderr.contains(why), "{told:?}");
    }
    Ok(())
}

/// A replay that reads a file from its standard input.
fn from_input(file: &std::path::Path, words: &[&str], scratch: &Scratch) -> Result<Output> {
    let mut command = Command::new(neighbour("SIPGUARD", "sipguard")?);
    let output = command
        .args([&["replay"], words].concat())
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-replay-test")
        .env("SIPGUARD_STORE", scratch.join("rules.db"))
        .env("SIPGUARD_CONFIG", "/dev/null")
        .stdin(File::open(file)?)
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = output.status.code().context("an exit status")?;
    Ok(Output { status, stdout: text(output.stdout), stderr: text(output.stderr) })
}

#[test]
fn standard_input_is_a_capture_like_others() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let frames = whole(&traffic());
    for file in [Form::USUAL.pcap(1, &frames), Form::USUAL.pcapng(1, &frames)] {
        let (mut expected, status) = replay(&scratch, &file, &[])?;
        ensure!(expected["stopped"].as_u64() > Some(20), "{expected:#}");
        let output = from_input(&scratch.join("capture"), &["-j", "-"], &scratch)?.expect(status)?;
        let mut found: Value = serde_json::from_str(&output.stdout)?;
        let mut found = found["rows"][0].take();
        // There is no file to be replayed again.
        for report in [&mut found, &mut expected] {
            report["file"].take();
            let commands = report["answer"]["commands"].as_array_mut().context("commands")?;
            commands
                .retain(|command| !command.as_str().is_some_and(|text| text.starts_with("sipguard replay")));
        }
        assert_eq!(found, expected);
    }
    let packed = scratch.write("packed", "\u{1f}")?;
    std::fs::write(&packed, [0x1f, 0x8b, 8, 0])?;
    let told = from_input(&packed, &["-"], &scratch)?.expect(1)?;
    ensure!(told.stderr.contains("put `gunzip |` before"), "{told:?}");
    let told = from_input(&packed, &["-", "-"], &scratch)?.expect(2)?;
    ensure!(told.stderr.contains("once only"), "{told:?}");
    Ok(())
}

/// Text and exit status are those of one after the other.
#[test]
fn several_captures_are_told_in_their_order() -> Result<()> {
    let _turn = exclusive::beside_others();
    let (scratch, store) = (Scratch::new("replay")?, "rules.db");
    let good = Form::USUAL.pcap(1, &whole(&connection(&phone(45_000), &[OPTIONS])));
    let large = Form::USUAL.pcap(1, &whole(&vec![traffic(); 20].concat()));
    let faulty = Form::USUAL.pcap(1, &whole(&phone_at_fault()?.0));
    let files = [&large, &good, &faulty, &good, &large].map(Vec::as_slice);
    let mut names = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let path = scratch.join(&format!("{number}.pcap"));
        std::fs::write(&path, file)?;
        names.push(path.to_string_lossy().into_owned());
    }
    let alone = |name: &String| run(&["replay", name, "--pbx", "198.51.100.1"], &scratch.join(store));
    let each = names.iter().map(alone).collect::<Result<Vec<_>>>()?;
    let words: Vec<&str> =
        ["replay", "--pbx", "198.51.100.1"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let together = run(&words, &scratch.join(store))?.expect(WOULD_STOP)?;
    assert_eq!(each.iter().map(|one| one.status).max(), Some(WOULD_STOP));
    let expected: Vec<&str> = each.iter().map(|one| one.stdout.as_str()).collect();
    assert_eq!(together.stdout, expected.join("\n"));
    // What can't be read wins, wherever it is.
    std::fs::write(&names[1], b"no capture")?;
    let words: Vec<&str> = words.iter().copied().take(6).collect();
    let told = run(&words, &scratch.join(store))?.expect(1)?;
    ensure!(told.stderr.contains("is no capture") && told.stderr.contains("would be stopped"), "{told:?}");
    Ok(())
}

#[test]
fn a_terminal_is_told_how_long_it_takes() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let path = scratch.join("large.pcap");
    std::fs::write(&path, Form::USUAL.pcap(1, &whole(&vec![traffic(); 60].concat())))?;
    let sipguard = neighbour("SIPGUARD", "sipguard")?;
    let line = format!("{} replay --pbx 198.51.100.1 {}", sipguard.display(), path.display());
    // Makes a terminal of its own.
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    let told = finish(&mut command, &scratch.join("rules.db"))?.expect(WOULD_STOP)?.stdout;
    ensure!(told.contains("large.pcap \u{2588}") && told.contains("s left"), "{told}");
    let told = run(&["replay", "--pbx", "198.51.100.1", &path.to_string_lossy()], &scratch.join("rules.db"))?;
    ensure!(!told.stderr.contains('%') && !told.stderr.contains(" left"), "{}", told.stderr);
    Ok(())
}

/// What a shell makes of `<(...)` is a pipe with a name, which can be read once only.
#[test]
fn a_pipe_with_a_name_is_a_capture_like_others() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let file = Form::USUAL.pcap(1, &whole(&traffic()));
    let (expected, status) = replay(&scratch, &file, &[])?;
    let path = scratch.join("capture");
    let command = format!("exec \"$SIPGUARD\" replay -j <(cat {})", path.display());
    let output = Command::new("bash")
        .args(["-c", &command])
        .env("SIPGUARD", neighbour("SIPGUARD", "sipguard")?)
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-replay-test")
        .env("SIPGUARD_STORE", scratch.join("rules.db"))
        .env("SIPGUARD_CONFIG", "/dev/null")
        .output()?;
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(report["rows"][0]["reasons"], expected["reasons"]);
    Ok(())
}

/// The one who sends nothing but what is malformed is named before any check is.
#[test]
fn the_offender_is_to_be_blocked_before_a_check_is_switched_off() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let bad = String::from_utf8(OPTIONS.to_vec())?.replace("CSeq: ", "X-Serial: \x01\r\nCSeq: ");
    let mut frames = connection(&phone(45_000), &[OPTIONS]);
    let errant = |port| Peer::new(&format!("192.0.2.99:{port}"), PBX);
    frames.extend((0..5).map(|number| errant(46_000 + number).udp(bad.as_bytes())));
    let path = scratch.join("capture");
    std::fs::write(&path, Form::USUAL.pcap(1, &whole(&frames)))?;
    let told = run(&["replay", &path.to_string_lossy(), "--explain"], &scratch.join("rules.db"))?;
    let told = told.expect(WOULD_STOP)?.stdout;
    let commands: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("    sipguard ")).collect();
    ensure!(commands.first() == Some(&"block 192.0.2.99"), "{told}");
    ensure!(commands[1].starts_with("checks set control-byte"), "{told}");
    ensure!(told.contains("X-Serial: \\x01"), "{told}");
    Ok(())
}

/// The guard before whoever captured has made resets of malformed segments: the phone's own segment that follows still has its line.
#[test]
fn a_capture_taken_behind_a_guard_has_the_line_and_says_so() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let bad = String::from_utf8(OPTIONS.to_vec())?.replace("CSeq: ", "X-Serial: \x01\r\nCSeq: ");
    let mut frames = connection(&phone(45_000), &[]);
    frames.truncate(2);
    frames.push(phone(45_000).tcp(ACK | RST, 1000, bad.as_bytes()));
    frames.push(phone(45_000).tcp(ACK | PSH, 1000, bad.as_bytes()));
    let path = scratch.join("capture");
    std::fs::write(&path, Form::USUAL.pcap(1, &whole(&frames)))?;
    let told =
        run(&["replay", &path.to_string_lossy()], &scratch.join("rules.db"))?.expect(WOULD_STOP)?.stdout;
    ensure!(told.contains("X-Serial: \\x01") && told.contains("Resets with data: 1 packet;"), "{told}");
    Ok(())
}
