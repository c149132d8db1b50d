//! One phone of several behind one address: blocked by address and port, while the others go on.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::{Reason, abi::rules_in_use};
use sipguard_core::{maps, pins::Pins};
use sipguard_tests::{
    application::{Connection, PATIENCE, Server, expect_same, sip, udp, uninterrupted, wait_until},
    guard::{Guard, Site, number},
    message::{OPTIONS, register},
};

/// A phone behind the address of the others, over TCP or UDP, and its other end.
fn phone(server: &Server, site: &Site) -> Result<(Connection, Connection)> {
    let (phone, application) = server.connect(&site.phone)?;
    phone.write(OPTIONS)?;
    expect_same(&application.wait_for(OPTIONS.len())?, OPTIONS)?;
    Ok((phone, application))
}

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

fn switched_on(guard: &Guard) -> Result<bool> {
    Ok(maps::settings(&Pins::new(guard.pins()))?.rules & rules_in_use::DEVICES != 0)
}

#[test]
fn one_errant_phone_is_cut_and_the_others_behind_its_address_go_on() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    for pbx in Site::PBX {
        let server = Server::listen(&site.pbx, sip(pbx))?;
        let (errant, other) = (phone(&server, &site)?, phone(&server, &site)?);
        let device = errant.0.local()?;
        ensure!(!switched_on(guard)?, "the kernel looks for rules that there are not");
        let said = run(guard, &format!("block {device} --for 1h --comment errant"))?;
        ensure!(said == "blocked 1 source for 1h\n", "it said {said}");
        let before = guard.counted(Reason::BlockedDevice)?;
        let hello = register(1);
        errant.0.write(&hello)?;
        other.0.write(&hello)?;
        expect_same(&other.1.wait_for(OPTIONS.len() + hello.len())?[OPTIONS.len()..], &hello)?;
        phone(&server, &site)?;
        wait_until("it is counted", || Ok(guard.counted(Reason::BlockedDevice)? > before))?;
        ensure!(errant.1.bytes() == OPTIONS, "it reached the PBX");
        let found = guard.json(&["lookup", &device.to_string()])?;
        ensure!(found["verdict"] == "block" && found["rule"]["target"] == device.to_string(), "{found}");
        ensure!(number(&found["rule"], "packets")? >= 1 && found["rule"]["comment"] == "errant", "{found}");
        let found = guard.json(&["lookup", &other.0.local()?.to_string()])?;
        ensure!(found["verdict"] == "pass" && found["rule"].is_null(), "{found}");
        ensure!(run(guard, &format!("unblock {device}"))? == "unblocked 1 source\n", "not lifted");
        expect_same(&errant.1.wait_for(OPTIONS.len() + hello.len())?[OPTIONS.len()..], &hello)?;
    }
    Ok(())
}

#[test]
fn a_device_is_blocked_over_udp_on_guarded_ports_alone() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let [pbx, _] = Site::PBX;
    let servers = [5060, 9].map(|port| udp(&site.pbx, (pbx, port)));
    let [sip_server, other_server] = servers;
    let (sip_server, other_server) = (sip_server?, other_server?);
    let bind = || site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"));
    let (errant, other) = (bind()??, bind()??);
    run(&site.guard, &format!("block {}", errant.local_addr()?))?;
    for (socket, port) in [(&errant, 5060), (&errant, 9), (&other, 5060)] {
        site.phone.enter(|| socket.send_to(OPTIONS, (pbx, port)))??;
    }
    let mut bytes = [0; 2048];
    for (server, from) in [(&sip_server, &other), (&other_server, &errant)] {
        server.set_read_timeout(Some(PATIENCE))?;
        let (_, came_from): (usize, SocketAddr) =
            uninterrupted(|| server.recv_from(&mut bytes)).context("it did not arrive")?;
        ensure!(came_from == from.local_addr()?, "it came from {came_from}");
    }
    ensure!(site.guard.counted(Reason::BlockedDevice)? == 1, "{:?}", site.guard.counters()?);
    Ok(())
}

#[test]
fn the_rule_of_a_device_is_asked_after_that_of_its_address() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    for (words, verdict, decides) in [
        ("block 192.0.2.7:4001 --monitor", "pass", "192.0.2.7:4001"),
        ("block 192.0.2.7:4001", "block", "192.0.2.7:4001"),
        ("allow 192.0.2.0/24", "block", "192.0.2.7:4001"),
        ("block 192.0.2.7 --monitor", "block", "192.0.2.7:4001"),
        ("block 192.0.2.7", "block", "192.0.2.7"),
        ("unblock 192.0.2.7:4001", "block", "192.0.2.7"),
        ("unblock 192.0.2.7", "pass", "192.0.2.0/24"),
        // Nothing automatic touches a device of an allowed address.
        ("block 192.0.2.7:4001 --origin fail2ban", "pass", "192.0.2.0/24"),
    ] {
        run(guard, words)?;
        let found = guard.json(&["lookup", "192.0.2.7:4001"])?;
        ensure!(found["verdict"] == verdict && found["rule"]["target"] == decides, "{words}: {found}");
        let found = guard.json(&["lookup", "192.0.2.7:4002"])?;
        ensure!(found["rule"]["target"] != "192.0.2.7:4001", "{words}: {found}");
    }
    Ok(())
}

#[test]
fn devices_come_back_with_the_attach_and_go_with_lists() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "block 192.0.2.7:4001 [2001:db8::7]:4001 --comment errant --origin watch --for 1h")?;
    run(guard, "block 192.0.2.8:4001")?;
    let before = guard.rules()?;
    let told: Vec<_> = before.iter().map(|row| row["target"].as_str().unwrap_or_default()).collect();
    ensure!(told == ["192.0.2.7:4001", "192.0.2.8:4001", "[2001:db8::7]:4001"], "listed is {told:?}");
    ensure!(before.iter().all(|row| row["in_force"] == true), "{before:?}");
    run(guard, "detach --all")?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(guard.rules()? == before && switched_on(guard)?, "it did not come back");
    for form in ["json", "csv", "txt"] {
        let list = run(guard, &format!("export --format {form}"))?;
        run(guard, "unblock --all")?;
        ensure!(guard.rules()?.is_empty() && !switched_on(guard)?, "something was left");
        let said = guard.run_with_input(&["import", "-", "--format", form], &list)?.expect(0)?;
        ensure!(said.stdout == "added 3 rules\n", "{form}: it said {said:?}");
        ensure!(guard.rules()?.len() == 3 && switched_on(guard)?, "{form}: not taken back");
    }
    ensure!(!run(guard, "export --format ipset")?.contains("4001"), "ipset has no place for it");
    // Found in the kernel when the store is gone.
    std::fs::remove_file(guard.store())?;
    run(guard, "unblock 192.0.2.8:4001")?;
    ensure!(guard.rules()?.len() == 2, "{:?}", guard.rows(&["list"])?);
    Ok(())
}
