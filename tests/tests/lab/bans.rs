//! Offenders: who keeps sending malformed streams on established connections is banned, and nobody else is.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use serde_json::Value;
use sipguard_common::{
    Reason,
    abi::{Ban, Settings, names},
};
use sipguard_core::{
    bans::Bans,
    clock::Clock,
    maps::{self, Plain},
    pins::Pins,
    target::Target,
};
use sipguard_tests::{
    application::{End, PATIENCE, Server, sip, wait_for, wait_until},
    dial::{self, SOON},
    guard::{Guard, Site, number},
    message::OPTIONS,
    rules::reboot,
};

/// Longer than a test takes, on a machine that does much else too: the time in which streams make a ban, and a ban.
const LONG: &str = "--within 30m --first 30m";
const FAULT: &[u8] = b"OPTIONS sip:pbx SIP/2.0\r\nVia: a\0b\r\n";

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

fn bans(guard: &Guard) -> Result<Vec<Value>> {
    guard.rows(&["list", "ban"])
}

/// A site whose guard bans, with these options.
fn site(options: &str) -> Result<Site> {
    let site = Site::guarded(true, &[])?;
    if !options.is_empty() {
        run(&site.guard, &format!("bans set {options}"))?;
    }
    Ok(site)
}

/// A connection from a port of the phone, if there is one within `patience`.
fn dial(site: &Site, to: SocketAddr, port: u16, patience: Duration) -> Result<Option<TcpStream>> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    dial::from(&site.phone, SocketAddr::new(any, port), to, patience)
}

/// What the kernel knows of a device of the phone, banned or not.
fn known(guard: &Guard, device: SocketAddr) -> Result<Option<Ban>> {
    let target: Target = device.to_string().parse().map_err(anyhow::Error::msg)?;
    Bans::open(&Pins::new(guard.pins()))?.get(&target)
}

/// The guard has listened for long enough to ban addresses.
fn has_listened(guard: &Guard) -> Result<()> {
    let mut map: Array<_, Plain<Settings>> = maps::open(&Pins::new(guard.pins()), names::SETTINGS)?;
    let mut settings = map.get(&0, 0)?.0;
    ensure!(settings.bans.addresses_from_ns > 0, "it bans addresses from the start");
    settings.bans.addresses_from_ns = 0;
    Ok(map.set(0, Plain(settings), 0)?)
}

/// A malformed stream from a port; `false` when there was no connection for it.
fn offend(site: &Site, server: &Server, to: SocketAddr, port: u16) -> Result<bool> {
    offend_with(site, server, to, port, FAULT)
}

/// The same with what is wrong in its first segment.
fn offend_with(site: &Site, server: &Server, to: SocketAddr, port: u16, fault: &[u8]) -> Result<bool> {
    let Some(mut stream) = dial(site, to, port, PATIENCE)? else { return Ok(false) };
    let mut accepted = server.accept()?;
    stream.write_all(fault)?;
    let mut bytes = [0; 16];
    let end = accepted.read(&mut bytes);
    ensure!(end.is_err() || end.is_ok_and(|count| count == 0), "it reached the PBX");
    Ok(true)
}

/// A good stream from a port; `false` when there was no connection for it.
fn behave(site: &Site, server: &Server, to: SocketAddr, port: u16) -> Result<bool> {
    behave_soon(site, server, to, port, PATIENCE)
}

/// The same, with the connection within `patience`.
fn behave_soon(site: &Site, server: &Server, to: SocketAddr, port: u16, patience: Duration) -> Result<bool> {
    let Some(mut stream) = dial(site, to, port, patience)? else { return Ok(false) };
    let mut accepted = server.accept()?;
    stream.write_all(OPTIONS)?;
    let mut bytes = vec![0; OPTIONS.len()];
    accepted.read_exact(&mut bytes)?;
    ensure!(bytes == OPTIONS, "it was changed");
    Ok(true)
}

/// A message that is only too large is refused, and accuses nobody.
#[test]
fn nobody_is_banned_for_a_message_that_is_too_large() -> Result<()> {
    let site = site(LONG)?;
    run(&site.guard, "mode enforce")?;
    let start = "OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n";
    let faults = [
        (Reason::BodyTooLarge, format!("{start}Content-Length: 999999\r\n")),
        (Reason::TooManyHeaders, format!("{start}{}", "A:\r\n".repeat(161))),
    ];
    for (pbx, phone) in Site::PBX.into_iter().zip(Site::PHONE) {
        let server = Server::listen(&site.pbx, sip(pbx))?;
        let device = SocketAddr::new(phone, 4001);
        for (reason, fault) in &faults {
            let before = site.guard.counted(*reason)?;
            for stream in 0..5 {
                let connected = offend_with(&site, &server, sip(pbx), 4001, fault.as_bytes())?;
                ensure!(connected, "{reason:?}: stream {stream} found no connection");
            }
            ensure!(site.guard.counted(*reason)? >= before + 5, "{reason:?} is not what it was");
        }
        ensure!(known(&site.guard, device)?.is_none(), "it counts towards a ban");
    }
    ensure!(bans(&site.guard)?.is_empty(), "{:?}", bans(&site.guard)?);
    Ok(())
}

