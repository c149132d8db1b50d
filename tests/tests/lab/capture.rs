//! `sipguard capture`: what was asked for and no more, one at a time, and nothing after its process is gone.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_common::abi::{CURSOR_CAPTURED, names};
use sipguard_core::{clock::Clock, maps::open, pins::Pins};
use sipguard_tests::{
    application::{PATIENCE, Server, sip, udp, uninterrupted, wait_until},
    guard::{Guard, Site},
    message::{OPTIONS, bent},
    process::{Running, output},
    scratch::Scratch,
    user_agent::is_installed,
};

const SECRET: &str = "5ebe2294ecd0e0f08eab7690d2a6ee69";

fn captured(guard: &Guard) -> Result<u64> {
    let map: Array<_, u64> = open(&Pins::new(guard.pins()), names::CURSORS)?;
    Ok(map.get(&CURSOR_CAPTURED, 0)?)
}

/// A capture under way, into a file that its report goes to.
fn start(site: &Site, words: &[&str], report: &Path) -> Result<Running> {
    // One that was killed leaves its time behind.
    let before = site.guard.taps()?.capture_until_ns;
    let mut command = site.guard.command(&[&["capture", "-j", "--force"], words].concat());
    command.stdin(Stdio::null()).stdout(std::fs::File::create(report)?);
    let mut running = Running::start("sipguard capture", &mut command)?;
    wait_until("the kernel is asked, or it ended", || {
        Ok(site.guard.taps()?.capture_until_ns != before || running.try_wait()?.is_some())
    })?;
    Ok(running)
}

fn ended(running: &mut Running, report: &Path) -> Result<Value> {
    let status = running.wait_at_most(PATIENCE)?.context("it goes on")?;
    ensure!(status.code() == Some(0), "{status}");
    serde_json::from_str(&std::fs::read_to_string(report)?).context("its report is no JSON")
}

fn credentials() -> Vec<u8> {
    bent(OPTIONS, "Call-ID: c\r\n", format!("Authorization: Digest response=\"{SECRET}\"\r\nCall-ID: c\r\n"))
}

/// Ten messages and a datagram that is none, from each of two ports; all have been judged when it returns.
fn traffic(site: &Site) -> Result<()> {
    let pbx = udp(&site.pbx, (Site::PBX[0], 5060))?;
    pbx.set_read_timeout(Some(PATIENCE))?;
    for port in [4001, 4002] {
        let phone = udp(&site.phone, (Site::PHONE[0], port))?;
        let send = |bytes: &[u8]| phone.send_to(bytes, (Site::PBX[0], 5060)).context("sending");
        send(b"\0garbage that is no message at all")?;
        for _ in 0..10 {
            send(&credentials())?;
            uninterrupted(|| pbx.recv(&mut [0; 2048])).context("it did not arrive")?;
        }
    }
    Ok(())
}

#[test]
fn exactly_what_was_asked_for_is_in_the_file() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("capture")?);
    let has_tshark = is_installed("tshark", "tshark");
    for (words, packets) in [
        ("", 22),
        ("--src 10.77.0.2:4001", 11),
        ("--src 10.77.0.0/24 --verdict drop", 2),
        ("--src 10.77.0.2 --verdict pass", 20),
        ("--src 10.77.0.2:4002 --verdict drop", 1),
        ("--src 10.77.0.3", 0),
        ("--src fd77::/64", 0),
    ] {
        let (file, report) = (scratch.join("a.pcapng"), scratch.join("report"));
        let name = file.display().to_string();
        let words = ["-w", &name].into_iter().chain(words.split(' ').filter(|word| !word.is_empty()));
        let words: Vec<&str> = words.collect();
        let mut running = start(&site, &words, &report)?;
        traffic(&site)?;
        running.signal(Signal::SIGINT)?;
        let told = ended(&mut running, &report)?;
        ensure!(told["packets"] == packets && told["missed"] == 0, "{words:?}: {told}");
        ensure!(site.guard.taps()?.capture_until_ns == 0, "{words:?}: it is asked for still");
        let bytes = std::fs::read(&file)?;
        ensure!(told["bytes"] == bytes.len(), "{told} of {} bytes", bytes.len());
        ensure!(
            !bytes.windows(8).any(|part| part == &SECRET.as_bytes()[..8]),
            "{words:?}: credentials are left"
        );
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o640, "its mode");
        if has_tshark {
            let listed = output(Command::new("tshark").arg("-r").arg(&file))?;
            ensure!(listed.lines().count() == packets, "{words:?}: {listed}");
        }
    }
    Ok(())
}

