//! Calls over TCP through a guard, where segments are damaged or lost: a retransmission makes it good, and no connection is reset.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::sip,
    guard::{Guard, Site},
    kamailio::{Complaints, Kamailio, Trunk},
    netns::Netns,
    relay::{BadWire, Harm},
    sipp::{Order, Scenario, Transport},
};

/// Calls of a test.
const CALLS: u32 = 1000;
/// Their pace, which a connection that waits for a retransmission now and then can make good.
const RATE: u32 = 40;
/// Where the called party is.
const CALLED: &str = "10.77.0.2";

/// Calls from the phone through the PBX to a trunk at the phone's end.
fn calls(pbx: &Netns, phone: &Netns) -> Result<()> {
    let line = Trunk { address: CALLED, transport: Transport::Tcp };
    let kamailio = Kamailio::start(pbx, &["10.77.0.1"], Some(line))?;
    let timeout = Duration::from_secs(240);
    let called = Order {
        local: Some(CALLED.to_owned()),
        timeout: timeout + Duration::from_secs(60),
        ..Order::new(Scenario::Uas, Transport::Tcp, "")
    };
    let called = called.start(phone)?;
    let to = sip(Site::PBX[0]).to_string();
    let caller =
        Order { calls: CALLS, rate: RATE, timeout, ..Order::new(Scenario::Uac, Transport::Tcp, &to) };
    caller.run(phone)?.expect_all(CALLS)?;
    called.stop()?;
    let complaints = kamailio.complaints()?;
    ensure!(complaints == Complaints::default(), "Kamailio complains: {complaints:?}");
    Ok(())
}

/// No connection was given up.
fn expect_no_reset(guard: &Guard) -> Result<()> {
    let malformed = guard.malformed()?;
    ensure!(malformed.is_empty(), "counted as malformed: {malformed:?}");
    for reason in [Reason::OutOfStep, Reason::UnknownStream] {
        ensure!(guard.counted(reason)? == 0, "{}: {:?}", reason.name(), guard.counters()?);
    }
    println!("{:?}", guard.counters()?);
    Ok(())
}

#[test]
fn one_bit_in_a_hundred_segments_costs_no_call() -> Result<()> {
    let wire = BadWire::new(Harm { damaged: 1, seed: 11, ..Harm::default() })?;
    wire.guard.attach(&[Site::INTERFACE])?;
    calls(&wire.pbx, &wire.phone).with_context(|| format!("{:?}", wire.guard.counters()))?;
    expect_no_reset(&wire.guard)?;
    let [_, _, damaged, ..] = wire.stop()?;
    println!("{damaged} segments were damaged");
    ensure!(damaged > 50, "{damaged} segments were damaged");
    Ok(())
}

#[test]
fn a_segment_in_fifty_lost_behind_the_guard_costs_no_call() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    site.pbx.run(&["nft", "add table inet lossy"])?;
    site.pbx.run(&["nft", "add chain inet lossy in { type filter hook prerouting priority raw; }"])?;
    site.pbx.run(&[
        "nft",
        "add rule inet lossy in tcp flags & (psh) == psh numgen random mod 50 0 counter drop",
    ])?;
    calls(&site.pbx, &site.phone).with_context(|| format!("{:?}", site.guard.counters()))?;
    expect_no_reset(&site.guard)?;
    println!("{}", site.pbx.run(&["nft", "list chain inet lossy in"])?);
    Ok(())
}
