//! The counters as OpenMetrics text.

use std::{collections::BTreeMap, net::UdpSocket, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_common::{
    Reason,
    abi::{BAN_ENTRIES, Ban},
};
use sipguard_core::{bans::Bans, clock::Clock, pins::Pins};
use sipguard_tests::{
    application::{PATIENCE, Server, sip, udp, uninterrupted, wait_until},
    guard::{Counter, Guard, Site, number, text},
    message::{OPTIONS, bent, register},
    process::Running,
    scratch::Scratch,
};

/// Every sample by its name and labels.
fn metrics(guard: &Guard) -> Result<BTreeMap<String, f64>> {
    let text = guard.run(&["counters", "--format", "openmetrics"])?.expect(0)?.stdout;
    ensure!(text.ends_with("# EOF\n"), "it does not end: {text}");
    ensure!(!text.contains("10.77.") && !text.contains("192.0.2."), "an address is a label: {text}");
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').context("a value")?;
        Ok((name.to_owned(), value.parse()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

#[test]
fn trunks_and_blocks_are_told_by_name() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let run = |words: &str| guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0);
    run("trunk add carrier --peer 10.77.0.2 --method OPTIONS")?;
    run("trunk add quiet --peer 192.0.2.200")?;
    let pbx = Site::PBX[0];
    let server = udp(&site.pbx, sip(pbx))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for message in [&register(1)[..], &register(2), OPTIONS] {
        site.phone.enter(|| phone.send_to(message, sip(pbx)))??;
    }
    uninterrupted(|| server.recv(&mut [0; 2048])).context("the OPTIONS did not arrive")?;
    run("block 192.0.2.7 192.0.2.8")?;
    run("block 192.0.2.7 192.0.2.9 192.0.2.10 --origin fail2ban --for 1h")?;
    run("allow 192.0.2.100")?;
    let pins = Pins::new(guard.pins());
    let now_ns = Clock::now()?.boot_ns;
    let mut ban: Ban = bytemuck::Zeroable::zeroed();
    (ban.since_ns, ban.until_ns, ban.times) = (now_ns, now_ns + 3_600_000_000_000, 1);
    Bans::open(&pins)?.set(&"192.0.2.11:5060".parse().map_err(anyhow::Error::msg)?, Some(ban))?;
    let told = metrics(guard)?;
    for (name, value) in [
        ("sipguard_trunk_received_packets_total{trunk=\"carrier\"}", 3.0),
        ("sipguard_trunk_dropped_packets_total{trunk=\"carrier\"}", 2.0),
        ("sipguard_trunk_received_packets_total{trunk=\"quiet\"}", 0.0),
        ("sipguard_trunk_dropped_packets_total{trunk=\"quiet\"}", 0.0),
        ("sipguard_blocks{origin=\"cli\"}", 2.0),
        ("sipguard_blocks{origin=\"fail2ban\"}", 3.0),
        ("sipguard_blocks{origin=\"guard\"}", 1.0),
        ("sipguard_map_entries{map=\"hosts\"}", 7.0),
        ("sipguard_map_capacity{map=\"bans\"}", f64::from(BAN_ENTRIES)),
        ("sipguard_map_entries{map=\"bans\"}", 1.0),
        ("sipguard_mode{mode=\"enforce\"}", 1.0),
        ("sipguard_mode{mode=\"monitor\"}", 0.0),
        ("sipguard_trunk_mode{trunk=\"quiet\",mode=\"inherit\"}", 1.0),
    ] {
        ensure!(told.get(name) == Some(&value), "{name} is not {value}: {told:#?}");
    }
    // Monitor mode lets pass, so nothing is dropped.
    run("mode monitor")?;
    site.phone.enter(|| phone.send_to(&register(3), sip(pbx)))??;
    uninterrupted(|| server.recv(&mut [0; 2048])).context("the REGISTER did not arrive")?;
    let told = metrics(guard)?;
    ensure!(told["sipguard_mode{mode=\"monitor\"}"] == 1.0, "{told:#?}");
    ensure!(told["sipguard_trunk_received_packets_total{trunk=\"carrier\"}"] == 4.0, "{told:#?}");
    ensure!(told["sipguard_trunk_dropped_packets_total{trunk=\"carrier\"}"] == 2.0, "{told:#?}");
    // Without its store the guard tells what the kernel counts.
    let words = ["counters", "--format", "prometheus", "--store", "/proc"];
    let said = guard.run(&words)?.expect(0)?;
    ensure!(
        said.stdout.contains("sipguard_received_packets_total{") && !said.stdout.contains("_blocks{"),
        "{said:?}"
    );
    ensure!(said.stderr.contains("are left out"), "{said:?}");
    Ok(())
}

#[test]
fn what_became_of_datagrams_and_of_connections_is_told_apart() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["trunk", "add", "carrier", "--peer", "10.77.0.2"])?.expect(0)?;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let datagrams = udp(&site.pbx, sip(Site::PBX[0]))?;
    datagrams.set_read_timeout(Some(PATIENCE))?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    let bad = bent(OPTIONS, "Via: ", b"X-A: \x01\r\nVia: ");
    for _ in 0..3 {
        site.phone.enter(|| phone.send_to(&bad, sip(Site::PBX[0])))??;
    }
    let (device, _application) = server.connect(&site.phone)?;
    device.write(&bad)?;
    let expected = |one: u64, other: u64| [("drop".to_owned(), one), ("reset".to_owned(), other)].into();
    let counted = |words: &[&str], key: &str| -> Result<BTreeMap<String, u64>> {
        let value = guard.json(words)?;
        let rows = value[key].as_array().context("rows")?.clone();
        let bad = rows.iter().filter(|row| row["reason"] == "control-byte");
        bad.map(|row| Ok((text(row, "action")?, number(row, "packets")?))).collect()
    };
    for (words, key) in [
        (&["counters"][..], "rows"),
        (&["counters", "--by", "trunk"], "rows"),
        (&["top", "--once", "--delay", "0.1"], "reasons"),
    ] {
        wait_until(&format!("three datagrams are dropped and a connection reset: {words:?}"), || {
            Ok(counted(words, key)? == expected(3, 1))
        })
        .with_context(|| format!("{:?}", counted(words, key)))?;
    }
    let events = guard.rows(&["events"])?;
    let verdicts: Vec<_> = events.iter().map(|one| (&one["proto"], &one["sipguard"]["action"])).collect();
    ensure!(
        verdicts == [(&Value::from("UDP"), &"drop".into()), (&"TCP".into(), &"reset".into())],
        "{events:?}"
    );
    let dropped =
        "sipguard_dropped_packets_total{interface=\"eth0\",reason=\"control-byte\",class=\"malformed\"}";
    ensure!(metrics(guard)?.get(dropped) == Some(&4.0), "both are stopped");

    // What only would have been is told apart as well.
    guard.run(&["mode", "monitor"])?.expect(0)?;
    site.phone.enter(|| phone.send_to(&bad, sip(Site::PBX[0])))??;
    uninterrupted(|| datagrams.recv(&mut [0; 2048])).context("the datagram did not arrive")?;
    let mut both: BTreeMap<String, u64> = expected(3, 1);
    both.insert("would-drop".to_owned(), 1);
    assert_eq!(counted(&["counters"], "rows")?, both);
    Ok(())
}

