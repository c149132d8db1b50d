//! What a PBX lives on goes through the guard unharmed: calls, everything that is not SIP, and SIP over bad wires.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{PATIENCE, Server, expect_same, sip, udp, uninterrupted, wait_until},
    guard::Site,
    kamailio::{Complaints, Kamailio, Trunk},
    message::register,
    netns::{Netns, veth},
    process::{Running, output},
    sipp::{Order, Scenario, Transport},
};

const PBX: IpAddr = Site::PBX[0];

/// Fails when a good peer was taken for a bad one. Gaps are TCP's own and no fault of anybody.
fn expect_no_accusation(site: &Site) -> Result<()> {
    let malformed = site.guard.malformed()?;
    ensure!(malformed.is_empty(), "counted as malformed: {malformed:?}");
    let conflicts = site.guard.counted(Reason::Conflict)?;
    ensure!(conflicts == 0, "{conflicts} retransmissions were counted as conflicting");
    Ok(())
}

#[test]
fn a_thousand_calls_over_tcp_are_completed() -> Result<()> {
    let site = a_thousand_calls(Transport::Tcp)?;
    // INVITE, ACK and BYE of each call on one interface, 180 and two 200 on the other, at most a few to a segment.
    for interface in ["eth0", "eth1"] {
        let packets = judged(&site, interface, |reason| reason == Reason::Valid.name())?;
        ensure!(packets >= CALLS / 2, "only {packets} segments were judged on {interface}");
    }
    Ok(())
}

#[test]
fn a_thousand_calls_over_udp_are_completed() -> Result<()> {
    let site = a_thousand_calls(Transport::Udp)?;
    // A datagram is a message, so each of the three that come by an interface in a call is counted.
    for interface in ["eth0", "eth1"] {
        let other = [Reason::NotIp, Reason::NotGuarded, Reason::TcpControl].map(Reason::name);
        let packets = judged(&site, interface, |reason| !other.contains(&reason))?;
        ensure!(packets >= 3 * CALLS, "only {packets} datagrams came by {interface}");
    }
    site.guard.expect_nothing_stopped()
}

/// How many calls SIPp makes.
const CALLS: u64 = 1000;

/// Calls from the phone through the PBX to a trunk behind its second interface, all over one transport. None fails,
/// Kamailio has no complaint and the guard accuses nobody.
fn a_thousand_calls(transport: Transport) -> Result<Site> {
    let calls = u32::try_from(CALLS)?;
    let (site, trunk) = (Site::new(true)?, Netns::new("trunk")?);
    veth(&site.pbx, "eth1", "10.78.0.1/24", &trunk, "eth0", "10.78.0.2/24", true)?;
    // Kamailio may dial the trunk from its other address.
    trunk.add_route("default", "10.78.0.1")?;
    site.guard.attach(&["eth0", "eth1"])?;
    let line = Trunk { address: "10.78.0.2", transport };
    let kamailio = Kamailio::start(&site.pbx, &["10.77.0.1", "10.78.0.1"], Some(line))?;
    let timeout = Duration::from_secs(180);
    let called = Order {
        local: Some("10.78.0.2".to_owned()),
        timeout: timeout + Duration::from_secs(60),
        ..Order::new(Scenario::Uas, transport, "")
    };
    let called = called.start(&trunk)?;
    let caller =
        Order { calls, rate: 60, timeout, ..Order::new(Scenario::Uac, transport, &sip(PBX).to_string()) };
    caller.run(&site.phone)?.expect_all(calls)?;
    called.stop()?;
    let complaints = kamailio.complaints()?;
    ensure!(complaints == Complaints::default(), "Kamailio complains: {complaints:?}");
    expect_no_accusation(&site)?;
    Ok(site)
}

/// Packets on an interface that were counted under reasons whose words are `wanted`.
fn judged(site: &Site, interface: &str, wanted: impl Fn(&str) -> bool) -> Result<u64> {
    let rows = site.guard.counter_rows()?;
    let rows = rows.iter().filter(|row| row.interface == interface && wanted(&row.reason));
    Ok(rows.map(|row| row.packets).sum())
}

#[test]
fn what_is_not_sip_passes_untouched() -> Result<()> {
    for offload in [false, true] {
        let site = Site::guarded(offload, &[])?;
        for (pbx, phone) in Site::PBX.into_iter().zip(Site::PHONE) {
            let before = site.guard.counted(Reason::NotGuarded)?;
            like_ssh(&site, pbx)?;
            datagrams(&site, (pbx, 10_000).into(), (phone, 10_000).into())?;
            ensure!(site.guard.counted(Reason::NotGuarded)? >= before + 100, "it did not come by the guard");
        }
        site.guard.expect_nothing_stopped()?;
    }
    Ok(())
}

/// Banners, and then what would be malformed SIP in every way, in both directions.
fn like_ssh(site: &Site, pbx: IpAddr) -> Result<()> {
    let server = Server::listen(&site.pbx, (pbx, 22).into())?;
    let (client, daemon) = server.connect(&site.phone)?;
    let secret: Vec<u8> = (0u32..200_000).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let said = [&b"SSH-2.0-lab\r\n\0\0\n\r"[..], &secret].concat();
    for (from, to) in [(&client, &daemon), (&daemon, &client)] {
        from.write(&said)?;
        expect_same(&to.wait_for(said.len())?, &said)?;
    }
    Ok(())
}

