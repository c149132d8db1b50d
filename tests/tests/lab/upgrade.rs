//! `upgrade`: the programs are replaced under traffic; nothing malformed gets through, nobody is cut, and what is known stays known.

use std::{process::Stdio, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use serde_json::Value;
use sipguard_common::{Reason, abi::names};
use sipguard_core::ops::{self, Context};
use sipguard_object::OBJECT;
use sipguard_tests::{
    application::{End, Server, expect_same, sip, udp, wait_until},
    continuity, flood,
    guard::{Guard, Site, neighbour},
    message::{negative_length, register},
    process::{Running, output},
};

/// Swaps under traffic, where `SIPGUARD_SWAPS` names no other number.
const SWAPS: usize = 20;
/// Datagrams a second beside them, where `SIPGUARD_RATE` names no other number.
const RATE: u64 = 5000;

/// Guarded without bans and limits, so that a malformed sender is kept out by the framer alone, and nobody sends too much.
fn site() -> Result<Site> {
    let site = Site::guarded(true, &[])?;
    site.guard.run(&["bans", "off"])?.expect(0)?;
    site.guard.run(&["limit", "clear"])?.expect(0)?;
    Ok(site)
}

/// The kernel's number of the program on the interface, as `status` tells.
fn program(site: &Site) -> Result<u64> {
    site.guard.json(&["status"])?["interfaces"][0]["program_id"].as_u64().context("no program")
}

/// The object with another number in the definition of a map, such as `struct bpf_map_def` has them.
fn altered(name: &str, field: Field, change: impl FnOnce(u32) -> u32) -> Result<Vec<u8>> {
    let mut other = OBJECT.to_vec();
    let file = object::File::parse(OBJECT)?;
    let is_map = |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|found| found == name);
    let map = file.symbols().find(is_map).context("no such map")?;
    let section = file.section_by_index(map.section_index().context("of no section")?)?;
    let definition = section.file_range().context("no bytes")?.0 + map.address() - section.address();
    let number = &mut other[definition as usize + 4 * field as usize..][..4];
    number.copy_from_slice(&change(u32::from_le_bytes((*number).try_into()?)).to_le_bytes());
    Ok(other)
}

/// Index of a number in the definition of a map.
#[derive(Clone, Copy)]
enum Field {
    ValueBytes = 2,
    Entries = 3,
}

/// Upgrades to the programs of an object.
fn upgrade_to(site: &Site, object: &[u8]) -> Result<ops::upgrade::Outcome> {
    let context = Context::new(site.guard.pins(), site.guard.store());
    site.pbx.enter(|| ops::upgrade::run(&context, object))?
}

/// What an upgrade says that begins maps anew.
fn said(outcome: &ops::upgrade::Outcome) -> String {
    outcome.notices.iter().map(|notice| notice.0.clone()).collect::<Vec<_>>().join("\n")
}

#[test]
fn under_traffic_nothing_malformed_gets_through_and_nobody_is_cut() -> Result<()> {
    under_traffic(&|site, _| {
        site.guard.run(&["upgrade"])?.expect(0)?;
        Ok(())
    })
}

/// To a build that has a map otherwise, and back, as a downgrade does.
#[test]
fn under_traffic_maps_that_differ_are_begun_anew() -> Result<()> {
    let other = altered(names::OFFENDERS, Field::ValueBytes, |bytes| bytes + 8)?;
    under_traffic(&|site, swap| {
        if swap % 2 == 1 {
            site.guard.run(&["upgrade"])?.expect(0)?;
            return Ok(());
        }
        let said = said(&upgrade_to(site, &other)?);
        ensure!(said.ends_with("begun anew: the offenders"), "{said}");
        Ok(())
    })
}

/// Swaps the programs under traffic, as `swap` does it; its number is given.
fn under_traffic(swap: &dyn Fn(&Site, usize) -> Result<()>) -> Result<()> {
    let site = &site()?;
    let address = sip(Site::PBX[0]);
    let server = Server::listen(&site.pbx, address)?;
    let swaps = std::env::var("SIPGUARD_SWAPS").map_or(Ok(SWAPS), |number| number.parse())?;
    let rate = std::env::var("SIPGUARD_RATE").map_or(Ok(RATE), |number| number.parse())?;
    let before = program(site)?;
    let (hosts, addresses) = ((&site.pbx, &site.phone), (address, sip(Site::PHONE[0])));
    let beside = (sip(Site::PBX[1]), sip(Site::PHONE[1]));
    let (traffic, flood) = flood::during(hosts, beside, rate, || {
        continuity::during(&server, hosts, addresses, |one_more_attempt| {
            (0..swaps).try_for_each(|number| {
                swap(site, number)?;
                one_more_attempt()
            })
        })
    })?;
    ensure!(program(site)? != before, "the program is the same");
    // Counters went on from where they were.
    let counted = |reason| site.guard.counted(reason);
    let sent = traffic.malformed() as u64 + flood.sent / 2;
    let stopped = counted(negative_length().reason)?;
    ensure!(stopped >= sent, "{stopped} were counted, {sent} were sent");
    let (passed, good) = (counted(Reason::Valid)?, traffic.datagrams as u64 + flood.sent.div_ceil(2));
    ensure!(passed > good, "{passed} were valid, {good} datagrams were");
    // The second eye and the counting programs are those of the new build too.
    let report = site.guard.json(&["status"])?;
    ensure!(report["weaknesses"].as_array().is_some_and(Vec::is_empty), "{report}");
    println!("{swaps} swaps: {traffic:?}; {flood:?}, {:.0} a second", flood.rate());
    Ok(())
}

