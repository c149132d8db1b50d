//! The table of public bug reports over real sockets, through an attached guard.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::application::{Connection, PATIENCE, Server, expect_same, sip, udp, uninterrupted};
use sipguard_tests::cases::{Case, Expected, cases};
use sipguard_tests::dial;
use sipguard_tests::guard::Site;
use sipguard_tests::message::OPTIONS;

/// Plays a connection: what the application reads is all of it, or it ends before.
fn connection(site: &Site, case: &Case, writes: &[Vec<u8>], expected: Expected) -> Result<()> {
    let to = SocketAddr::new(sip(Site::PBX[0]).ip(), case.tcp_port);
    let server = Server::listen(&site.pbx, to)?;
    let any = IpAddr::from([0; 4]);
    let stream = dial::from(&site.phone, SocketAddr::new(any, case.source_port.unwrap_or(0)), to, PATIENCE)?;
    let phone = Connection::record(stream.context("no connection")?)?;
    let application = Connection::record(server.accept()?)?;
    for write in writes {
        // Who was refused can't write on.
        phone.offer(write)?;
    }
    let whole = writes.concat();
    if expected == Expected::Passes {
        return expect_same(&application.wait_for(whole.len())?, &whole);
    }
    application.wait_for_end()?;
    ensure!(application.bytes().len() < whole.len(), "it was read whole");
    Ok(())
}

/// Plays a datagram, and a good one behind it: whether both arrive, or the second alone.
fn datagram(site: &Site, case: &Case, bytes: &[u8], pbx: &UdpSocket) -> Result<()> {
    let phone = site.phone.enter(|| UdpSocket::bind((Site::PHONE[0], 0)))??;
    for message in [bytes, OPTIONS] {
        phone.send_to(message, sip(Site::PBX[0]))?;
    }
    let mut buffer = vec![0; 1 << 16];
    let mut arrived = false;
    loop {
        let len =
            uninterrupted(|| pbx.recv(&mut buffer)).context("the datagram behind it does not arrive")?;
        if &buffer[..len] == OPTIONS {
            break;
        }
        expect_same(&buffer[..len], bytes)?;
        arrived = true;
    }
    match case.expected {
        Expected::Passes => ensure!(arrived, "it was dropped"),
        Expected::Quiet => {}
        _ => ensure!(!arrived, "it arrived"),
    }
    Ok(())
}

#[test]
fn messages_of_public_bug_reports_arrive_or_do_not() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let pbx = udp(&site.pbx, sip(Site::PBX[0]))?;
    pbx.set_read_timeout(Some(PATIENCE))?;
    for case in cases()? {
        let before = site.guard.malformed()?;
        for bytes in &case.udp {
            datagram(&site, &case, bytes, &pbx).with_context(|| format!("{} over UDP", case.id))?;
        }
        // That a half message ends takes longer than a test has.
        for writes in case.tcp.iter().filter(|_| case.expected != Expected::Ends) {
            let expected = case.expected_of(writes);
            connection(&site, &case, writes, expected).with_context(|| format!("{} over TCP", case.id))?;
        }
        if matches!(case.expected, Expected::Passes | Expected::Quiet) {
            ensure!(site.guard.malformed()? == before, "{}: {:?}", case.id, site.guard.malformed()?);
        }
    }
    Ok(())
}

#[test]
fn what_a_balancer_alone_may_send_arrives_from_one() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let peer = Site::PHONE[0].to_string();
    site.guard.run(&["trunk", "add", "front", "--peer", &peer, "--proxy-protocol"])?.expect(0)?;
    let mut played = 0;
    for case in cases()? {
        for writes in case.tcp.iter().filter(|writes| case.expected_of(writes) == Expected::FrontOnly) {
            connection(&site, &case, writes, Expected::Passes).with_context(|| case.id.clone())?;
            played += 1;
        }
    }
    ensure!(played >= 3, "{played} connections");
    ensure!(site.guard.malformed()?.is_empty(), "{:?}", site.guard.malformed()?);
    Ok(())
}