fn datagrams(site: &Site, pbx: SocketAddr, phone: SocketAddr) -> Result<()> {
    let bind = |namespace: &Netns, address| -> Result<UdpSocket> {
        let socket = udp(namespace, address)?;
        socket.set_read_timeout(Some(PATIENCE)).context("setting a timeout")?;
        Ok(socket)
    };
    let (here, there) = (bind(&site.pbx, pbx)?, bind(&site.phone, phone)?);
    for number in 0..100u8 {
        // RTP has no line and no end; the sizes go up to what one frame holds.
        let sent = vec![number; 12 + usize::from(number) * 14];
        there.send_to(&sent, pbx).context("sending a datagram")?;
        let mut got = [0; 2048];
        let count =
            uninterrupted(|| here.recv(&mut got)).with_context(|| format!("datagram {number} to the PBX"))?;
        expect_same(&got[..count], &sent)?;
        here.send_to(&sent, phone).context("sending a datagram")?;
        let count = uninterrupted(|| there.recv(&mut got))
            .with_context(|| format!("datagram {number} from the PBX"))?;
        expect_same(&got[..count], &sent)?;
    }
    Ok(())
}

#[test]
fn a_stream_at_full_speed_loses_nothing_to_the_guard() -> Result<()> {
    for offload in [false, true] {
        let site = Site::guarded(offload, &[])?;
        let mut command = site.pbx.command("iperf3");
        command.args(["-s", "-1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Running::start("iperf3", &mut command)?;
        wait_until("iperf3 listens", || {
            Ok(site.pbx.run(&["ss", "-ltnH", "sport", "=", ":5201"])?.contains("5201"))
        })?;
        let report = output(site.phone.command("iperf3").args(["-c", &PBX.to_string(), "-t", "2", "-J"]))?;
        let report: serde_json::Value = serde_json::from_str(&report).context("iperf3 printed no JSON")?;
        let received = report["end"]["sum_received"]["bytes"].as_f64().unwrap_or(0.0);
        ensure!(received > 1e6, "iperf3 received {received} bytes");
        wait_until("the server of iperf3 ends", || Ok(server.try_wait()?.is_some()))?;
        ensure!(server.try_wait()?.is_some_and(|status| status.success()), "{:?}", server.try_wait()?);
        ensure!(site.guard.counted(Reason::NotGuarded)? > 100, "it did not come by the guard");
        site.guard.expect_nothing_stopped()?;
    }
    Ok(())
}

/// A site whose phone has become a router, with a device behind it.
fn routed() -> Result<(Site, Netns)> {
    let (site, device) = (Site::guarded(false, &[])?, Netns::new("device")?);
    veth(&site.phone, "lan", "10.79.0.1/24", &device, "eth0", "10.79.0.2/24", false)?;
    device.add_route("default", "10.79.0.1")?;
    site.pbx.add_route("10.79.0.0/24", "10.77.0.2")?;
    site.phone.forward()?;
    Ok((site, device))
}

/// Sends messages by the hundred over several connections at once, and expects all of them in order.
fn all_arrive(site: &Site, device: &Netns) -> Result<()> {
    const MESSAGES: usize = 200;
    const ANSWER: &[u8] = b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n";
    let server = Server::listen(&site.pbx, sip(PBX))?;
    let connections: Vec<_> = (0..4).map(|_| server.connect(device)).collect::<Result<_>>()?;
    for (sender, _) in &connections {
        for number in 0..MESSAGES {
            sender.write(&register(number))?;
        }
    }
    let sent: Vec<u8> = (0..MESSAGES).flat_map(register).collect();
    for (sender, application) in &connections {
        expect_same(&application.wait_for(sent.len())?, &sent)?;
        ensure!(application.end().is_none() && sender.end().is_none(), "a connection was ended");
        // It is not stuck: one more message goes through, and an answer comes back.
        sender.write(&register(MESSAGES))?;
        application.wait_for(sent.len() + register(MESSAGES).len())?;
        application.write(ANSWER)?;
        expect_same(&sender.wait_for(ANSWER.len())?, ANSWER)?;
    }
    expect_no_accusation(site)?;
    ensure!(site.guard.counted(Reason::SequenceGap)? > 0, "the wire was too good for this test");
    Ok(())
}

#[test]
fn messages_arrive_in_order_over_a_wire_that_loses() -> Result<()> {
    let (site, device) = routed()?;
    // Every seventeenth packet: the same share in every run, and enough of them in each connection.
    site.phone.run(&["nft", "add table ip bad"])?;
    site.phone.run(&["nft", "add chain ip bad wire { type filter hook forward priority 0; }"])?;
    site.phone.run(&["nft", "add rule ip bad wire numgen inc mod 17 == 4 drop"])?;
    all_arrive(&site, &device)
}