#[test]
fn a_phone_that_connects_again_and_again_is_one_connection() -> Result<()> {
    const TIMES: usize = 260;
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let mut last = None;
    for _ in 0..TIMES {
        let (phone, application) = server.connect(&site.phone)?;
        phone.write(OPTIONS)?;
        application.wait_for(OPTIONS.len())?;
        last = Some((phone, application));
    }
    let told = || -> Result<[u64; 3]> {
        let status = guard.json(&["status"])?;
        Ok([number(&status, "connections")?, number(&status, "flows")?, number(&status, "flows_max")?])
    };
    wait_until("one connection is left", || Ok(told()?[0] == 1)).with_context(|| format!("{:?}", told()))?;
    let [_, flows, most] = told()?;
    ensure!(flows == TIMES as u64 && most == 65_536, "{flows} of {most} flows");
    let samples = metrics(guard)?;
    for (name, value) in [
        ("sipguard_connections", 1.0),
        ("sipguard_map_entries{map=\"flows\"}", TIMES as f64),
        ("sipguard_map_capacity{map=\"flows\"}", 65_536.0),
        ("sipguard_map_entries{map=\"offenders\"}", 0.0),
    ] {
        ensure!(samples.get(name) == Some(&value), "{name} is not {value}: {samples:#?}");
    }
    let text = guard.run(&["status"])?.expect(0)?.stdout;
    ensure!(text.contains("connections: 1, flow table: 260 of 65536"), "{text}");
    drop(last);
    wait_until("none is left", || Ok(told()?[0] == 0)).with_context(|| format!("{:?}", told()))?;
    Ok(())
}