#[test]
fn a_device_is_banned_and_its_neighbours_go_on() -> Result<()> {
    let site = site(LONG)?;
    let guard = &site.guard;
    for (pbx, phone) in Site::PBX.into_iter().zip(Site::PHONE) {
        let server = Server::listen(&site.pbx, sip(pbx))?;
        let device = SocketAddr::new(phone, 4001);
        let (neighbour, application) = server.connect(&site.phone)?;
        for stream in 0..3 {
            ensure!(bans(guard)?.is_empty(), "banned after {stream} streams");
            ensure!(offend(&site, &server, sip(pbx), 4001)?, "stream {stream} found no connection");
        }
        wait_until("it is banned", || Ok(!bans(guard)?.is_empty()))?;
        ensure!(dial(&site, sip(pbx), 4001, SOON)?.is_none(), "it comes through");
        neighbour.write(OPTIONS)?;
        application.wait_for(OPTIONS.len())?;
        ensure!(behave(&site, &server, sip(pbx), 4002)?, "a new neighbour finds no connection");
        ensure!(guard.counted(Reason::BannedDevice)? > 0, "{:?}", guard.counters()?);
        let [ban] = bans(guard)?.try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
        ensure!(
            ban["target"] == device.to_string() && ban["rule"] == "ban" && ban["in_force"] == true,
            "{ban}"
        );
        ensure!(ban["comment"] == "ban 1, malformed streams: control-byte", "{ban}");
        ensure!(number(&ban, "packets")? > 0 && ban["origin"] == "guard", "{ban}");
        let found = guard.json(&["lookup", &device.to_string()])?;
        ensure!(found["verdict"] == "block" && found["rule"]["rule"] == "ban", "{found}");
        ensure!(guard.json(&["lookup", &phone.to_string()])?["verdict"] == "pass", "its address is banned");
        let said = run(guard, &format!("unblock {device}"))?;
        ensure!(said == "unblocked 1 source\n", "it said {said}");
        ensure!(bans(guard)?.is_empty() && behave(&site, &server, sip(pbx), 4001)?, "not lifted");
        let trail = guard.rows(&["log"])?;
        ensure!(
            trail.iter().any(|row| row["verb"] == "ban" && row["what"] == device.to_string()),
            "{trail:?}"
        );
        drop((neighbour, application));
    }
    Ok(())
}

#[test]
fn a_ban_ends_and_the_next_is_twice_as_long() -> Result<()> {
    let site = site("--after 2 --within 10m --first 1s --longest 3s")?;
    let ([pbx, _], [phone, _]) = (Site::PBX, Site::PHONE);
    let server = Server::listen(&site.pbx, sip(pbx))?;
    for (times, seconds) in [(1, 1), (2, 2), (3, 3)] {
        for _ in 0..2 {
            ensure!(offend(&site, &server, sip(pbx), 4001)?, "no connection");
        }
        let is_banned = |ban: &Option<Ban>| ban.is_some_and(|ban| ban.times == times);
        let device = SocketAddr::new(phone, 4001);
        let ban = wait_for("it is banned", || known(&site.guard, device), is_banned)?.context("a ban")?;
        ensure!(ban.until_ns - ban.since_ns == seconds * 1_000_000_000, "ban {times} is {ban:?}");
        wait_until("it ends", || behave_soon(&site, &server, sip(pbx), 4001, SOON))?;
        let now_ns = Clock::now()?.boot_ns;
        ensure!(now_ns >= ban.until_ns, "it came through at {now_ns} in spite of {ban:?}");
        ensure!(bans(&site.guard)?.is_empty(), "it has ended and is listed");
    }
    Ok(())
}

