//! Trunks by name: whose addresses they are, what they may send, and that nothing automatic blocks them.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use sipguard_common::{
    Reason,
    abi::{TRUNK_ENTRIES, Trunk, names},
};
use sipguard_core::{
    maps::{self, Plain},
    pins::Pins,
};
use sipguard_tests::{
    application::{PATIENCE, Server, expect_same, sip, udp, uninterrupted, wait_until},
    guard::{Guard, Output, Site, number},
    message::{OPTIONS, register},
    scratch::Scratch,
};

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

fn fails(guard: &Guard, words: &str, why: &str) -> Result<()> {
    let Output { stderr, .. } = guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(1)?;
    ensure!(stderr.contains(why), "{words}: it said {stderr}");
    Ok(())
}

fn send(site: &Site, to: IpAddr, bytes: &[u8]) -> Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    site.phone.enter(|| UdpSocket::bind((any, 0))?.send_to(bytes, sip(to)))??;
    Ok(())
}

fn trunk_of(guard: &Guard, address: &str) -> Result<String> {
    Ok(guard.json(&["lookup", address])?["trunk"].as_str().unwrap_or("none").to_owned())
}

#[test]
fn an_added_trunk_that_is_added_again_keeps_its_reason() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    run(guard, "trunk add carrier --peer 198.51.100.0/28 --comment main")?;
    let said = run(guard, "trunk add carrier --peer 198.51.100.0/28")?;
    ensure!(said == "nothing changed, it is so already\n", "it said {said}");
    ensure!(guard.json(&["trunk", "show", "carrier"])?["comment"] == "main", "the reason is gone");
    let said = run(guard, "trunk add carrier --peer 198.51.100.0/28 --comment other")?;
    ensure!(said.starts_with("changed the trunk carrier"), "it said {said}");
    ensure!(
        guard.json(&["trunk", "show", "carrier"])?["comment"] == "other",
        "the reason is not the new one"
    );
    Ok(())
}

#[test]
fn a_trunk_uses_what_it_may_and_devices_go_on() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let [trunk, device] = Site::PBX;
    let said = run(
        guard,
        "trunk add carrier --peer 10.77.0.2 --transport udp --method OPTIONS,INVITE,ACK,BYE,CANCEL",
    )?;
    ensure!(said == "added the trunk carrier with 1 peer\n", "it said {said}");
    let servers = [trunk, device].map(|pbx| udp(&site.pbx, sip(pbx)));
    let [at_trunk, at_device] = servers;
    let (at_trunk, at_device) = (at_trunk?, at_device?);
    let hello = register(1);
    for (to, bytes) in [(trunk, &hello[..]), (trunk, OPTIONS), (device, &hello)] {
        send(&site, to, bytes)?;
    }
    let mut read = [0; 2048];
    for (server, bytes) in [(&at_trunk, OPTIONS), (&at_device, &hello)] {
        server.set_read_timeout(Some(PATIENCE))?;
        let count = uninterrupted(|| server.recv(&mut read)).context("it did not arrive")?;
        expect_same(&read[..count], bytes)?;
    }
    ensure!(guard.counted(Reason::MethodDenied)? == 1, "{:?}", guard.counters()?);
    // No TCP: it is refused from the SYN on. A device has it.
    Server::listen(&site.pbx, sip(device))?.connect(&site.phone)?;
    let syn = std::thread::scope(|scope| {
        let dial = scope.spawn(|| {
            let within = std::time::Duration::from_millis(500);
            site.phone.enter(|| std::net::TcpStream::connect_timeout(&sip(trunk), within).is_ok())
        });
        dial.join().map_err(|_| anyhow::anyhow!("the dialling thread panicked"))?
    })?;
    ensure!(!syn && guard.counted(Reason::TransportDenied)? >= 1, "it connected");
    let told = guard.json(&["trunk", "show", "carrier"])?;
    let counted = |word: &str| {
        let rows = told["counters"].as_array().into_iter().flatten();
        rows.filter(|row| row["reason"] == word).filter_map(|row| row["packets"].as_u64()).sum::<u64>()
    };
    ensure!(
        counted("method-denied") == 1 && counted("valid") == 1 && counted("transport-denied") >= 1,
        "{told}"
    );
    let rows = guard.rows(&["counters", "--by", "trunk"])?;
    ensure!(rows.iter().any(|row| row["trunk"] == "carrier" && row["reason"] == "method-denied"), "{rows:?}");
    // Given back.
    run(guard, "trunk set carrier --transport all --method all")?;
    send(&site, trunk, &hello)?;
    let count = uninterrupted(|| at_trunk.recv(&mut read)).context("it did not arrive")?;
    expect_same(&read[..count], &hello)?;
    Server::listen(&site.pbx, sip(trunk))?.connect(&site.phone).map(drop)
}

