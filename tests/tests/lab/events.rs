//! `sipguard events`: what was stopped, for people and as EVE, asked for in parts, and followed.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::{ChildStdout, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_tests::{
    application::{PATIENCE, Server, sip, udp, wait_until},
    guard::{Site, number, text},
    message::{OPTIONS, bent, good_call, negative_length},
    process::Running,
};

const SECRET: &str = "5ebe2294ecd0e0f08eab7690d2a6ee69";

/// A datagram of the phone, from an address and port of its own.
fn send(site: &Site, from: (IpAddr, u16), bytes: &[u8]) -> Result<()> {
    let to = if from.0.is_ipv4() { Site::PBX[0] } else { Site::PBX[1] };
    let socket = udp(&site.phone, from)?;
    socket.send_to(bytes, (to, 5060)).context("sending")?;
    Ok(())
}

fn bad_call() -> Vec<u8> {
    let credentials =
        format!("AUTHORIZATION: Digest username=\"desk\",\r\n response=\"{SECRET}\"\r\nX: a\0b\r\n");
    bent(&good_call(), "Max-Forwards: 70\r\n", credentials + "Max-Forwards: 70\r\nUser-Agent: Phone 1.0\r\n")
}

/// A guard that has stopped something of each sort.
fn busy() -> Result<Site> {
    let site = Site::guarded(true, &[])?;
    let [v4, v6] = Site::PHONE;
    for name in ["carrier --peer 10.77.0.64/28", "other --peer 10.77.0.80/28"] {
        site.guard.run(&["trunk add", name].join(" ").split(' ').collect::<Vec<_>>())?.expect(0)?;
    }
    site.phone.run(&["ip", "address", "add", "10.77.0.65/24", "dev", Site::INTERFACE])?;
    send(&site, (v4, 4001), &bad_call())?;
    send(&site, (v4, 4002), b"\0garbage that is no message at all")?;
    wait_until("IPv6 is ready", || Ok(send(&site, (v6, 4003), &bad_call()).is_ok()))?;
    send(&site, ("10.77.0.65".parse()?, 4004), &bad_call())?;
    site.guard.run(&["block", "10.77.0.2:4009", "--comment", "too loud"])?.expect(0)?;
    send(&site, (v4, 4009), OPTIONS)?;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let (phone, _application) = server.connect(&site.phone)?;
    // The guard resets it, perhaps before all is written.
    let _reset = phone.write(&negative_length().bytes);
    wait_until("all was judged", || Ok(site.guard.rows(&["events"])?.len() >= 6))?;
    Ok(site)
}

/// Events without their time: two clocks are read each time, so it differs by microseconds from one run to the next.
fn told(site: &Site, words: &[&str]) -> Result<Vec<Value>> {
    let mut events = site.guard.rows(words)?;
    for event in &mut events {
        event["timestamp"].take();
    }
    Ok(events)
}

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}

