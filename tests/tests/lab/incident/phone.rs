//! One phone of fifty behind one address goes wrong.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{Connection, PATIENCE, wait_until},
    dial::{self, SOON},
    guard::{number, text},
    message::register_with,
    network::{KAMAILIO, OFFICE, sip},
    sipp::Transport,
};

use super::{Stage, banned, run};

/// Longer than the incident.
const HOLD: Duration = Duration::from_secs(25);
/// As long as this something well-formed speaks for an address.
const QUIET: Duration = Duration::from_secs(3);
/// What the errant phone calls itself, and the port that it begins with.
const USER_AGENT: &str = "BrokenPhone/1.0";
const PORT: u16 = 4001;

/// A connection from a port of the errant phone, which the NAT keeps; `None` when the guard is in the way.
fn connect(stage: &Stage, port: u16) -> Result<Option<Connection>> {
    let own = SocketAddr::new([192, 168, 50, 66].into(), port);
    dial::from(&stage.network.errant, own, sip(KAMAILIO), SOON)?.map(Connection::record).transpose()
}

/// Sends a malformed stream from a port, and waits until the guard has cut it.
fn offend(stage: &Stage, port: u16) -> Result<Connection> {
    let before = stage.guard.counted(Reason::ControlByte)?;
    let errant = connect(stage, port)?.with_context(|| format!("port {port} finds no connection"))?;
    let firmware = format!("User-Agent: {USER_AGENT}\r\nX-Firmware: 1\0.0\r\nContent-Length: 0\r\n\r\n");
    errant.offer(&register_with(&firmware))?;
    wait_until("it is cut", || Ok(stage.guard.counted(Reason::ControlByte)? > before))?;
    Ok(errant)
}

/// It offends until it is banned, without anybody's help.
fn bans_itself(stage: &Stage) -> Result<()> {
    let device = format!("{OFFICE}:{PORT}");
    for stream in 0..3 {
        ensure!(banned(&stage.guard)?.is_empty(), "banned after {stream} streams");
        offend(stage, PORT)?;
    }
    wait_until("it is banned", || Ok(banned(&stage.guard)? == [device.as_str()]))?;
    ensure!(connect(stage, PORT)?.is_none(), "it is banned and comes through");
    let dropped = stage.guard.counted(Reason::BannedDevice)?;
    ensure!(dropped > 0, "nothing was dropped: {:?}", stage.guard.counters()?);
    println!("phone: after 3 malformed streams {device} is banned, {dropped} of its packets dropped");
    Ok(())
}

/// The operator finds it among its neighbours, and cuts it.
fn is_found_and_blocked(stage: &Stage) -> Result<()> {
    let guard = &stage.guard;
    let [found] = guard
        .rows(&["counters", "--by", "source", "--ports"])?
        .try_into()
        .map_err(|all| anyhow::anyhow!("{all:?}"))?;
    let device = format!("{}:{}", text(&found, "src_ip")?, number(&found, "src_port")?);
    ensure!(device == format!("{OFFICE}:{PORT}") && found["reason"] == Reason::ControlByte.name(), "{found}");
    print!("{}", run(guard, "counters --by source")?);
    let said = run(guard, &format!("block {device} --for 1d --comment firmware"))?;
    ensure!(said == "blocked 1 source for 1d\n", "it said {said}");
    ensure!(connect(stage, PORT)?.is_none(), "it is blocked and comes through");
    let dropped = guard.counted(Reason::BlockedDevice)?;
    ensure!(dropped > 0, "nothing was dropped: {:?}", guard.counters()?);
    println!("phone: {device} is blocked, {dropped} of its packets dropped");
    Ok(())
}

/// It comes by other ports, among neighbours who speak well.
fn changes_ports(stage: &Stage) -> Result<()> {
    const PORTS: std::ops::Range<u16> = 4100..4120;
    let guard = &stage.guard;
    run(guard, &format!("bans set --address-after 10 --quiet {}s", QUIET.as_secs()))?;
    // Now nothing but what they say in the meantime speaks for their address. The clock of bans ticks in seconds.
    std::thread::sleep(QUIET + Duration::from_secs(2));
    for port in PORTS {
        let question = stage.office().question(Transport::Tcp);
        ensure!(question.is_answered(&stage.network.phones, PATIENCE)?, "a neighbour has no answer");
        offend(stage, port)?.wait_until_refused()?;
    }
    let (bans, device) = (banned(guard)?, format!("{OFFICE}:{PORT}"));
    ensure!(bans.iter().all(|ban| *ban == device), "also banned: {bans:?}");
    ensure!(guard.json(&["lookup", &OFFICE.to_string()])?["verdict"] == "pass", "the office is cut");
    println!("phone: {} streams from as many other ports were cut, nobody else was banned", PORTS.len());
    Ok(())
}

/// What was dropped or reset is the errant phone's.
fn expect_only_it_was_stopped(stage: &Stage) -> Result<()> {
    let own = [Reason::ControlByte, Reason::BannedDevice, Reason::BlockedDevice].map(Reason::name);
    let rows = stage.guard.counter_rows()?;
    let others: Vec<_> =
        rows.iter().filter(|row| row.action != "pass" && !own.contains(&&*row.reason)).collect();
    ensure!(others.is_empty(), "also stopped: {others:?}");
    for row in stage.guard.rows(&["counters", "--by", "source", "--ports"])? {
        let port = number(&row, "src_port")?;
        let errant = port == u64::from(PORT) || (4100..4120).contains(&port);
        ensure!(errant && row["src_ip"] == OFFICE.to_string(), "accused: {row}");
    }
    Ok(())
}

#[test]
fn one_errant_phone_of_fifty_behind_one_address_is_cut_and_the_others_keep_their_calls() -> Result<()> {
    let stage = Stage::new(Transport::Tcp)?;
    let office = stage.office();
    let (tcp, udp) = (office.call(Transport::TcpPerCall, 25, HOLD)?, office.call(Transport::Udp, 24, HOLD)?);
    office.wait_for_calls(49)?;
    bans_itself(&stage)?;
    is_found_and_blocked(&stage)?;
    changes_ports(&stage)?;
    ensure!(office.calls()? == 49, "{} of 49 calls stand when it is over", office.calls()?);
    tcp.wait()?.expect_all(25)?;
    udp.wait()?.expect_all(24)?;
    println!("phone: 49 calls stood all the time and were completed, 25 over TCP and 24 over UDP");
    stage.expect_no_complaint()?;
    let read = stage.kamailio.requests_from(USER_AGENT)?;
    ensure!(read == 0, "Kamailio read {read} requests of it");
    expect_only_it_was_stopped(&stage)
}