/// What the kernel refuses, and what is no object at all.
#[test]
fn a_build_that_the_kernel_refuses_leaves_the_old_one() -> Result<()> {
    let site = site()?;
    let before = program(&site)?;
    let mut refused = OBJECT.to_vec();
    let file = object::File::parse(OBJECT)?;
    let is_xdp = |section: &object::Section<'_, '_>| section.name().is_ok_and(|name| name.starts_with("xdp"));
    let section = file.sections().find(is_xdp).context("no section of XDP programs")?;
    let (start, size) = section.file_range().context("no bytes")?;
    // A program without its end.
    refused[(start + size - 8) as usize..][..8].fill(0);
    for broken in [refused, b"no ELF file".to_vec()] {
        let text = format!("{:#}", upgrade_to(&site, &broken).map(|_| ()).expect_err("it was taken"));
        ensure!(text.contains("reading the programs") || text.contains("loading the XDP program"), "{text}");
        ensure!(program(&site)? == before, "the program was replaced");
    }
    let server = Server::listen(&site.pbx, sip("10.77.0.1".parse()?))?;
    ensure!(continuity::malformed(&server, &site.phone)?.is_empty(), "it does not filter");
    Ok(())
}

/// A build in which a map is another one that nothing fills, and what the programs keep for themselves.
#[test]
fn a_build_with_other_settings_is_refused_by_their_name() -> Result<()> {
    let site = site()?;
    let before = program(&site)?;
    let pins = site.guard.pins();
    let refused = |object: &[u8], expected: &str| -> Result<()> {
        let text = format!("{:#}", upgrade_to(&site, object).map(|_| ()).expect_err("it was taken"));
        ensure!(text.contains(expected), "{text}");
        ensure!(program(&site)? == before, "the program was replaced");
        ensure!(!pins.join("maps-new").exists(), "maps are left");
        Ok(())
    };
    let settings = altered(names::SETTINGS, Field::ValueBytes, |bytes| bytes + 8)?;
    refused(&settings, "the map SETTINGS of this build is another one")?;
    // What one build left there another one would take for its own.
    ensure!(!pins.join("maps").join(names::SCRATCH).exists(), "the working memory is pinned");
    // Pins of a build that did not tell the layouts of its maps: nothing is known but sizes.
    for name in names::pinned() {
        std::fs::remove_file(pins.join("maps").join(format!("{name}-layout")))?;
    }
    let offenders = altered(names::OFFENDERS, Field::ValueBytes, |bytes| bytes + 8)?;
    refused(&offenders, "the map OFFENDERS has other sizes")?;
    site.guard.run(&["upgrade"])?.expect(0)?;
    ensure!(program(&site)? != before, "the program is the same");
    upgrade_to(&site, &offenders).map(drop)
}

#[test]
fn rules_are_filled_from_the_store() -> Result<()> {
    let site = site()?;
    let guard = &site.guard;
    guard.run(&["block", "10.77.0.2", "--comment", "no more"])?.expect(0)?;
    guard.run(&["block", "198.51.100.0/24"])?.expect(0)?;
    // All but what they counted.
    let rules = || -> Result<Vec<Value>> {
        let mut list = guard.json(&["list"])?;
        let rows = list["rows"].as_array_mut().context("no rows")?;
        for row in rows.iter_mut() {
            (row["packets"], row["bytes"]) = (Value::Null, Value::Null);
        }
        Ok(std::mem::take(rows))
    };
    let before = rules()?;
    ensure!(before.len() == 2, "{before:?}");
    // Of an upgrade that was killed.
    let left = guard.pins().join("maps-new");
    std::fs::create_dir(&left)?;
    std::fs::hard_link(guard.pins().join("maps/HOSTS"), left.join("HOSTS"))?;
    let (from, to) = (udp(&site.phone, sip("10.77.0.2".parse()?))?, sip("10.77.0.1".parse()?));
    for map in [names::HOSTS, names::PREFIXES] {
        let said = said(&upgrade_to(&site, &altered(map, Field::Entries, |entries| entries / 2)?)?);
        ensure!(said.contains("what rules had counted"), "{said}");
        let blocked = guard.counted(Reason::BlockedHost)?;
        from.send_to(&register(1), to)?;
        wait_until("it is blocked", || Ok(guard.counted(Reason::BlockedHost)? > blocked))?;
        ensure!(rules()? == before && !left.exists(), "{:?}", rules()?);
        guard.run(&["upgrade"])?.expect(0)?;
    }
    Ok(())
}