#[test]
fn a_trunk_has_a_mode_and_a_profile_of_its_own() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let [trunk, device] = Site::PBX;
    run(guard, "trunk add carrier --peer 10.77.0.0/24 --profile strict")?;
    ensure!(run(guard, "mode monitor --trunk carrier")? == "carrier: monitor\n", "another answer");
    ensure!(run(guard, "mode monitor --trunk carrier")?.starts_with("nothing changed"), "another answer");
    // Only the strict profile wants a Max-Forwards.
    let loose = String::from_utf8(register(1))?.replace("Max-Forwards: 70\r\n", "");
    let counted = |action: &str, reason: &str| {
        let rows = guard.counter_rows()?;
        Ok::<_, anyhow::Error>(rows.iter().any(|row| row.action == action && row.reason.starts_with(reason)))
    };
    send(&site, trunk, loose.as_bytes())?;
    wait_until("it is counted", || counted("would-drop", ""))?;
    ensure!(!counted("pass", "valid")? && !counted("drop", "")?, "{:?}", guard.counter_rows()?);
    send(&site, device, loose.as_bytes())?;
    wait_until("it passes", || counted("pass", "valid"))?;
    run(guard, "mode enforce --trunk carrier")?;
    send(&site, trunk, loose.as_bytes())?;
    wait_until("it is stopped", || counted("drop", ""))
}

#[test]
fn nothing_automatic_blocks_a_trunk_and_the_operator_must_mean_it() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "block 192.0.2.7 192.0.0.0/16 192.0.2.7:4001 --origin fail2ban")?;
    let blocked =
        |address: &str| Ok::<_, anyhow::Error>(guard.json(&["lookup", address])?["verdict"] == "block");
    ensure!(blocked("192.0.2.7")? && blocked("192.0.2.9")?, "not blocked before");
    run(guard, "trunk add carrier --peer 192.0.2.0/28")?;
    for address in ["192.0.2.7", "192.0.2.9", "192.0.2.7:4001"] {
        ensure!(!blocked(address)?, "{address} is blocked still");
    }
    let said = run(guard, "block 192.0.2.8 192.0.2.0/24 192.0.2.8:4001 198.51.100.7 --origin fail2ban")?;
    ensure!(said.starts_with("blocked 1 source permanently, skipped 3 sources"), "it said {said}");
    for target in ["192.0.2.8", "192.0.2.0/24", "192.0.2.8:4001"] {
        fails(guard, &format!("block 198.51.100.8 {target}"), "stops the trunk carrier")?;
    }
    ensure!(!blocked("198.51.100.8")?, "half of it was done");
    run(guard, "block 192.0.2.8 --force")?;
    ensure!(blocked("192.0.2.8")? && trunk_of(guard, "192.0.2.8")? == "carrier", "--force did not block it");
    let said = run(guard, "lookup 192.0.2.7")?;
    ensure!(said.contains("trunk carrier, by its peer 192.0.2.0/28"), "it said {said}");
    ensure!(said.contains("nothing automatic touches a trunk"), "it said {said}");
    ensure!(run(guard, "trunk remove carrier")? == "removed the trunk carrier\n", "not removed");
    ensure!(blocked("192.0.2.7")? && trunk_of(guard, "192.0.2.7")? == "none", "the trunk holds still");
    Ok(())
}

