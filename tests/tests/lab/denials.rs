//! What trunks, or devices, may not send: one command, at once, on connections that stand, and back again.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_core::pins::Pins;
use sipguard_tests::{
    application::{Connection, PATIENCE, Server, expect_same, sip, udp, uninterrupted, wait_until},
    guard::{Guard, Site},
    message::{OPTIONS, register},
};

/// Makes the phone's IPv4 address a trunk's, so that it is a trunk by IPv4 and a device by IPv6.
fn with_trunk(site: &Site) -> Result<()> {
    run(&site.guard, "trunk add carrier --peer 10.77.0.2").map(drop)
}

/// A connection of the phone to an address of the PBX.
fn connect(site: &Site, address: IpAddr) -> Result<(Connection, Connection)> {
    let (phone, application) = Server::listen(&site.pbx, sip(address))?.connect(&site.phone)?;
    phone.write(OPTIONS)?;
    expect_same(&application.wait_for(OPTIONS.len())?, OPTIONS)?;
    Ok((phone, application))
}

/// Whether a datagram of the phone gets to the PBX.
fn expect_datagram(site: &Site, address: IpAddr, bytes: &[u8]) -> Result<()> {
    let socket = udp(&site.pbx, sip(address))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    site.phone.enter(|| UdpSocket::bind((any, 0))?.send_to(bytes, sip(address)))??;
    let mut read = [0; 2048];
    let count = uninterrupted(|| socket.recv(&mut read)).context("the datagram did not arrive")?;
    expect_same(&read[..count], bytes)
}

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

#[test]
fn no_tcp_from_trunks_while_a_devices_call_goes_on_and_the_reverse() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    with_trunk(&site)?;
    let [trunk, device] = Site::PBX;
    for (whom, denied, kept) in [("trunks", trunk, device), ("devices", device, trunk)] {
        let refused = connect(&site, denied)?;
        let goes_on = connect(&site, kept)?;
        let before = site.guard.counted(Reason::TransportDenied)?;
        let said = run(&site.guard, &format!("deny tcp --from {whom}"))?;
        ensure!(said == format!("denied to {whom}: tcp\n"), "it said {said}");
        // On the connections that stand: bytes of the one are held back, the other goes on, and so does UDP.
        let hello = register(1);
        refused.0.write(&hello)?;
        goes_on.0.write(&hello)?;
        expect_same(&goes_on.1.wait_for(OPTIONS.len() + hello.len())?[OPTIONS.len()..], &hello)?;
        wait_until("it is counted", || Ok(site.guard.counted(Reason::TransportDenied)? > before))?;
        expect_datagram(&site, denied, &hello)?;
        connect(&site, kept)?;
        ensure!(refused.1.bytes() == OPTIONS, "it reached the PBX");
        // Taken back, TCP makes good what it lost.
        let said = run(&site.guard, &format!("permit tcp --from {whom}"))?;
        ensure!(said == format!("permitted to {whom}: tcp\n"), "it said {said}");
        expect_same(&refused.1.wait_for(OPTIONS.len() + hello.len())?[OPTIONS.len()..], &hello)?;
    }
    Ok(())
}

#[test]
fn no_register_over_tcp_from_devices() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    with_trunk(&site)?;
    let [trunk, device] = Site::PBX;
    let said = run(&site.guard, "deny register/tcp --from devices --comment storm")?;
    ensure!(said == "denied to devices: REGISTER/tcp\n", "it said {said}");
    let hello = register(1);
    let (phone, application) = connect(&site, device)?;
    phone.offer(&hello)?;
    application.wait_for_end()?;
    ensure!(application.bytes() == OPTIONS, "the REGISTER reached the PBX");
    ensure!(site.guard.counted(Reason::MethodDenied)? >= 1, "it was not counted");
    expect_datagram(&site, device, &hello)?;
    let (phone, application) = connect(&site, trunk)?;
    phone.write(&hello)?;
    application.wait_for(OPTIONS.len() + hello.len()).map(drop)
}