#[test]
fn an_address_from_which_nothing_else_comes_is_banned_on_guarded_ports() -> Result<()> {
    let site = site(&format!("--address-after 4 --quiet 1s {LONG}"))?;
    let guard = &site.guard;
    std::thread::sleep(Duration::from_millis(2100));
    for (family, (pbx, phone)) in Site::PBX.into_iter().zip(Site::PHONE).enumerate() {
        let server = Server::listen(&site.pbx, sip(pbx))?;
        for port in 4001..4005 {
            ensure!(offend(&site, &server, sip(pbx), port)?, "port {port} found no connection");
        }
        let banned = if phone.is_ipv4() { phone.to_string() } else { "fd77::/64".to_owned() };
        wait_until("it is banned", || Ok(bans(guard)?.iter().any(|ban| ban["target"] == *banned)))?;
        ensure!(dial(&site, sip(pbx), 4009, SOON)?.is_none(), "it comes through");
        ensure!(guard.json(&["lookup", &phone.to_string()])?["rule"]["target"] == *banned, "not found");
        let ssh = Server::listen(&site.pbx, SocketAddr::new(pbx, 22))?;
        drop(ssh.connect(&site.phone)?);
        // Nobody proved that its datagrams are the same sender's.
        let before = guard.counted(Reason::Valid)?;
        let socket = site.phone.enter(|| UdpSocket::bind(SocketAddr::new(phone, 0)))??;
        site.phone.enter(|| socket.send_to(OPTIONS, sip(pbx)))??;
        wait_until("a datagram passes", || Ok(guard.counted(Reason::Valid)? > before))?;
        // The other family is another address.
        let other = Site::PBX[1 - family];
        let server = Server::listen(&site.pbx, sip(other))?;
        ensure!(family == 1 || behave(&site, &server, sip(other), 4010)?, "the other family is banned");
        std::thread::sleep(Duration::from_millis(2100));
    }
    // Lifting an address lifts all that came of it.
    ensure!(run(guard, "unban fd77::2")? == "unblocked 1 source\n" && bans(guard)?.len() == 1, "not lifted");
    ensure!(run(guard, "unblock --all --origin guard")? == "unblocked 1 source\n", "not lifted");
    ensure!(bans(guard)?.is_empty(), "{:?}", bans(guard)?);
    Ok(())
}

#[test]
fn an_address_that_others_use_well_is_never_banned() -> Result<()> {
    // Quiet for longer than it takes from one good stream to the next, on a machine that does much else too.
    let site = site(&format!("--address-after 2 --quiet 2m {LONG}"))?;
    has_listened(&site.guard)?;
    let [pbx, _] = Site::PBX;
    let server = Server::listen(&site.pbx, sip(pbx))?;
    for port in 4001..4021 {
        ensure!(behave(&site, &server, sip(pbx), 3999)?, "the good phone finds no connection");
        ensure!(offend(&site, &server, sip(pbx), port)?, "port {port} found no connection");
    }
    ensure!(bans(&site.guard)?.is_empty(), "{:?}", bans(&site.guard)?);
    Ok(())
}

#[test]
fn an_address_whose_other_phones_use_tls_is_never_banned() -> Result<()> {
    // Quiet for longer than it takes from one good stream to the next, on a machine that does much else too.
    let site = site(&format!("--address-after 2 --quiet 2m {LONG}"))?;
    has_listened(&site.guard)?;
    let [pbx, _] = Site::PBX;
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let (phone, application) = Server::listen(&site.pbx, SocketAddr::new(pbx, 5061))?.connect(&site.phone)?;
    // A handshake record of four bytes, then application data.
    let hello = [22, 3, 1, 0, 4, 1, 0, 0, 0];
    phone.write(&hello)?;
    for port in 4001..4011 {
        phone.write(&[23, 3, 3, 0, 1, 0])?;
        application.wait_for(hello.len() + 6 * (port as usize - 4000))?;
        ensure!(offend(&site, &server, sip(pbx), port)?, "port {port} found no connection");
    }
    ensure!(bans(&site.guard)?.is_empty(), "{:?}", bans(&site.guard)?);
    Ok(())
}

