//! A flood over UDP that says it is the trunk.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{PATIENCE, wait_until},
    envelope::{Envelope, PBX_MAC, datagram},
    message::{OPTIONS, bent},
    netns::{Netns, veth},
    network::{PBX_TO_TRUNK, TRUNK},
    sipp::{Order, Outcome, Transport},
    wire::Wire,
};

use super::{Stage, banned, run};

/// The interface of the PBX by which it comes.
const INTERFACE: &str = "flood";
/// Datagrams of each kind, at the least.
const ENOUGH: u64 = 10_000;
/// Calls of the trunk in each part.
const CALLS: u32 = 10;

/// Somebody on another cable of the PBX.
fn flooder(stage: &Stage) -> Result<(Netns, Wire)> {
    let (flooder, pbx) = (Netns::new("flooder")?, &stage.network.pbx);
    veth(pbx, INTERFACE, "10.77.2.1/24", &flooder, "eth0", "10.77.2.2/24", false)?;
    let mac = PBX_MAC.map(|byte| format!("{byte:02x}")).join(":");
    pbx.run(&["ip", "link", "set", INTERFACE, "address", &mac])?;
    stage.guard.attach(&[INTERFACE])?;
    let wire = Wire::open(&flooder, "eth0")?;
    Ok((flooder, wire))
}

/// Sends malformed and well-formed datagrams in turn, with the trunk's address, until it is stopped.
fn flood(wire: &Wire, stop: &AtomicBool) -> Result<()> {
    let envelope = Envelope::new(TRUNK.into(), PBX_TO_TRUNK.into());
    let malformed = bent(OPTIONS, "Via: SIP/2.0/TCP h", "Via: a\0b");
    let pair = |port| [&malformed[..], OPTIONS].map(|payload| datagram(&envelope, port, 5060, payload));
    let frames: Vec<Vec<u8>> = (5060..5068).flat_map(pair).collect();
    while !stop.load(Ordering::Relaxed) {
        wire.send_all(&frames)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Packets on an interface that were counted for a reason.
fn counted(stage: &Stage, interface: &str, reason: Reason) -> Result<u64> {
    let rows = stage.guard.counter_rows()?;
    let rows = rows.iter().filter(|row| row.interface == interface && row.reason == reason.name());
    Ok(rows.map(|row| row.packets).sum())
}

/// Calls of the trunk over TCP, to itself through the PBX.
fn call(stage: &Stage, patience: Duration) -> Result<Outcome> {
    let order = stage.trunk().order(Transport::TcpPerCall, CALLS, Duration::from_millis(500));
    Order { timeout: patience, ..order }.run(&stage.network.trunk)
}

/// Fails when the guard has made a rule of the flood.
fn expect_no_rule(stage: &Stage) -> Result<()> {
    let (bans, rules) = (banned(&stage.guard)?, stage.guard.rules()?);
    ensure!(bans.is_empty() && rules.is_empty(), "the flood made rules: {bans:?} {rules:?}");
    let trunk = stage.guard.json(&["lookup", &IpAddr::from(TRUNK).to_string()])?;
    ensure!(trunk["verdict"] == "pass", "{trunk}");
    Ok(())
}

/// The address is anybody's, who is neither a trunk nor allowed.
fn without_a_trunk(stage: &Stage) -> Result<()> {
    wait_until("the flood comes", || {
        expect_no_rule(stage)?;
        Ok(counted(stage, INTERFACE, Reason::ControlByte)? >= 1000)
    })
}

/// The flood is dropped or passes, bans nobody, and calls go on.
fn without_a_limit(stage: &Stage) -> Result<()> {
    run(&stage.guard, &format!("trunk add carrier --peer {TRUNK}"))?;
    let enough = |reason| Ok::<_, anyhow::Error>(counted(stage, INTERFACE, reason)? >= ENOUGH);
    let mut calls = 0;
    while calls == 0 || !enough(Reason::ControlByte)? || !enough(Reason::Valid)? {
        call(stage, PATIENCE)?.expect_all(CALLS)?;
        calls += CALLS;
    }
    println!(
        "forged: beside {} malformed datagrams, dropped, and {} well-formed ones, passed, {calls} of {calls} calls of the trunk \
         over TCP were completed; nobody is banned",
        counted(stage, INTERFACE, Reason::ControlByte)?,
        counted(stage, INTERFACE, Reason::Valid)?,
    );
    expect_no_rule(stage)
}

/// What the trunk may not use is dropped before it is counted against the trunk's limit.
fn with_a_limit_and_without_udp(stage: &Stage) -> Result<()> {
    run(&stage.guard, "trunk set carrier --transport tcp")?;
    run(&stage.guard, "limit set --trunk carrier --of packets 200/s burst 400")?;
    call(stage, PATIENCE)?.expect_all(CALLS)?;
    let denied = counted(stage, INTERFACE, Reason::TransportDenied)?;
    let over =
        counted(stage, INTERFACE, Reason::RatePackets)? + counted(stage, "trunk", Reason::RatePackets)?;
    ensure!(denied > 0 && over == 0, "{denied} were denied, {over} over the limit");
    println!(
        "forged: the trunk without UDP, and limited to 200 packets/s: {denied} forged datagrams denied, {over} over the limit, \
         {CALLS} of {CALLS} calls were completed"
    );
    expect_no_rule(stage)
}

/// What is forged uses up the trunk's limit.
fn with_a_limit(stage: &Stage) -> Result<()> {
    run(&stage.guard, "trunk set carrier --transport all")?;
    let outcome = call(stage, Duration::from_secs(12))?;
    let forged = counted(stage, INTERFACE, Reason::RatePackets)?;
    let own = counted(stage, "trunk", Reason::RatePackets)?;
    ensure!(forged > 0, "nothing of the flood was over the limit");
    println!(
        "forged: the trunk with UDP, and limited to 200 packets/s: {forged} forged datagrams and {own} packets of the trunk itself \
         over the limit, {} of {CALLS} calls were completed within 12 s",
        outcome.successful
    );
    expect_no_rule(stage)
}

#[test]
fn a_flood_with_the_trunks_address_bans_nobody() -> Result<()> {
    let stage = Stage::new(Transport::Tcp)?;
    let (_flooder, wire) = flooder(&stage)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&wire, &stop));
        let outcome = without_a_trunk(&stage)
            .and_then(|()| without_a_limit(&stage))
            .and_then(|()| with_a_limit_and_without_udp(&stage))
            .and_then(|()| with_a_limit(&stage));
        // Also when something fails, or else the scope never ends.
        stop.store(true, Ordering::Relaxed);
        flood.join().ok().context("the flood panicked")??;
        outcome
    })?;
    stage.expect_no_complaint()
}
