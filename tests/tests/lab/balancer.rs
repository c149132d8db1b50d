//! Phones behind a balancer that speaks the PROXY protocol: a real HAProxy in front of a real Kamailio.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{Connection, PATIENCE, sip, wait_until},
    dial,
    guard::{Site, number, text},
    haproxy::{Haproxy, ProxyHeader},
    kamailio::{Complaints, Kamailio, Trunk},
    message::{negative_length, register},
    netns::{Netns, veth},
    sipp::{Order, Scenario, Transport},
};

/// Where phones reach the balancer, and the errant one among them.
const FRONT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1)), 5060);
const ERRANT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 78, 0, 66)), 40_066);
const BALANCER: &str = "10.77.0.2";
const CALLS: u32 = 1000;

/// A PBX, a balancer in front of it, and phones behind that.
struct Balanced {
    kamailio: Kamailio,
    haproxy: Haproxy,
    phones: Netns,
    site: Site,
}

impl Balanced {
    fn new(header: ProxyHeader) -> Result<Balanced> {
        let (site, phones) = (Site::new(true)?, Netns::new("phones")?);
        veth(&site.phone, "eth1", "10.78.0.1/24", &phones, "eth0", "10.78.0.2/24", true)?;
        phones.add_address("eth0", "10.78.0.66/24")?;
        phones.add_route("default", "10.78.0.1")?;
        site.guard.attach(&[Site::INTERFACE])?;
        let words = ["trunk", "add", "lb", "--peer", BALANCER, "--proxy-protocol"];
        site.guard.run(&words)?.expect(0)?;
        let outside = Trunk { address: BALANCER, transport: Transport::Udp };
        let kamailio = Kamailio::start_behind_balancer(&site.pbx, &["10.77.0.1"], Some(outside))?;
        let haproxy = Haproxy::start(&site.phone, FRONT, sip(Site::PBX[0]), header)?;
        Ok(Balanced { kamailio, haproxy, phones, site })
    }

    /// The errant phone's connection, always from the same port.
    fn errant(&self) -> Result<Connection> {
        let stream = dial::from(&self.phones, ERRANT, FRONT, PATIENCE)?;
        Connection::record(stream.context("the balancer takes no connection")?)
    }

    /// The errant phone registers and then sends what is malformed, and is cut.
    fn err(&self) -> Result<()> {
        let phone = self.errant()?;
        phone.write(&register(1))?;
        wait_until("the registrar answers", || Ok(phone.bytes().starts_with(b"SIP/2.0 200")))?;
        phone.offer(&negative_length().bytes)?;
        phone.wait_for_end().map(drop)
    }

    /// Fails when the balancer itself is banned, blocked or called an offender.
    fn expect_balancer_unaccused(&self) -> Result<()> {
        let guard = &self.site.guard;
        let offenders = guard.rows(&["counters", "--by", "source", "--ports"])?;
        let accused = offenders.iter().find(|row| row["src_ip"] == BALANCER);
        ensure!(accused.is_none(), "the balancer is accused: {accused:?}");
        let bans = guard.rows(&["list", "ban"])?;
        ensure!(bans.iter().all(|row| !row.to_string().contains(BALANCER)), "it is banned: {bans:?}");
        Ok(())
    }
}

