//! The counters as OpenMetrics text.

use std::{collections::BTreeMap, net::UdpSocket};

use anyhow::{Context as _, Result, ensure};
use sipguard::{bans::Bans, clock::Clock, pins::Pins};
use sipguard_common::abi::Ban;
use sipguard_tests::{
    application::{PATIENCE, sip},
    guard::{Guard, Site},
    message::{OPTIONS, register},
};

/// Every sample by its name and labels.
fn metrics(guard: &Guard) -> Result<BTreeMap<String, f64>> {
    let text = guard.run(&["counters", "--format", "prometheus"])?.expect(0)?.stdout;
    ensure!(text.ends_with("# EOF\n"), "it does not end: {text}");
    ensure!(!text.contains("10.77.") && !text.contains("192.0.2."), "an address is a label: {text}");
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').context("a value")?;
        Ok((name.to_owned(), value.parse()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

#[test]
fn trunks_and_blocks_are_told_by_name() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let run = |words: &str| guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0);
    run("trunk add carrier --peer 10.77.0.2 --method OPTIONS")?;
    run("trunk add quiet --peer 192.0.2.200")?;
    let pbx = Site::PBX[0];
    let server = site.pbx.enter(|| UdpSocket::bind(sip(pbx)))??;
    server.set_read_timeout(Some(PATIENCE))?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for message in [&register(1)[..], &register(2), OPTIONS] {
        site.phone.enter(|| phone.send_to(message, sip(pbx)))??;
    }
    server.recv(&mut [0; 2048]).context("the OPTIONS did not arrive")?;
    run("block 192.0.2.7 192.0.2.8")?;
    run("block 192.0.2.7 192.0.2.9 192.0.2.10 --source fail2ban --for 1h")?;
    run("allow 192.0.2.100")?;
    let pins = Pins::new(guard.pins());
    let now_ns = Clock::now()?.boot_ns;
    let mut ban: Ban = bytemuck::Zeroable::zeroed();
    (ban.since_ns, ban.until_ns, ban.times) = (now_ns, now_ns + 3_600_000_000_000, 1);
    Bans::open(&pins)?.set(&"192.0.2.11:5060".parse().map_err(anyhow::Error::msg)?, Some(ban))?;
    let told = metrics(guard)?;
    for (name, value) in [
        ("sipguard_trunk_received_packets_total{trunk=\"carrier\"}", 3.0),
        ("sipguard_trunk_dropped_packets_total{trunk=\"carrier\"}", 2.0),
        ("sipguard_trunk_received_packets_total{trunk=\"quiet\"}", 0.0),
        ("sipguard_trunk_dropped_packets_total{trunk=\"quiet\"}", 0.0),
        ("sipguard_blocks{source=\"cli\"}", 2.0),
        ("sipguard_blocks{source=\"fail2ban\"}", 3.0),
        ("sipguard_blocks{source=\"guard\"}", 1.0),
    ] {
        ensure!(told.get(name) == Some(&value), "{name} is not {value}: {told:#?}");
    }
    // Monitor mode lets pass, so nothing is dropped.
    run("mode monitor")?;
    site.phone.enter(|| phone.send_to(&register(3), sip(pbx)))??;
    server.recv(&mut [0; 2048]).context("the REGISTER did not arrive")?;
    let told = metrics(guard)?;
    ensure!(told["sipguard_trunk_received_packets_total{trunk=\"carrier\"}"] == 4.0, "{told:#?}");
    ensure!(told["sipguard_trunk_dropped_packets_total{trunk=\"carrier\"}"] == 2.0, "{told:#?}");
    // Without its store the guard tells what the kernel counts.
    let words = ["counters", "--format", "prometheus", "--store", "/proc"];
    let said = guard.run(&words)?.expect(0)?;
    ensure!(
        said.stdout.contains("sipguard_received_packets_total{") && !said.stdout.contains("_blocks{"),
        "{said:?}"
    );
    ensure!(said.stderr.contains("are left out"), "{said:?}");
    Ok(())
}