/// How long the second reading is held back, where the test is about time itself.
const HELD: std::time::Duration = std::time::Duration::from_secs(3);
/// The number of the call that a process sleeps in, as `/proc` tells it.
const CLOCK_NANOSLEEP: &str = if cfg!(target_arch = "x86_64") { "230 " } else { "115 " };

/// The row of good messages of a `counters --rate` whose second reading was held back while 20 came; `None` when it could not be
/// held back in time.
fn held_back(site: &Site, scratch: &Scratch) -> Result<Option<Value>> {
    let server = udp(&site.pbx, sip(Site::PBX[0]))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    let report = scratch.join("report");
    let mut command = site.guard.command(&["counters", "--rate", "-j"]);
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&report)?);
    let mut running = Running::start("sipguard counters --rate", &mut command)?;
    let call = format!("/proc/{}/syscall", running.pid());
    // It waits for nothing else: readers take no lock.
    wait_until("it sleeps between its readings, or has ended", || {
        let sleeps = std::fs::read_to_string(&call).is_ok_and(|call| call.starts_with(CLOCK_NANOSLEEP));
        Ok(sleeps || running.try_wait()?.is_some())
    })?;
    // A machine under load: the second reading comes later than it was to come.
    running.signal(Signal::SIGSTOP)?;
    for _ in 0..20 {
        site.phone.enter(|| phone.send_to(OPTIONS, sip(Site::PBX[0])))??;
        uninterrupted(|| server.recv(&mut [0; 2048])).context("an OPTIONS did not arrive")?;
    }
    std::thread::sleep(HELD);
    running.signal(Signal::SIGCONT)?;
    wait_until("it has ended", || Ok(running.try_wait()?.is_some()))?;
    let mut told: Value = serde_json::from_str(&std::fs::read_to_string(&report)?)?;
    let rates = told["rows"].as_array_mut().context("rows")?;
    let valid = rates.iter_mut().find(|row| row["reason"] == "valid").map(Value::take);
    Ok(valid.filter(|valid| valid["packets"] != 0))
}

#[test]
fn a_rate_is_of_the_time_that_passed() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("rate")?);
    let mut valid = None;
    for _ in 0..10 {
        valid = held_back(&site, &scratch)?;
        if valid.is_some() {
            break;
        }
    }
    let valid = valid.context("ten times nothing came between the two readings")?;
    let of = |key: &str| valid[key].as_f64().with_context(|| format!("{key} in {valid}"));
    ensure!(of("span_seconds")? >= HELD.as_secs_f64() && of("packets")? == 20.0, "{valid}");
    for (count, rate) in [("packets", "packets_per_second"), ("bytes", "bytes_per_second")] {
        let truth = of(count)? / of("span_seconds")?;
        ensure!((of(rate)? / truth - 1.0).abs() < 0.001, "{rate} is not {truth}: {valid}");
    }
    Ok(())
}

/// How many packets came, as the table of `counters`, its rows, `top` and the metrics have it.
fn received(guard: &Guard) -> Result<[u64; 4]> {
    let table = guard.run(&["counters"])?.expect(0)?.stdout;
    let line = table.lines().find_map(|line| line.strip_prefix("received: ")).context("no sum")?;
    let shown = line.split(' ').next().context("a number")?.parse()?;
    let rows = guard.rows(&["counters"])?;
    let once = rows.iter().filter(|row| row["counted_again"] == false);
    let once = once.map(|row| number(row, "packets")).sum::<Result<u64>>()?;
    let top = number(&guard.json(&["top", "--once", "-d", "100ms"])?["totals"], "received_packets")?;
    let told = metrics(guard)?;
    let told = told["sipguard_received_packets_total{interface=\"eth0\"}"] as u64;
    Ok([shown, once, top, told])
}