/// Calls over a connection each, while one phone errs: it is named by its own address, and no call fails.
fn calls_go_on_and_the_errant_phone_is_named(header: ProxyHeader) -> Result<()> {
    let mut balanced = Balanced::new(header)?;
    let timeout = Duration::from_secs(240);
    let called = Order {
        local: Some(BALANCER.to_owned()),
        timeout: timeout + Duration::from_secs(60),
        ..Order::new(Scenario::Uas, Transport::Udp, "")
    };
    let called = called.start(&balanced.site.phone)?;
    let caller = Order {
        calls: CALLS,
        rate: 25,
        timeout,
        local: Some("10.78.0.2".to_owned()),
        ..Order::new(Scenario::Uac, Transport::TcpPerCall, &FRONT.to_string())
    };
    let caller = caller.start(&balanced.phones)?;
    balanced.err()?;
    let guard = &balanced.site.guard;
    let rows = guard.rows(&["counters", "--by", "source", "--ports"])?;
    let [row] = &rows[..] else { anyhow::bail!("one phone is errant: {rows:?}") };
    ensure!(text(row, "src_ip")? == ERRANT.ip().to_string(), "named {row}");
    ensure!(number(row, "src_port")? == u64::from(ERRANT.port()), "named {row}");
    let events = guard.rows(&["events"])?;
    let named = |row: &serde_json::Value| row["src_ip"] == ERRANT.ip().to_string();
    ensure!(events.iter().any(named), "no event names it: {events:?}");
    caller.wait()?.expect_all(CALLS)?;
    called.stop()?;
    let complaints = balanced.kamailio.complaints()?;
    ensure!(complaints == Complaints::default(), "Kamailio complains: {complaints:?}");
    // Kamailio knows the phones by their own addresses too.
    let calls = balanced.kamailio.calls("BYE", IpAddr::from([10, 78, 0, 2]))?;
    ensure!(calls == CALLS as usize, "{calls} calls of the phone's own address were ended");
    let malformed = guard.malformed()?;
    ensure!(malformed.values().sum::<u64>() <= 4 && malformed.len() == 1, "of one phone: {malformed:?}");
    balanced.haproxy.expect_alive()?;
    balanced.expect_balancer_unaccused()
}

#[test]
fn a_thousand_calls_by_a_balancer_with_version_1() -> Result<()> {
    calls_go_on_and_the_errant_phone_is_named(ProxyHeader::V1)
}

#[test]
fn a_thousand_calls_by_a_balancer_with_version_2() -> Result<()> {
    calls_go_on_and_the_errant_phone_is_named(ProxyHeader::V2)
}

#[test]
fn bans_and_blocks_of_a_phone_cut_it_behind_the_balancer() -> Result<()> {
    let balanced = Balanced::new(ProxyHeader::V2)?;
    let guard = &balanced.site.guard;
    let other = dial::from(&balanced.phones, "10.78.0.2:0".parse()?, FRONT, PATIENCE)?;
    let other = Connection::record(other.context("the balancer takes no connection")?)?;
    for _ in 0..3 {
        balanced.err()?;
    }
    let bans = guard.rows(&["list", "ban"])?;
    ensure!(bans.len() == 1 && bans[0].to_string().contains("10.78.0.66:40066"), "banned: {bans:?}");
    let banned = balanced.errant()?;
    banned.offer(&register(1))?;
    banned.wait_for_end()?;
    ensure!(banned.bytes().is_empty(), "it was answered");
    ensure!(guard.counted(Reason::BannedDevice)? >= 1, "{:?}", guard.counters()?);
    drop(banned);
    guard.run(&["unblock", "10.78.0.66"])?.expect(0)?;
    // In the middle of a connection.
    let phone = balanced.errant()?;
    phone.write(&register(1))?;
    wait_until("the registrar answers", || Ok(phone.bytes().starts_with(b"SIP/2.0 200")))?;
    guard.run(&["block", "10.78.0.66"])?.expect(0)?;
    phone.offer(&register(2))?;
    phone.wait_for_end()?;
    ensure!(guard.counted(Reason::BlockedHost)? >= 1, "{:?}", guard.counters()?);
    drop(phone);
    let again = balanced.errant()?;
    again.offer(&register(1))?;
    again.wait_for_end()?;
    ensure!(again.bytes().is_empty(), "it was answered");
    // A neighbour goes on all the while.
    other.write(&register(3))?;
    wait_until("the neighbour is answered", || Ok(other.bytes().starts_with(b"SIP/2.0 200")))?;
    balanced.expect_balancer_unaccused()
}