#[test]
fn each_command_says_what_changed_and_who_did_it() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    for (words, answer) in [
        (
            "deny tcp Register --from trunks --comment incident",
            "denied to trunks: tcp, REGISTER/tcp, REGISTER/udp",
        ),
        ("deny tcp --from trunks", "nothing changed; denied already: tcp"),
        ("deny tcp udp --from trunks", "denied to trunks: udp; denied already: tcp"),
        ("deny tcp --from trunks --comment other", "denied to trunks: tcp"),
        ("deny register/udp --from devices", "denied to devices: REGISTER/udp"),
        ("permit invite/udp --from trunks", "nothing changed; not denied: INVITE/udp; still denied: udp"),
        ("permit udp --from trunks", "permitted to trunks: udp; still denied: REGISTER/udp"),
        ("permit register/udp --from trunks", "permitted to trunks: REGISTER/udp"),
    ] {
        let said = run(guard, words)?;
        ensure!(said == format!("{answer}\n"), "{words}: it said {said}");
    }
    for words in [&["deny"][..], &["list", "deny"]] {
        let rows = guard.rows(words)?;
        let told: Vec<String> = rows
            .iter()
            .map(|row| format!("{} {} {} {}", row["from"], row["what"], row["comment"], row["in_force"]))
            .map(|line| line.replace('"', ""))
            .collect();
        let expected =
            ["devices REGISTER/udp  true", "trunks tcp other true", "trunks REGISTER/tcp incident true"];
        ensure!(told == expected, "it told {told:?}");
        ensure!(
            rows.iter().all(|row| row["author"].is_string() && row["created_at"].is_string()),
            "{rows:?}"
        );
    }
    let table = run(guard, "list deny")?;
    ensure!(table.contains("REGISTER/tcp") && table.contains("incident"), "it said {table}");
    let log = guard.rows(&["log"])?;
    ensure!(log[0]["verb"] == "attach", "{log:?}");
    let told: Vec<_> =
        log[1..].iter().map(|row| format!("{} {}", row["verb"], row["what"]).replace('"', "")).collect();
    ensure!(told.len() == 6, "one row a command that changed something: {told:?}");
    ensure!(told[0] == "deny tcp from trunks REGISTER/tcp from trunks REGISTER/udp from trunks", "{told:?}");
    ensure!(told[4] == "permit udp from trunks", "{told:?}");
    Ok(())
}

/// What the kernel has.
fn in_force(guard: &Guard) -> Result<[[u32; 3]; 2]> {
    Ok(sipguard_core::maps::settings(&Pins::new(guard.pins()))?.denied)
}

#[test]
fn what_is_denied_comes_back_with_the_attach_and_outlives_a_damaged_store() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let said = run(guard, "deny tcp register/udp --from trunks --comment incident")?;
    ensure!(said.contains("takes effect with the next `sipguard attach`"), "it said {said}");
    guard.attach(&[Site::INTERFACE])?;
    let there = in_force(guard)?;
    ensure!(there[1][0] == u32::MAX && there[1][2] != 0 && there[0] == [0; 3], "in force is {there:?}");
    let before = guard.rows(&["deny"])?;
    run(guard, "detach --all")?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(in_force(guard)? == there && guard.rows(&["deny"])? == before, "it did not come back");
    std::fs::write(guard.store(), "not a database".repeat(1000))?;
    run(guard, "block 192.0.2.7")?;
    ensure!(in_force(guard)? == there, "the damage changed the kernel");
    let rows = guard.rows(&["deny"])?;
    ensure!(rows.len() == before.len() && rows[0]["comment"] == "found in the kernel", "it has {rows:?}");
    Ok(())
}

#[test]
fn a_policy_that_differs_from_the_store_is_brought_back_by_the_next_change() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    // As a process leaves it that died before its store was written.
    run(guard, "deny tcp --from trunks")?;
    let pins = Pins::new(guard.pins());
    let settings = sipguard_core::maps::settings(&pins)?;
    sipguard_core::maps::set_settings(
        &pins,
        sipguard_common::abi::Settings { denied: [[7; 3]; 2], ..settings },
    )?;
    run(guard, "block 192.0.2.7")?;
    ensure!(in_force(guard)? == settings.denied, "it was not brought back: {:?}", in_force(guard)?);
    Ok(())
}