#[test]
fn the_longest_peer_says_whose_an_address_is_and_each_peer_has_one_trunk() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "trunk add wide --peer 192.0.2.0/24,2001:db8::/32")?;
    run(guard, "trunk add narrow --peer 192.0.2.16/28 192.0.2.3")?;
    for (address, trunk) in [
        ("192.0.2.1", "wide"),
        ("192.0.2.17", "narrow"),
        ("192.0.2.3:5060", "narrow"),
        ("2001:db8::9", "wide"),
        ("192.0.3.1", "none"),
    ] {
        ensure!(trunk_of(guard, address)? == trunk, "{address} is not of {trunk}");
    }
    fails(guard, "trunk add third --peer 192.0.2.0/24", "is a peer of the trunk wide")?;
    fails(guard, "trunk set narrow --peer 2001:db8::/32", "is a peer of the trunk wide")?;
    fails(guard, "trunk add wide --peer 192.0.2.0/24", "there is a trunk wide already")?;
    run(guard, "limit set --trunk wide --of open 7")?;
    run(guard, "checks set bad-number monitor --trunk wide")?;
    let shown = run(guard, "trunk show wide")?;
    for line in ["  checks of its own: bad-number monitor\n", "  limits: open 7 at once (now 0)\n"] {
        ensure!(shown.contains(line), "{shown}");
    }
    run(guard, "limit reset --trunk wide")?;
    run(guard, "checks clear --trunk wide")?;
    for words in ["trunk set third --mode monitor", "trunk show third", "mode monitor --trunk third"] {
        let said = guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(2)?;
        let text = "there is no trunk third; known are narrow, wide";
        ensure!(said.stderr.contains(text), "{words}: it said {}", said.stderr);
    }
    for words in [
        "trunk add narrow --peer 192.0.2.16/28 192.0.2.3",
        "trunk set narrow --mode inherit",
        "trunk remove third",
    ] {
        ensure!(run(guard, words)?.starts_with("nothing changed"), "{words} changed something");
    }
    // A rule about a peer goes and comes without its trunk.
    for words in ["allow 192.0.2.3", "unallow 192.0.2.3", "block 192.0.2.16/28 --force", "unblock --all"] {
        run(guard, words)?;
        ensure!(
            trunk_of(guard, "192.0.2.3")? == "narrow" && trunk_of(guard, "192.0.2.17")? == "narrow",
            "{words}"
        );
    }
    ensure!(kernels_trunks(guard)? == 4, "the kernel has {} members", kernels_trunks(guard)?);
    Ok(())
}

/// Entries of the kernel that name a trunk.
fn kernels_trunks(guard: &Guard) -> Result<usize> {
    let rules = sipguard_core::blocks::Blocks::open(&Pins::new(guard.pins()))?.everything()?;
    Ok(rules.iter().filter(|(_, rule)| rule.trunk != 0).count())
}

#[test]
fn trunks_come_back_with_the_attach_and_outlive_a_damaged_store() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let said = run(
        guard,
        "trunk add carrier --peer 192.0.2.0/28 198.51.100.7 --transport udp --mode monitor --comment main",
    )?;
    ensure!(said.contains("takes effect with the next"), "it said {said}");
    guard.attach(&[Site::INTERFACE])?;
    ensure!(kernels_trunks(guard)? == 2 && trunk_of(guard, "192.0.2.9")? == "carrier", "not in force");
    let before = guard.rows(&["trunk", "list"])?;
    ensure!(
        before.len() == 1 && before[0]["transports"] == "udp" && before[0]["comment"] == "main",
        "{before:?}"
    );
    run(guard, "detach --all")?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(kernels_trunks(guard)? == 2 && guard.rows(&["trunk", "list"])? == before, "it did not come back");
    std::fs::remove_file(guard.store())?;
    run(guard, "block 203.0.113.7")?;
    let rows = guard.rows(&["trunk", "list"])?;
    ensure!(rows.len() == 1 && rows[0]["transports"] == "udp" && rows[0]["mode"] == "monitor", "{rows:?}");
    ensure!(rows[0]["peers"] == before[0]["peers"] && kernels_trunks(guard)? == 2, "{rows:?}");
    run(guard, "trunk remove recovered-1")?;
    ensure!(kernels_trunks(guard)? == 0, "an entry names a trunk that is gone");
    ensure!(number(&guard.json(&["status"])?, "blocks")? == 1, "a block was lost");
    Ok(())
}