/// One that was killed when some programs had other maps already: no verb tells of maps that are not all that filters.
#[test]
fn an_interrupted_upgrade_is_said_until_it_is_ended() -> Result<()> {
    let site = site()?;
    let next = site.guard.pins().join("maps-next");
    for begun in ["maps-new", "maps-next"] {
        std::fs::create_dir(site.guard.pins().join(begun))?;
    }
    for verb in ["status", "block 198.51.100.7", "lookup 198.51.100.7"] {
        let words: Vec<&str> = verb.split(' ').collect();
        let output = site.guard.run(&words)?.expect(1)?;
        ensure!(output.stderr.contains("`sipguard upgrade` ends it"), "{verb}: {output:?}");
    }
    site.guard.run(&["upgrade"])?.expect(0)?;
    site.guard.run(&["block", "198.51.100.7"])?.expect(0)?;
    std::fs::create_dir(&next)?;
    site.guard.run(&["detach", "--all"])?.expect(0)?;
    ensure!(!site.guard.pins().exists(), "pins are left");
    Ok(())
}

/// A call whose connection is followed anew: its next piece is no fault, and its next fault is one.
#[test]
fn connections_are_followed_again() -> Result<()> {
    let site = site()?;
    let server = Server::listen(&site.pbx, sip("10.77.0.1".parse()?))?;
    let (phone, application) = server.connect(&site.phone)?;
    let message = register(1);
    let (first, second) = message.split_at(message.len() / 2);
    phone.write(first)?;
    application.wait_for(first.len())?;
    let other = altered(names::HANDSHAKES, Field::Entries, |entries| entries / 2)?;
    let said = said(&upgrade_to(&site, &other)?);
    ensure!(said.contains("the connections, which are followed again"), "{said}");
    ensure!(said.contains("how many messages senders have begun"), "{said}");
    phone.write(second)?;
    application.wait_for(message.len())?;
    phone.write(&message)?;
    application.wait_for(2 * message.len())?;
    phone.offer(&negative_length().bytes)?;
    ensure!(application.wait_for_end()? == End::Reset, "it was not reset");
    expect_same(&application.bytes(), &[&message[..], &message[..]].concat())
}

/// Whatever is done and not done: each interface is filtered, `status` says so, and another `upgrade` ends it.
#[test]
fn an_upgrade_that_is_killed_leaves_a_filter() -> Result<()> {
    let site = site()?;
    let server = Server::listen(&site.pbx, sip("10.77.0.1".parse()?))?;
    for delay_ms in [1, 20, 60, 100, 140, 180, 220, 260, 300, 400, 600] {
        let mut command = site.guard.command(&["upgrade"]);
        let mut process =
            Running::start("sipguard upgrade", command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        thread::sleep(Duration::from_millis(delay_ms));
        process.signal(Signal::SIGKILL)?;
        wait_until("the process is gone", || Ok(process.try_wait()?.is_some()))?;
        let report = site.guard.json(&["status"])?;
        ensure!(report["interfaces"][0]["mode"] == "native", "killed after {delay_ms} ms: {report}");
        ensure!(report["weaknesses"].as_array().is_some_and(Vec::is_empty), "{report}");
        let through = continuity::malformed(&server, &site.phone)?;
        ensure!(through.is_empty(), "killed after {delay_ms} ms it does not filter");
    }
    // A pin that did not come to its place.
    let pin = site.guard.pins().join("programs/0-new");
    let id = program(&site)?.to_string();
    output(std::process::Command::new("bpftool").args(["prog", "pin", "id", &id]).arg(&pin))?;
    site.guard.run(&["upgrade"])?.expect(0)?;
    ensure!(!pin.exists(), "the pin is there still");
    site.guard.run(&["detach", "--all"])?.expect(0)?;
    ensure!(!site.guard.pins().exists(), "pins are left");
    Ok(())
}

#[test]
fn without_a_guard_there_is_nothing_to_upgrade() -> Result<()> {
    let site = Site::new(true)?;
    let output = site.guard.run(&["upgrade"])?.expect(3)?;
    ensure!(output.stderr.contains("not attached"), "{output:?}");
    // And of an interface that is gone it tells.
    site.guard.attach(&["eth0"])?;
    site.pbx.run(&["ip", "link", "del", "eth0"])?;
    let output = site.guard.run(&["upgrade"])?.expect(0)?;
    ensure!(output.stderr.contains("nothing is filtered on eth0"), "{output:?}");
    Ok(())
}

/// An operator who is in another network namespace than the interface.
#[test]
fn elsewhere_it_is_refused() -> Result<()> {
    let site = site()?;
    let before = program(&site)?;
    let other = Guard::new(&site.phone, &neighbour("SIPGUARD", "sipguard")?);
    let (pins, store) = (site.guard.pins().to_string_lossy(), site.guard.store().to_string_lossy());
    let output = other.run(&["upgrade", "--pins", &pins, "--store", &store])?.expect(1)?;
    ensure!(output.stderr.contains("another network namespace"), "{output:?}");
    ensure!(program(&site)? == before, "the program was replaced");
    let log: Value = site.guard.json(&["log"])?;
    ensure!(!log.to_string().contains("upgrade"), "{log}");
    Ok(())
}