#[test]
fn it_ends_by_count_by_time_by_size_and_with_its_reader() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("capture")?);
    let (file, report) = (scratch.join("a.pcapng"), scratch.join("report"));
    let name = file.display().to_string();
    let mut running = start(&site, &["-w", &name, "-c", "3"], &report)?;
    traffic(&site)?;
    let told = ended(&mut running, &report)?;
    ensure!(told["packets"] == 3, "not three: {told}");
    let mut running = start(&site, &["-w", &name, "--max-size", "2K"], &report)?;
    traffic(&site)?;
    let bytes = ended(&mut running, &report)?["bytes"].as_u64().unwrap_or_default();
    ensure!((2048..2048 + 1024).contains(&bytes), "{bytes} bytes");
    let mut running = start(&site, &["-w", &name, "--for", "1.2s"], &report)?;
    ensure!(ended(&mut running, &report)?["packets"] == 0, "nothing was sent");
    // Into a pipe, with credentials.
    let mut command =
        site.guard.command(&["capture", "-c", "5", "--src", "10.77.0.2", "--no-redact", "--verdict", "pass"]);
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&file)?);
    let mut running = Running::start("sipguard capture", &mut command)?;
    wait_until("the kernel is asked", || Ok(site.guard.taps()?.capture_until_ns != 0))?;
    traffic(&site)?;
    ensure!(running.wait_at_most(PATIENCE)?.is_some_and(|status| status.success()), "it goes on");
    let count = String::from_utf8_lossy(&std::fs::read(&file)?).matches(SECRET).count();
    ensure!(count == 5, "{count} credentials");
    // What is there already is not lost by a slip.
    let before = std::fs::read(&file)?;
    let said = site.guard.run(&["capture", "-w", &name, "-c", "1"])?.expect(1)?.stderr;
    ensure!(said.contains("is there already and not empty") && said.contains("`--force`"), "{said}");
    ensure!(std::fs::read(&file)? == before && site.guard.taps()?.capture_until_ns == 0, "it was touched");
    let (read, write) = std::io::pipe()?;
    let mut command = site.guard.command(&["capture"]);
    command.stdin(Stdio::null()).stdout(write);
    let mut running = Running::start("sipguard capture", &mut command)?;
    drop((command, read));
    wait_until("the kernel is asked, or it ended", || {
        Ok(site.guard.taps()?.capture_until_ns != 0 || running.try_wait()?.is_some())
    })?;
    traffic(&site)?;
    ensure!(running.wait_at_most(PATIENCE)?.is_some(), "it goes on without a reader");
    Ok(())
}

#[test]
fn there_is_one_at_a_time_and_it_says_who() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("capture")?);
    let (file, report) = (scratch.join("a.pcapng"), scratch.join("report"));
    let name = file.display().to_string();
    let mut running = start(&site, &["-w", &name], &report)?;
    let other = scratch.join("b.pcapng").display().to_string();
    let output = site.guard.run(&["capture", "-w", &other])?.expect(1)?;
    let said = format!("another `sipguard capture` (pid {}) is at work", running.pid());
    ensure!(output.stderr.contains(&said) && !Path::new(&other).exists(), "{}", output.stderr);
    // Verbs that change the pins go on beside it.
    site.guard.run(&["block", "192.0.2.9"])?.expect(0)?;
    site.guard.run(&["detach", "--all"])?.expect(0)?;
    ensure!(ended(&mut running, &report)?["packets"] == 0, "nothing was sent");
    let output = site.guard.run(&["capture", "-w", &other])?.expect(3)?;
    ensure!(output.stderr.contains("not attached"), "{}", output.stderr);
    Ok(())
}

#[test]
fn one_that_was_killed_ends_by_itself_and_hinders_nobody() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("capture")?);
    let (file, report) = (scratch.join("a.pcapng"), scratch.join("report"));
    let name = file.display().to_string();
    let mut running = start(&site, &["-w", &name], &report)?;
    traffic(&site)?;
    let file_has = |bytes: u64| Ok(std::fs::metadata(&file).is_ok_and(|about| about.len() > bytes));
    wait_until("packets are written", || file_has(4000))?;
    running.signal(Signal::SIGKILL)?;
    wait_until("it is gone", || Ok(running.try_wait()?.is_some()))?;
    let until_ns = site.guard.taps()?.capture_until_ns;
    ensure!(until_ns != 0, "it was cleared by somebody");
    wait_until("its time is over", || Ok(Clock::now()?.boot_ns > until_ns))?;
    let before = captured(&site.guard)?;
    ensure!(before == 22, "{before} packets were captured");
    traffic(&site)?;
    ensure!(captured(&site.guard)? == before, "the kernel goes on");
    if is_installed("tshark", "tshark") {
        let listed = output(Command::new("tshark").arg("-r").arg(&file))?;
        ensure!(listed.lines().count() > 0, "nothing to be read");
    }
    let mut running = start(&site, &["-w", &name, "-c", "1"], &report)?;
    traffic(&site)?;
    let told = ended(&mut running, &report)?;
    ensure!(told["packets"] == 1, "the next one is hindered: {told}");
    Ok(())
}