#[test]
fn whoever_is_allowed_or_a_trunk_or_forged_is_never_banned() -> Result<()> {
    let site = site(&format!("--after 1 --address-after 1 --quiet 1s {LONG}"))?;
    let guard = &site.guard;
    let [pbx, _] = Site::PBX;
    std::thread::sleep(Duration::from_millis(2100));
    let socket = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for _ in 0..100 {
        site.phone.enter(|| socket.send_to(FAULT, sip(pbx)))??;
    }
    wait_until("they are counted", || Ok(guard.counted(Reason::ControlByte)? == 100))?;
    ensure!(bans(guard)?.is_empty(), "datagrams banned {:?}", bans(guard)?);
    let server = Server::listen(&site.pbx, sip(pbx))?;
    for (begin, end) in [
        ("allow 10.77.0.0/24", "unallow 10.77.0.0/24"),
        ("trunk add carrier --peer 10.77.0.2", "trunk remove carrier"),
        ("bans off", "bans set --after 1"),
    ] {
        run(guard, begin)?;
        for _ in 0..5 {
            ensure!(offend(&site, &server, sip(pbx), 4001)?, "{begin}: no connection");
        }
        ensure!(bans(guard)?.is_empty(), "{begin}: {:?}", bans(guard)?);
        run(guard, end)?;
    }
    // The PBX itself has called the peer, which answers with nonsense.
    let peer = Server::listen(&site.phone, sip(Site::PHONE[0]))?;
    for _ in 0..5 {
        let (own, answering) = peer.connect(&site.pbx)?;
        own.write(OPTIONS)?;
        answering.wait_for(OPTIONS.len())?;
        answering.offer(FAULT)?;
        own.wait_for_end()?;
    }
    ensure!(bans(guard)?.is_empty(), "called by the PBX: {:?}", bans(guard)?);
    ensure!(offend(&site, &server, sip(pbx), 4001)?, "no connection");
    wait_until("it is banned", || Ok(!bans(guard)?.is_empty()))?;
    // What is allowed now has no bans any more.
    run(guard, "allow 10.77.0.2")?;
    ensure!(behave(&site, &server, sip(pbx), 4001)?, "allowed, and banned still");
    Ok(())
}

#[test]
fn bans_come_back_after_a_restart() -> Result<()> {
    let site = site(&format!("--after 1 {LONG}"))?;
    let guard = &site.guard;
    for (pbx, phone) in Site::PBX.into_iter().zip(Site::PHONE) {
        let server = Server::listen(&site.pbx, sip(pbx))?;
        ensure!(offend(&site, &server, sip(pbx), 4001)?, "no connection");
        let device = SocketAddr::new(phone, 4001).to_string();
        wait_until("it is banned", || Ok(bans(guard)?.iter().any(|ban| ban["target"] == *device)))?;
    }
    let told = |guard: &Guard| -> Result<Vec<[Value; 4]>> {
        let fields = ["target", "comment", "expires_at", "created_at"];
        Ok(bans(guard)?.into_iter().map(|row| fields.map(|field| row[field].clone())).collect())
    };
    let before = told(guard)?;
    ensure!(before.len() == 2, "{before:?}");
    run(guard, "detach --all")?;
    ensure!(told(guard)? == before, "detached: {:?}", told(guard)?);
    guard.attach(&[Site::INTERFACE])?;
    ensure!(told(guard)? == before, "attached: {:?}", told(guard)?);
    ensure!(run(guard, "bans save")? == "saved 2 bans\n", "not saved");
    reboot(guard)?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(told(guard)? == before, "rebooted: {:?}", told(guard)?);
    for pbx in Site::PBX {
        let _server = Server::listen(&site.pbx, sip(pbx))?;
        ensure!(dial(&site, sip(pbx), 4001, SOON)?.is_none(), "it comes through");
    }
    run(guard, "unblock --all")?;
    ensure!(bans(guard)?.is_empty(), "not lifted");
    Ok(())
}

#[test]
fn monitor_counts_what_a_ban_would_stop() -> Result<()> {
    let site = Site::guarded(true, &["--monitor"])?;
    run(&site.guard, &format!("bans set --after 2 {LONG}"))?;
    let [pbx, _] = Site::PBX;
    let server = Server::listen(&site.pbx, sip(pbx))?;
    for _ in 0..3 {
        let (phone, application) = server.connect(&site.phone)?;
        drop(phone);
        ensure!(application.wait_for_end()? == End::Eof, "it did not close");
    }
    for _ in 0..4 {
        let Some(mut stream) = dial(&site, sip(pbx), 4001, PATIENCE)? else { anyhow::bail!("no connection") };
        let mut accepted = server.accept()?;
        // Twice on one connection is one stream.
        stream.write_all(&[FAULT, OPTIONS, FAULT].concat())?;
        let mut bytes = vec![0; FAULT.len()];
        accepted.read_exact(&mut bytes)?;
        ensure!(bytes == FAULT, "it did not pass");
    }
    let rows = site.guard.counter_rows()?;
    let would: Vec<_> = rows.iter().filter(|row| row.reason == Reason::BannedDevice.name()).collect();
    ensure!(would.len() == 1 && would[0].action == "would-drop" && would[0].packets > 0, "{would:?}");
    Ok(())
}
