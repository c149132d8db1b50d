//! After an outage everybody registers at once, and somebody floods at the same time: the limits that a new store begins with keep the two apart.

use std::{
    net::{IpAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::sip,
    exclusive,
    guard::Site,
    kamailio::{Complaints, Kamailio},
    message::register,
    netns::{Netns, veth},
    sipp::{Order, Scenario, Transport},
};

const PHONES: u32 = 1000;
/// Within five seconds.
const A_SECOND: u32 = PHONES / 5;
/// What is offered, and what passes of it: of REGISTER, of each source, in a new store.
const OFFERED: u32 = 20_000;
const LIMIT: u64 = 500;
const BURST: u64 = 6000;

/// Packets on an interface that were counted for a reason.
fn counted(site: &Site, interface: &str, reason: Reason) -> Result<u64> {
    let rows = site.guard.counter_rows()?;
    let rows = rows.iter().filter(|row| row.interface == interface && row.reason == reason.name());
    Ok(rows.map(|row| row.packets).sum())
}

/// All phones of the office register, from one address.
fn register_all(site: &Site, transport: Transport, user: &str) -> Result<()> {
    let order = Order {
        calls: PHONES,
        rate: A_SECOND,
        user: user.to_owned(),
        timeout: Duration::from_secs(90),
        ..Order::new(Scenario::Register, transport, &sip(Site::PBX[0]).to_string())
    };
    let outcome = order.run(&site.phone)?;
    println!(
        "{user}: {} registered, {} messages were sent again",
        outcome.successful, outcome.retransmissions
    );
    outcome.expect_all(PHONES)
}

/// Fails when the guard stopped anything of the office.
fn expect_nothing_stopped(site: &Site) -> Result<()> {
    let rows = site.guard.counter_rows()?;
    let mut stopped = rows.iter().filter(|row| row.interface == Site::INTERFACE && row.action != "pass");
    ensure!(stopped.next().is_none(), "{rows:?}");
    Ok(())
}

/// Sends [`OFFERED`] registrations a second until it is stopped, and says how many there were.
fn flood(from: &Netns, stop: &AtomicBool) -> Result<u64> {
    let socket = from.enter(|| UdpSocket::bind("10.78.0.2:0"))??;
    let to = sip(IpAddr::from([10, 78, 0, 1]));
    let messages: Vec<Vec<u8>> = (0..1000).map(register).collect();
    let (begin, mut sent) = (Instant::now(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * f64::from(OFFERED)) as u64;
        for number in sent..due {
            let message = &messages[number as usize % messages.len()];
            // A full queue is no failure of a flood.
            let _full = socket.send_to(message, to);
        }
        sent = sent.max(due);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

#[test]
fn an_office_comes_back_at_once_while_another_source_floods() -> Result<()> {
    let _alone = exclusive::alone();
    let (site, flooder) = (Site::new(true)?, Netns::new("flood")?);
    veth(&site.pbx, "eth1", "10.78.0.1/24", &flooder, "eth0", "10.78.0.2/24", true)?;
    site.guard.attach(&["eth0", "eth1"])?;
    let kamailio = Kamailio::start(&site.pbx, &["10.77.0.1", "10.78.0.1"], None)?;
    for (transport, user) in [(Transport::Udp, "udp"), (Transport::TcpPerCall, "tcp")] {
        register_all(&site, transport, user)?;
        expect_nothing_stopped(&site)?;
    }
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&flooder, &stop));
        // Also when something fails, or else the scope never ends.
        let outcome = (|| {
            std::thread::sleep(Duration::from_secs(1));
            let (first, begin) = (counted(&site, "eth1", Reason::Valid)?, Instant::now());
            for (transport, user) in
                [(Transport::Udp, "udp-in-flood"), (Transport::TcpPerCall, "tcp-in-flood")]
            {
                register_all(&site, transport, user)?;
                expect_nothing_stopped(&site)?;
            }
            let (passed, span) = (counted(&site, "eth1", Reason::Valid)? - first, begin.elapsed());
            anyhow::Ok((first, begin - started, passed, span))
        })();
        stop.store(true, Ordering::Relaxed);
        let sent = flood.join().ok().context("the flood panicked")??;
        let (first, until, passed, span) = outcome?;
        let over = counted(&site, "eth1", Reason::RateRegister)?;
        println!(
            "offered {sent}, dropped {over}; passed {first} in the first {:.2} s, then {passed} in {:.1} s",
            until.as_secs_f64(),
            span.as_secs_f64()
        );
        // A hundredth for the clock's ticks. When the burst is used up only the rate passes.
        let budget = |span: Duration| (span.as_secs_f64() * LIMIT as f64 * 1.02) as u64 + 10;
        ensure!(first <= BURST + budget(until), "{first} passed in the first second");
        ensure!(first < BURST || passed <= budget(span), "{passed} passed in {span:?}");
        ensure!(
            first + passed <= BURST + budget(until + span) && over > sent / 2,
            "{over} were over the limit"
        );
        Ok(())
    })?;
    let complaints = kamailio.complaints()?;
    ensure!(complaints == Complaints::default(), "Kamailio complains: {complaints:?}");
    Ok(())
}