#[test]
fn an_event_says_who_what_why_and_by_which_rule() -> Result<()> {
    let site = busy()?;
    let events = site.guard.rows(&["events"])?;
    let of = |port: u64| {
        events.iter().find(|event| event["src_port"] == port).with_context(|| format!("none of {port}"))
    };
    let call = of(4001)?;
    ensure!(call["event_type"] == "sipguard" && call["in_iface"] == Site::INTERFACE, "{call}");
    ensure!(call["src_ip"] == "10.77.0.2" && call["dest_ip"] == "10.77.0.1", "{call}");
    ensure!(call["dest_port"] == 5060 && call["proto"] == "UDP", "{call}");
    let time: jiff::Timestamp = text(call, "timestamp")?.parse()?;
    ensure!(text(call, "timestamp")?.len() == "2026-01-01T00:00:00.000000Z".len(), "{call}");
    ensure!(jiff::Timestamp::now().duration_since(time).as_secs().abs() < 60, "{call}");
    let guard = &call["sipguard"];
    ensure!(guard["action"] == "drop" && guard["reason"] == "control-byte", "{call}");
    ensure!(guard["packets"] == 1 && guard["trunk"].is_null(), "{call}");
    ensure!(guard["rule"].is_null() && guard["evidence"].is_null(), "{call}");
    let sip = &call["sip"];
    ensure!(sip["method"] == "INVITE" && sip["uri"] == "sip:9100@pbx.example", "{call}");
    ensure!(sip["user_agent"] == "Phone 1.0" && sip["call_id"] == "a84b4c76e66710@192.0.2.7", "{call}");
    ensure!(
        text(call, "payload_printable")?.starts_with("INVITE sip:9100@pbx.example SIP/2.0\r\nVia"),
        "{call}"
    );
    ensure!(text(call, "payload")?.len() == 344, "256 bytes are 344 in base64: {call}");
    ensure!(of(4002)?["sip"].is_null() && of(4002)?["sipguard"]["action"] != "pass", "{events:?}");
    ensure!(of(4003)?["src_ip"] == "fd77::2" && of(4003)?["dest_ip"] == "fd77::1", "{events:?}");
    ensure!(of(4004)?["sipguard"]["trunk"] == "carrier", "{events:?}");
    let blocked = &of(4009)?["sipguard"];
    ensure!(blocked["reason"] == "blocked-device" && blocked["action"] == "drop", "{blocked}");
    ensure!(blocked["rule"] == "block 10.77.0.2:4009 (cli): too loud", "{blocked}");
    let tcp = events.iter().find(|event| event["proto"] == "TCP").context("none of TCP")?;
    ensure!(tcp["sipguard"]["action"] == "reset", "{tcp}");
    ensure!(tcp["sipguard"]["reason"] == "bad-content-length" && tcp["sip"]["method"] == "REGISTER", "{tcp}");
    for form in ["table", "json", "ndjson"] {
        let told = site.guard.run(&["events", "-o", form])?.expect(0)?.stdout;
        ensure!(told.contains("blocked-device") && !told.contains(&SECRET[..4]), "{form}: {told}");
    }
    let table = site.guard.run(&["events"])?.expect(0)?.stdout;
    let line = table.lines().find(|line| line.contains(":4001")).context("no line of 4001")?;
    let (time, rest) = line.split_once(' ').context("no time")?;
    ensure!(time.ends_with('Z'), "{line}");
    let expected = "eth0 10.77.0.2:4001 > 10.77.0.1:5060 udp drop control-byte \"INVITE sip:9100@pbx.example SIP/2.0\" \
                    From: \"Alice\" <sip:alice@pbx.example>;tag=1928301774";
    ensure!(rest == expected, "{line}");
    let ndjson = lines(&site.guard.run(&["events", "-o", "ndjson"])?.expect(0)?.stdout)?;
    ensure!(ndjson.len() == table.lines().count(), "{} lines", ndjson.len());
    ensure!(ndjson.iter().all(|event| event["schema"] == "sipguard.events/2"), "{ndjson:?}");
    Ok(())
}

#[test]
fn each_filter_leaves_what_it_asks_for() -> Result<()> {
    let site = busy()?;
    let all = told(&site, &["events"])?;
    for (words, is) in [
        ("--src 10.77.0.2:4001", (|event: &Value| event["src_port"] == 4001) as fn(&Value) -> bool),
        ("--src 10.77.0.64/28", |event| event["src_ip"] == "10.77.0.65"),
        ("--src fd77::/64", |event| event["proto"] == "UDP" && event["src_ip"] == "fd77::2"),
        ("--src 10.77.0.2:4001 --src 10.77.0.2:4002", |event| {
            event["src_port"] == 4001 || event["src_port"] == 4002
        }),
        ("--reason blocked-device", |event| event["sipguard"]["reason"] == "blocked-device"),
        ("--reason blocked-device,control-byte --src 10.77.0.2", |event| {
            event["src_ip"] == "10.77.0.2"
                && (event["sipguard"]["reason"] == "blocked-device"
                    || event["sipguard"]["reason"] == "control-byte")
        }),
        ("--trunk carrier", |event| event["sipguard"]["trunk"] == "carrier"),
        ("--trunk other", |_| false),
        ("--iface eth0", |_| true),
        ("--since 10m", |_| true),
        ("--since 0.001", |_| false),
    ] {
        let words: Vec<&str> = ["events"].into_iter().chain(words.split(' ')).collect();
        let want: Vec<&Value> = all.iter().filter(|event| is(event)).collect();
        let got = told(&site, &words)?;
        ensure!(got.iter().collect::<Vec<_>>() == want, "{words:?}: {got:#?} instead of {want:#?}");
        ensure!(
            want.is_empty() || want.len() < all.len() || words[1] == "--iface" || words[1] == "--since",
            "{words:?}"
        );
    }
    let last = told(&site, &["events", "-n", "2"])?;
    ensure!(last == all[all.len() - 2..], "{last:?}");
    for (words, said) in [
        ("--reason nonsense", "is no reason"),
        ("--src nobody", "is neither an address"),
        ("--since tomorrow", "is no duration"),
    ] {
        let words: Vec<&str> = ["events"].into_iter().chain(words.split(' ')).collect();
        let output = site.guard.run(&words)?.expect(2)?;
        ensure!(output.stderr.contains(said), "{}", output.stderr);
    }
    Ok(())
}