/// A new trunk takes the index that another one had: what is counted of it begins with its own first packet, in the same change.
#[test]
fn the_counters_of_a_trunk_begin_with_it() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let (guard, pbx) = (&site.guard, Site::PBX[0]);
    let _server = udp(&site.pbx, sip(pbx))?;
    let counted = |name: &str| -> Result<u64> {
        let rows = guard.rows(&["counters", "--by", "trunk"])?;
        let of_trunk = rows.iter().filter(|row| row["trunk"] == name);
        of_trunk.map(|row| number(row, "packets")).sum()
    };
    run(guard, "trunk add first --peer 10.77.0.2")?;
    send(&site, pbx, OPTIONS)?;
    wait_until("the first trunk is counted", || Ok(counted("first")? == 1))?;
    run(guard, "trunk remove first")?;
    run(guard, "trunk add second --peer 198.51.100.7")?;
    ensure!(counted("second")? == 0, "the second trunk has {} packets of the first one", counted("second")?);
    // By the configuration file as well.
    run(guard, "trunk set second --peer 10.77.0.2")?;
    send(&site, pbx, OPTIONS)?;
    wait_until("the second trunk is counted", || Ok(counted("second")? == 1))?;
    run(guard, "trunk remove second")?;
    let scratch = Scratch::new("trunks")?;
    let file = scratch.write("sipguard.toml", "[trunks.third]\npeers = [\"198.51.100.7\"]\n")?;
    run(guard, &format!("reload --config {}", file.display()))?;
    ensure!(counted("third")? == 0, "the third trunk has {} packets of the second one", counted("third")?);
    Ok(())
}

#[test]
fn whether_a_trunk_is_of_balancers_is_kept_and_shown() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let entry = || -> Result<u32> {
        let map: Array<_, Plain<Trunk>> = maps::open(&Pins::new(guard.pins()), names::TRUNKS)?;
        (1..TRUNK_ENTRIES).map(|index| Ok(map.get(&index, 0)?.0.proxy_protocol)).sum()
    };
    let is = |wanted: bool| -> Result<()> {
        let shown = guard.json(&["trunk", "show", "lb"])?["proxy_protocol"].clone();
        ensure!(shown == wanted && entry()? == u32::from(wanted), "{shown}, in the kernel {}", entry()?);
        let shown = run(guard, "trunk list")?.contains(" required ");
        ensure!(shown == wanted, "the table says {shown}");
        let shown = run(guard, "lookup 10.77.0.5")?.contains("PROXY header");
        ensure!(shown == wanted, "the lookup says {shown}");
        let shown = run(guard, "status")?.contains("PROXY header of the trunks: lb\n");
        ensure!(shown == wanted, "the status says {shown}");
        ensure!(guard.json(&["status"])?.get("balancers").is_some() == wanted, "the status is {shown}");
        Ok(())
    };
    run(guard, "trunk add lb --peer 10.77.0.5 --proxy-protocol")?;
    is(true)?;
    run(guard, "trunk set lb --comment HAProxy")?;
    is(true)?;
    run(guard, "detach --all")?;
    guard.attach(&[Site::INTERFACE])?;
    is(true)?;
    run(guard, "trunk set lb --proxy-protocol=false")?;
    is(false)?;
    run(guard, "trunk set lb --proxy-protocol")?;
    is(true)?;
    run(guard, "trunk remove lb")?;
    run(guard, "trunk add lb --peer 10.77.0.5")?;
    is(false)?;
    let scratch = Scratch::new("trunks")?;
    for wanted in [true, false] {
        let text = format!("[trunks.lb]\npeers = [\"10.77.0.5\"]\nproxy-protocol = {wanted}\n");
        let file = scratch.write("sipguard.toml", &text)?;
        run(guard, &format!("reload --config {}", file.display()))?;
        is(wanted)?;
    }
    // The kernel's entry is enough.
    run(guard, "trunk set lb --proxy-protocol")?;
    std::fs::remove_file(guard.store())?;
    run(guard, "block 203.0.113.7")?;
    let rows = guard.rows(&["trunk", "list"])?;
    ensure!(rows.len() == 1 && rows[0]["proxy_protocol"] == true, "{rows:?}");
    Ok(())
}