#[test]
fn packets_that_come_while_it_ends_are_not_of_the_count() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("capture")?);
    let (file, report) = (scratch.join("a.pcapng"), scratch.join("report"));
    let name = file.display().to_string();
    let phone = udp(&site.phone, (Site::PHONE[0], 4001))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                phone.send_to(b"\0garbage that is no message at all", (Site::PBX[0], 5060))?;
            }
            Ok(())
        });
        let counts = (0..20).map(|_| {
            let mut running = start(&site, &["-w", &name, "-c", "3"], &report)?;
            Ok(ended(&mut running, &report)?["packets"].clone())
        });
        let counts: Result<Vec<Value>> = counts.collect();
        over.store(true, Ordering::Relaxed);
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let counts = counts?;
        ensure!(counts.iter().all(|count| *count == 3), "captured were {counts:?}");
        Ok(())
    })
}

/// An answer of the PBX to a request: its headers, under another first line.
fn answer(request: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(request)?;
    let (_, headers) = text.split_once("\r\n").context("a request")?;
    Ok(format!("SIP/2.0 200 OK\r\n{headers}").into_bytes())
}

/// Requests of a phone with their answers, over UDP and over one TCP connection.
fn exchange(site: &Site, count: usize) -> Result<()> {
    let pbx = udp(&site.pbx, (Site::PBX[0], 5060))?;
    let phone = udp(&site.phone, (Site::PHONE[0], 4001))?;
    [&pbx, &phone].into_iter().try_for_each(|socket| socket.set_read_timeout(Some(PATIENCE)))?;
    let mut buffer = [0; 2048];
    for _ in 0..count {
        phone.send_to(&credentials(), (Site::PBX[0], 5060))?;
        let (len, from) = uninterrupted(|| pbx.recv_from(&mut buffer))?;
        pbx.send_to(&answer(&buffer[..len])?, from)?;
        let len = uninterrupted(|| phone.recv(&mut buffer))?;
        ensure!(buffer[..len].starts_with(b"SIP/2.0 200 OK\r\n"), "no answer");
    }
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let (client, application) = server.connect(&site.phone)?;
    for number in 1..=count {
        client.write(OPTIONS)?;
        wait_until("it was read", || Ok(application.bytes().len() == number * OPTIONS.len()))?;
        let reply = answer(OPTIONS)?;
        application.write(&reply)?;
        wait_until("it was answered", || Ok(client.bytes().len() == number * reply.len()))?;
    }
    Ok(())
}

/// What sngrep needs: requests and answers, in their order.
#[test]
fn both_directions_of_an_exchange_are_in_the_file() -> Result<()> {
    const EACH: usize = 20;
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("capture")?);
    let (file, report) = (scratch.join("a.pcapng"), scratch.join("report"));
    let name = file.display().to_string();
    for (words, is_both) in [(&["--both"][..], true), (&["--both", "--src", "10.77.0.2"], true), (&[], false)]
    {
        let said = scratch.join("said");
        let mut command = site.guard.command(&[&["capture", "-j", "--force", "-w", &name], words].concat());
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&report)?);
        command.stderr(std::fs::File::create(&said)?);
        let mut running = Running::start("sipguard capture", &mut command)?;
        // What it sees is the first that it says, once it does.
        wait_until("it says what it sees", || Ok(std::fs::read_to_string(&said)?.contains("capturing")))?;
        let told = std::fs::read_to_string(&said)?;
        ensure!(
            told.starts_with("sipguard: capturing what comes in on eth0 for the ports 5060, 5061, "),
            "{told}"
        );
        ensure!(told.contains("and what goes out") == is_both, "{told}");
        exchange(&site, EACH)?;
        running.signal(Signal::SIGINT)?;
        let told = ended(&mut running, &report)?;
        ensure!(told["missed"] == 0, "{words:?}: {told}");
        ensure!(
            !std::fs::read(&file)?.windows(8).any(|part| part == &SECRET.as_bytes()[..8]),
            "{words:?}: credentials are left"
        );
        let mut replay = site.guard.command(&["replay", "-j", "--pbx", "10.77.0.1", &name]);
        let replayed: Value = serde_json::from_str(&output(&mut replay)?)?;
        let sent = replayed["rows"][0]["sent_by_pbx"].as_u64().context("sent")?;
        ensure!(
            (sent >= 2 * EACH as u64) == is_both && (sent == 0) != is_both,
            "{words:?}: {sent} were sent"
        );
        if !is_installed("tshark", "tshark") {
            continue;
        }
        let mut tshark = Command::new("tshark");
        tshark
            .args(["-Y", "sip", "-T", "fields", "-e", "sip.Method", "-e", "sip.Status-Code", "-r"])
            .arg(&file);
        let listed = output(&mut tshark)?;
        let seen: Vec<&str> = listed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let expected: Vec<&str> = (0..2 * EACH).flat_map(|_| ["OPTIONS", "200"]).collect();
        let expected: Vec<&str> = expected.into_iter().filter(|word| is_both || *word == "OPTIONS").collect();
        ensure!(seen == expected, "{words:?}: {seen:?}");
        let mut ways = Command::new("tshark");
        ways.args(["-T", "fields", "-e", "frame.packet_flags_direction", "-r"]).arg(&file);
        let ways = output(&mut ways)?;
        ensure!(ways.lines().any(|way| way.trim().ends_with('2')) == is_both, "{words:?}: {ways}");
    }
    Ok(())
}
