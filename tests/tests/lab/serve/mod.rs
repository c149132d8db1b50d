//! `sipguard serve`: who gets an answer, what it waits for, and what it tells systemd.

use std::{net::TcpStream, os::unix::net::UnixDatagram, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use sipguard_tests::{
    application::{PATIENCE, sip, udp, uninterrupted, wait_until},
    guard::{Site, number, text},
    message::{OPTIONS, bent, negative_length, register, register_with},
    process::output,
    scratch::Scratch,
    service::{ADDRESS, Service, ask, connect},
    user_agent::is_installed,
};

mod grafana;
mod killed;
mod prometheus;
mod sinks;

/// Sends datagrams from the phone to the PBX.
fn send(site: &Site, bytes: &[u8], count: usize) -> Result<()> {
    let phone = udp(&site.phone, (Site::PHONE[0], 5070))?;
    for _ in 0..count {
        phone.send_to(bytes, sip(Site::PBX[0]))?;
    }
    Ok(())
}

/// Malformed in another way than [`negative_length`].
fn control_byte() -> Vec<u8> {
    register_with("X-A: \x01\r\n\r\n")
}

#[test]
fn only_local_requests_that_name_it_are_answered_and_nothing_can_be_changed() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let _service = Service::start(&site, &scratch, &[])?;
    let host = |host: &str| {
        ask(&site, ADDRESS, &format!("GET /api/status HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .map(|answer| answer.status)
    };
    for (name, status) in [
        ("localhost:9506", 200),
        ("127.0.0.1", 200),
        ("[::1]:9506", 200),
        ("evil.example:9506", 403),
        ("", 403),
    ] {
        ensure!(host(name)? == status, "Host {name:?} is not {status}: {}", host(name)?);
    }
    ensure!(ask(&site, ADDRESS, "GET /metrics HTTP/1.0\r\n\r\n")?.status == 403, "a request without a Host");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request =
            format!("{method} /api/blocks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        ensure!(ask(&site, ADDRESS, &request)?.status == 405, "{method}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\n\r\n", "x".repeat(40_000));
    // It may be cut off before its answer was read.
    ensure!(ask(&site, ADDRESS, &long).map_or(431, |answer| answer.status) == 431, "a long header");
    let answer = ask(&site, ADDRESS, "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    ensure!(answer.headers.contains("cache-control: no-store"), "{answer:?}");
    ensure!(answer.headers.contains("content-type: application/json"), "{answer:?}");
    // Nobody else gets there.
    let remote = site.phone.enter(|| TcpStream::connect((Site::PBX[0], 9506)))?;
    ensure!(remote.is_err(), "it listens to the network");
    Ok(())
}

#[test]
fn clients_that_say_nothing_keep_nobody_waiting() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let service = Service::start(&site, &scratch, &[])?;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connect(&site, ADDRESS)?);
        ensure!(service.get("/health")?.status == 200, "with {} silent clients", silent.len());
    }
    let files = std::fs::read_dir(format!("/proc/{}/fd", service.running.pid()))?.count();
    ensure!(files < 64, "{files} open files");
    Ok(())
}

#[test]
fn it_waits_for_a_guard_and_goes_on_with_the_next_one() -> Result<()> {
    let (site, scratch) = (Site::new(true)?, Scratch::new("serve")?);
    let guard = &site.guard;
    let service = Service::start(&site, &scratch, &[])?;
    let absent = || -> Result<()> {
        let health = service.get("/health")?;
        ensure!(health.status == 503 && health.body.contains("not attached"), "{health:?}");
        let metrics = service.get("/metrics")?.body;
        ensure!(metrics.contains("sipguard_attached 0") && !metrics.contains("_dropped_"), "{metrics}");
        ensure!(service.json("/api/status")?["attached"] == false, "status");
        Ok(())
    };
    absent()?;
    for round in 0..2 {
        guard.attach(&["eth0"])?;
        ensure!(service.get("/health")?.status == 200, "attached");
        send(&site, &negative_length().bytes, 3)?;
        let told = || service.json("/api/events");
        wait_until("the event is there", || {
            Ok(told()?["rows"].as_array().is_some_and(|rows| rows.len() == round + 1))
        })?;
        let event = told()?["rows"][0].clone();
        ensure!(
            text(&event, "reason")? == "bad-content-length" && text(&event, "src_ip")? == "10.77.0.2",
            "{event}"
        );
        ensure!(text(&event, "interface")? == "eth0" && number(&event, "src_port")? == 5070, "{event}");
        ensure!(text(&event, "sample")?.starts_with("REGISTER sip:"), "{event}");
        ensure!(service.get("/metrics")?.body.contains("sipguard_attached 1"), "attached");
        guard.run(&["detach", "--all"])?.expect(0)?;
        absent()?;
    }
    Ok(())
}

#[test]
fn pins_of_another_version_are_named() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let service = Service::start(&site, &scratch, &[])?;
    let abi = site.guard.pins().join("maps").join("ABI");
    let abi = abi.to_str().context("a path")?;
    let mut update = Command::new("bpftool");
    update.args(["map", "update", "pinned", abi]);
    output(update.args("key hex 00 00 00 00 value hex 63 00 00 00".split(' ')))?;
    let health = service.get("/health")?;
    ensure!(health.status == 503 && health.body.contains("ABI version 99"), "{health:?}");
    let said = site.guard.run(&["serve", "--listen", "127.0.0.1:0", "--history", "none"])?.expect(1)?;
    ensure!(said.stderr.contains("ABI version 99") && said.stderr.lines().count() == 1, "{said:?}");
    wait_until("it is told", || Ok(service.said()?.contains("ABI version 99")))
}