/// Sends 200 REGISTER, and says how many packets came by each count; few others come by themselves.
fn sends(site: &Site) -> Result<[u64; 4]> {
    let before = received(&site.guard)?;
    let valid = || site.guard.counted(Reason::Valid);
    let (began, socket) = (valid()?, site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??);
    for number in 0..200 {
        site.phone.enter(|| socket.send_to(&register(number), sip(Site::PBX[0])))??;
    }
    wait_until("all are counted", || Ok(valid()? == began + 200))?;
    let after = received(&site.guard)?;
    Ok([0, 1, 2, 3].map(|at| after[at] - before[at]))
}

#[test]
fn each_packet_is_received_once_whatever_only_counts() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let run = |words: &str| guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0);
    let let_pass = |reason: Reason| -> Result<u64> {
        let rows = guard.counter_rows()?;
        let of = |row: &&Counter| row.reason == reason.name() && row.action == "would-drop";
        Ok(rows.iter().filter(of).map(|row| row.packets).sum())
    };
    let is_once = |sums: [u64; 4]| sums.iter().all(|sum| (200..250).contains(sum));
    run("limit set --of register 1/s burst 10 --monitor")?;
    let sums = sends(&site)?;
    ensure!(is_once(sums) && let_pass(Reason::RateRegister)? > 150, "a limit that only counts: {sums:?}");
    run("block 10.77.0.2 --monitor")?;
    let sums = sends(&site)?;
    ensure!(is_once(sums) && let_pass(Reason::BlockedHost)? >= 200, "a block that only counts: {sums:?}");
    let table = run("counters")?.stdout;
    let (once, apart) = table.split_once("\nOver a limit that only counts").context("nothing is apart")?;
    let (limits, blocks) = apart.split_once("\nLet pass by a block").context("no block")?;
    ensure!(!once.contains("would-drop") && limits.contains("rate-register"), "{table}");
    ensure!(blocks.contains("blocked-host") && !limits.contains("blocked-host"), "{table}");
    // Of a trunk as well, where its limit is the one that counts.
    run("unblock 10.77.0.2")?;
    run("trunk add carrier --peer 10.77.0.2")?;
    run("limit set --trunk carrier --of register 1/s burst 10 --monitor")?;
    let sums = sends(&site)?;
    ensure!(is_once(sums), "a limit of a trunk that only counts: {sums:?}");
    let told = metrics(guard)?["sipguard_trunk_received_packets_total{trunk=\"carrier\"}"];
    ensure!((200.0..250.0).contains(&told), "{told} of the trunk");
    run("trunk remove carrier")?;
    Ok(())
}

/// In monitor mode the way of a blocked packet ends with the block: every view counts it apart, and no sum goes back with the mode.
#[test]
fn what_was_received_is_the_same_everywhere_and_never_goes_back() -> Result<()> {
    let site = Site::guarded(true, &["--monitor"])?;
    let guard = &site.guard;
    guard.run(&["block", "10.77.0.2"])?.expect(0)?;
    let before = received(guard)?;
    let socket = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for number in 0..200 {
        site.phone.enter(|| socket.send_to(&register(number), sip(Site::PBX[0])))??;
    }
    wait_until("all are counted", || Ok(guard.counted(Reason::BlockedHost)? >= 200))?;
    let after = received(guard)?;
    ensure!((0..4).all(|at| after[at] - before[at] < 50), "{before:?} {after:?}");
    let would =
        "sipguard_would_drop_packets_total{interface=\"eth0\",reason=\"blocked-host\",class=\"drop\"}";
    ensure!(metrics(guard)?.get(would).is_some_and(|would| *would >= 200.0), "{:?}", metrics(guard)?);
    guard.run(&["mode", "enforce"])?.expect(0)?;
    let enforced = received(guard)?;
    ensure!((0..4).all(|at| (after[at]..after[at] + 50).contains(&enforced[at])), "{after:?} {enforced:?}");
    Ok(())
}