/// A follower, with its lines.
fn follow(site: &Site, words: &[&str]) -> Result<(Running, BufReader<ChildStdout>)> {
    let (read, write) = std::io::pipe()?;
    let mut command = site.guard.command(&[&["events", "-f"], words].concat());
    command.stdin(Stdio::null()).stdout(write);
    let running = Running::start("sipguard events", &mut command)?;
    drop(command);
    Ok((running, BufReader::new(ChildStdout::from(std::os::fd::OwnedFd::from(read)))))
}

fn line(lines: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    ensure!(lines.read_line(&mut line)? > 0, "it ended");
    Ok(line)
}

#[test]
fn a_follower_hears_what_comes_also_of_a_guard_that_is_attached_anew() -> Result<()> {
    let site = busy()?;
    let before = site.guard.rows(&["events"])?.len();
    let (mut running, mut told) = follow(&site, &["-j"])?;
    for _ in 0..before {
        ensure!(serde_json::from_str::<Value>(&line(&mut told)?)?["event_type"] == "sipguard", "no event");
    }
    send(&site, (Site::PHONE[0], 4100), &bad_call())?;
    let event: Value = serde_json::from_str(&line(&mut told)?)?;
    ensure!(event["src_port"] == 4100, "{event}");
    // One a source and reason in ten seconds; another reason is told at once.
    send(&site, (Site::PHONE[0], 4100), &bad_call())?;
    send(&site, (Site::PHONE[0], 4100), b"\0garbage that is no message at all")?;
    let event: Value = serde_json::from_str(&line(&mut told)?)?;
    ensure!(event["src_port"] == 4100 && event["sipguard"]["reason"] != "control-byte", "{event}");
    site.guard.run(&["detach", "--all"])?.expect(0)?;
    site.guard.attach(&[Site::INTERFACE])?;
    send(&site, (Site::PHONE[0], 4101), &bad_call())?;
    let event: Value = serde_json::from_str(&line(&mut told)?)?;
    ensure!(number(&event, "src_port")? == 4101, "{event}");
    running.signal(Signal::SIGINT)?;
    let status = running.wait_at_most(PATIENCE)?.context("SIGINT does not end it")?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

#[test]
fn a_follower_ends_when_nobody_reads_it() -> Result<()> {
    let site = busy()?;
    let (mut running, mut told) = follow(&site, &["--reason", "control-byte"])?;
    line(&mut told)?;
    drop(told);
    send(&site, (Site::PHONE[0], 4100), &bad_call())?;
    let status = running.wait_at_most(PATIENCE)?.context("it goes on without a reader")?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

#[test]
fn without_a_guard_there_is_nothing_to_tell() -> Result<()> {
    let site = Site::new(true)?;
    for words in [&["events"][..], &["events", "-f"]] {
        let output = site.guard.run(words)?.expect(3)?;
        ensure!(output.stderr.contains("sipguard is not attached"), "{}", output.stderr);
    }
    Ok(())
}

#[test]
fn a_filter_that_names_nothing_known_is_an_error() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["trunk", "add", "carrier", "--peer", "10.77.0.64/28"])?.expect(0)?;
    for (words, known) in [
        (["--trunk", "nope"], "no trunk nope; known are carrier"),
        (["--iface", "eth9"], "not attached to an interface `eth9`; known are eth0"),
        (["--reason", "bare-fl"], "`bare-fl` is no reason (did you mean bare-lf?); known are not-ip,"),
    ] {
        for follow in [&[][..], &["-f"]] {
            let output = guard.run(&[&["events"], &words[..], follow].concat())?.expect(2)?;
            ensure!(output.stderr.contains(known) && output.stdout.is_empty(), "{words:?}: {output:?}");
        }
    }
    guard.run(&["events", "--trunk", "carrier", "--iface", Site::INTERFACE])?.expect(0)?;
    Ok(())
}