#[test]
fn systemd_is_told_that_it_is_up_alive_and_ending() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let path = scratch.join("notify");
    let socket = UnixDatagram::bind(&path).context("binding the socket of systemd")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let path = path.to_str().context("a path")?;
    let mut service =
        Service::start(&site, &scratch, &[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "1000000")])?;
    let told = || -> Result<String> {
        let mut bytes = [0; 1024];
        let len = uninterrupted(|| socket.recv(&mut bytes)).context("nothing more is told")?;
        Ok(String::from_utf8_lossy(&bytes[..len]).trim().to_owned())
    };
    let mut all = vec![told()?];
    ensure!(all[0] == "READY=1", "first was {all:?}");
    while all.iter().filter(|one| *one == "WATCHDOG=1").count() < 5 {
        all.push(told()?);
    }
    ensure!(all.iter().any(|one| one == "STATUS=the guard is attached"), "{all:?}");
    service.running.signal(Signal::SIGTERM)?;
    while all.last().is_some_and(|last| last != "STOPPING=1") {
        all.push(told()?);
    }
    let status = service.running.wait_at_most(PATIENCE)?.context("it does not end")?;
    ensure!(status.code() == Some(0), "it ended with {status}");
    Ok(())
}

#[test]
fn a_full_disk_stops_the_history_and_nothing_else() -> Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    struct Disk<'s>(&'s Scratch);
    impl Drop for Disk<'_> {
        fn drop(&mut self) {
            if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
                eprintln!("{} stays mounted: {error}", self.0.path().display());
            }
        }
    }

    let (site, disk) = (Site::guarded(true, &[])?, Scratch::new("disk")?);
    mount(Some("sipguard-test"), disk.path(), Some("tmpfs"), MsFlags::empty(), Some("size=96k"))
        .context("mounting a tmpfs")?;
    let mounted = Disk(&disk);
    let log = Scratch::new("log")?;
    std::os::unix::fs::symlink(disk.join("history.db"), log.join("history.db"))?;
    std::fs::write(disk.join("history.db"), "")?;
    let service = Service::start(&site, &log, &[])?;
    let ballast = vec![0; 200 << 10];
    // As much of it as there is room for.
    let _full = std::fs::write(disk.join("ballast"), ballast);
    send(&site, &negative_length().bytes, 3)?;
    let fails = |part: &str| Ok(service.get("/health")?.body.contains(&format!("\"failing\":[{part}]")));
    wait_until("the history fails", || fails("\"the history\""))?;
    ensure!(service.get("/health")?.status == 200, "the guard is attached all the same");
    ensure!(
        service.get("/metrics")?.body.contains("sipguard_serve_failing{part=\"the history\"} 1"),
        "metrics"
    );
    ensure!(number(&service.json("/api/status")?, "dropped_packets")? == 3, "status");
    std::fs::remove_file(disk.join("ballast"))?;
    wait_until("the history works again", || fails(""))?;
    let said = service.said()?;
    ensure!(
        said.matches("the history fails").count() == 1 && said.matches("works again").count() == 1,
        "{said}"
    );
    drop((service, mounted));
    Ok(())
}

#[test]
fn what_a_dashboard_needs_is_told() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let guard = &site.guard;
    let run = |words: &str| guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0);
    run("trunk add carrier --peer 10.77.0.2 --method OPTIONS")?;
    run("block 192.0.2.7 --for 1h --comment errant --origin noc")?;
    let service = Service::start(&site, &scratch, &[])?;
    send(&site, &bent(OPTIONS, "Via: ", b"X-A: \x01\r\nVia: "), 2)?;
    send(&site, &register(1), 1)?;
    let rows = |path: &str| {
        Ok::<_, anyhow::Error>(service.json(path)?["rows"].as_array().cloned().unwrap_or_default())
    };
    let status = service.json("/api/status")?;
    ensure!(status["mode"] == "enforce" && status["interfaces"][0]["interface"] == "eth0", "{status}");
    ensure!(number(&status, "dropped_packets")? == 3 && number(&status, "blocks")? == 1, "{status}");
    let counters = rows("/api/counters")?;
    ensure!(
        counters.iter().any(|row| row["reason"] == "control-byte" && row["packets"] == 2),
        "{counters:?}"
    );
    let trunks = rows("/api/trunks")?;
    ensure!(
        trunks[0]["trunk"] == "carrier"
            && trunks[0]["received_packets"] == 3
            && trunks[0]["dropped_packets"] == 3,
        "{trunks:?}"
    );
    let stopped = trunks[0]["stopped"].to_string();
    ensure!(stopped.contains("method-denied") && stopped.contains("control-byte"), "{stopped}");
    let offenders = rows("/api/offenders")?;
    ensure!(
        offenders[0]["src_ip"] == "10.77.0.2"
            && offenders[0]["fault"]["message"][0].as_str().is_some_and(|line| line.starts_with("OPTIONS")),
        "{offenders:?}"
    );
    let blocks = rows("/api/blocks")?;
    let block = &blocks[0];
    ensure!(
        block["target"] == "192.0.2.7" && block["comment"] == "errant" && block["origin"] == "noc",
        "{blocks:?}"
    );
    ensure!(block["expires_at"].is_string() && block["author"].is_string(), "{blocks:?}");
    ensure!(
        service.get("/api/history?hours=0")?.status == 400 && service.get("/api/nothing")?.status == 404,
        "paths"
    );
    ensure!(
        service.json("/api/history?hours=168")?["points"].as_u64().is_some_and(|points| points <= 720),
        "points"
    );
    Ok(())
}

#[test]
fn the_unit_is_valid_and_hardened() -> Result<()> {
    if !is_installed("systemd-analyze", "systemd") {
        return Ok(());
    }
    let scratch = Scratch::new("unit")?;
    let unit = include_str!("../../../../deploy/systemd/sipguard-serve.service");
    // The program is not installed where the tests run.
    let alone = unit.replace("/usr/local/sbin/sipguard", "/bin/true");
    let more = format!("{alone}{}", include_str!("../../../../deploy/systemd/sipguard-serve-crash.conf"));
    for text in [&more, &alone] {
        let unit = scratch.write("sipguard-serve.service", text)?;
        let unit = unit.to_str().context("a path")?;
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no", unit]).output()?;
        ensure!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    }
    let unit = scratch.join("sipguard-serve.service");
    let unit = unit.to_str().context("a path")?;
    let security = ["security", "--offline=true", "--threshold=30", unit];
    println!(
        "{}",
        output(Command::new("systemd-analyze").args(security))?.lines().last().unwrap_or_default()
    );
    Ok(())
}

/// How long a test waits where it waits for time itself.
const TWO_SLOTS: Duration = Duration::from_secs(21);
