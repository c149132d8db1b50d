//! Blocks: at once, for every protocol, both families, and for as long as was said.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::{PATIENCE, Server, expect_same, sip, udp, uninterrupted, wait_until},
    guard::{Output, Site, number},
    message::register,
    rules::while_it_lasts,
};

/// Prefixes around the phone's addresses that do not hold the PBX's own.
const PREFIXES: [&str; 2] = ["10.77.0.2/31", "fd77::2/127"];

/// Whether one echo request is answered.
fn answers_ping(site: &Site, address: IpAddr) -> Result<bool> {
    let mut ping = site.phone.command("ping");
    let output = ping.args(["-c", "1", "-W", "1", &address.to_string()]).output().context("running ping")?;
    Ok(output.status.success())
}

/// Sends one datagram from the phone.
fn send(site: &Site, to: SocketAddr, bytes: &[u8]) -> Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let sent = site.phone.enter(|| UdpSocket::bind((any, 0))?.send_to(bytes, to))?;
    sent.map(drop).context("sending a datagram")
}

fn datagram(socket: &UdpSocket, patience: Duration) -> Result<Option<Vec<u8>>> {
    let mut bytes = [0; 2048];
    socket.set_read_timeout(Some(patience)).context("setting a timeout")?;
    Ok(uninterrupted(|| socket.recv(&mut bytes)).ok().map(|count| bytes[..count].to_vec()))
}

/// Blocks `source`, in which `phone` lies, and expects that nothing of it arrives until it is unblocked.
fn block_and_unblock(site: &Site, source: &str, pbx: IpAddr, reason: Reason) -> Result<()> {
    let guard = &site.guard;
    let servers = [5060, 22].map(|port| Server::listen(&site.pbx, (pbx, port).into()));
    let [sip_server, ssh_server] = servers;
    let connections = [sip_server?.connect(&site.phone)?, ssh_server?.connect(&site.phone)?];
    let udp = udp(&site.pbx, sip(pbx))?;
    let hello = register(1);
    for (phone, application) in &connections {
        phone.write(&hello)?;
        expect_same(&application.wait_for(hello.len())?, &hello)?;
    }
    send(site, sip(pbx), b"before")?;
    ensure!(datagram(&udp, PATIENCE)?.as_deref() == Some(b"before"), "UDP did not pass before the block");
    ensure!(answers_ping(site, pbx)?, "ICMP did not pass before the block");

    let output = guard.run(&["block", source])?.expect(0)?;
    ensure!(output.stdout.contains("blocked 1 source permanently"), "it said {:?}", output.stdout);
    let stopped = |more: u64| {
        let before = guard.counted(reason)?;
        wait_until("the packets are counted as blocked", || Ok(guard.counted(reason)? >= before + more))
    };
    for (phone, _) in &connections {
        phone.write(&hello)?;
    }
    // The segments and at least one retransmission of each.
    stopped(2)?;
    let before = guard.counted(reason)?;
    send(site, sip(pbx), b"during")?;
    wait_until("the datagram is counted as blocked", || Ok(guard.counted(reason)? > before))?;
    ensure!(!answers_ping(site, pbx)?, "ICMP passed in spite of the block");
    for (_, application) in &connections {
        expect_same(&application.bytes(), &hello)?;
    }
    ensure!(datagram(&udp, Duration::from_millis(50))?.is_none(), "UDP passed in spite of the block");

    guard.run(&["unblock", source])?.expect(0)?;
    // What TCP has kept arrives now; the datagram of the blocked time is lost.
    let both = [&hello[..], &hello].concat();
    for (_, application) in &connections {
        expect_same(&application.wait_for(both.len())?, &both)?;
    }
    send(site, sip(pbx), b"after")?;
    ensure!(datagram(&udp, PATIENCE)?.as_deref() == Some(b"after"), "UDP does not pass after the block");
    wait_until("ICMP passes after the block", || answers_ping(site, pbx))
}

#[test]
fn a_blocked_host_is_silent_in_every_protocol() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    for (pbx, phone) in Site::PBX.into_iter().zip(Site::PHONE) {
        block_and_unblock(&site, &phone.to_string(), pbx, Reason::BlockedHost).context(phone)?;
    }
    Ok(())
}

#[test]
fn a_blocked_prefix_is_silent_in_every_protocol() -> Result<()> {
    let site = Site::guarded(false, &[])?;
    for (pbx, prefix) in Site::PBX.into_iter().zip(PREFIXES) {
        block_and_unblock(&site, prefix, pbx, Reason::BlockedPrefix).context(prefix)?;
    }
    Ok(())
}

#[test]
fn a_block_for_seconds_ends_by_itself() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    for (pbx, sources) in Site::PBX.into_iter().zip([["10.77.0.2", PREFIXES[0]], ["fd77::2", PREFIXES[1]]]) {
        let server = Server::listen(&site.pbx, sip(pbx))?;
        let (phone, application) = server.connect(&site.phone)?;
        let before = site.guard.counted(Reason::BlockedHost)?;
        let mut sent = Vec::new();
        while_it_lasts(|seconds| {
            site.guard.run(&[&["block", "--for", &seconds.to_string()], &sources[..]].concat())?.expect(0)?;
            sent.extend(register(1));
            phone.write(&register(1))
        })?;
        // Nobody does anything from here on: the kernel itself lets the block end.
        expect_same(&application.wait_for(sent.len())?, &sent)?;
        ensure!(
            site.guard.counted(Reason::BlockedHost)? > before,
            "nothing was stopped while the block held"
        );
        ensure!(site.guard.rules()?.is_empty(), "a block that has ended is listed");
    }
    Ok(())
}

#[test]
fn a_short_block_that_has_ended_leaves_the_wider_one() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    site.phone.add_address(Site::INTERFACE, "10.99.0.5/24")?;
    site.phone.add_address(Site::INTERFACE, "fd99::5/64")?;
    site.pbx.add_route("10.99.0.0/24", "10.77.0.2")?;
    site.pbx.add_route("fd99::/64", "fd77::2")?;
    for (wide, narrow, from, pbx) in [
        ("10.99.0.0/24", "10.99.0.0/25", "10.99.0.5", "10.77.0.1"),
        ("fd99::/64", "fd99::/65", "fd99::5", "fd77::1"),
    ] {
        let guard = &site.guard;
        let ping = || {
            let mut ping = site.phone.command("ping");
            let output =
                ping.args(["-c", "1", "-W", "1", "-I", from, pbx]).output().context("running ping")?;
            Ok(output.status.success())
        };
        wait_until("the other address is answered", ping)?;
        guard.run(&["block", wide])?.expect(0)?;
        guard.run(&["block", "--for", "1s", narrow])?.expect(0)?;
        let decides = |prefix: &str| Ok(guard.json(&["lookup", from])?["rule"]["target"] == prefix);
        wait_until("the short block ends", || decides(wide))?;
        let before = number(&guard.json(&["lookup", from])?["rule"], "packets")?;
        ensure!(!ping()?, "the end of {narrow} opened a hole in {wide}");
        ensure!(number(&guard.json(&["lookup", from])?["rule"], "packets")? > before, "{wide} did not count");
        ensure!(guard.rules()?.iter().all(|row| row["target"] != narrow), "{narrow} is listed");
        guard.run(&["unblock", wide])?.expect(0)?;
        wait_until("the other address is answered again", ping)?;
    }
    Ok(())
}

#[test]
fn a_block_of_what_is_blocked_changes_nothing_and_says_so() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7", "2001:db8::/32"])?.expect(0)?;
    let list = || -> Result<Vec<Value>> {
        let mut rows = guard.rules()?;
        // As exact as the translation between two clocks.
        rows.iter_mut().for_each(|row| drop(row["created_at"].take()));
        Ok(rows)
    };
    let listed = list()?;
    let output = guard.run(&["block", "192.0.2.7", "2001:db8::/32"])?.expect(0)?;
    ensure!(output.stdout.contains("nothing changed"), "it said {:?}", output.stdout);
    ensure!(output.stdout.contains("2 sources blocked"), "it said {:?}", output.stdout);
    let change = guard.json(&["block", "192.0.2.7"])?;
    ensure!(change["added"] == 0 && change["unchanged"] == 1, "it said {change}");
    ensure!(list()? == listed, "the list changed");
    let output = guard.run(&["unblock", "192.0.2.8"])?.expect(0)?;
    ensure!(output.stdout.contains("nothing changed"), "it said {:?}", output.stdout);
    let change = guard.json(&["unblock", "192.0.2.8"])?;
    ensure!(change["removed"] == 0 && change["unchanged"] == 1, "it said {change}");
    Ok(())
}

#[test]
fn ten_thousand_addresses_from_standard_input() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let mut input = String::from("# a list with comments, empty lines and several to a line\n\n");
    for number in 0..10_000 {
        let (high, low) = (number / 250, number % 250);
        let address =
            if number % 2 == 0 { format!("198.18.{high}.{low}") } else { format!("2001:db8::{number:x}") };
        input += &address;
        input += if number % 3 == 0 { " " } else { " # why\n" };
    }
    let change = guard.run_with_input(&["block", "-"], &input)?.expect(0)?;
    ensure!(change.stdout.contains("blocked 10000 sources"), "it said {}", change.stdout);
    ensure!(guard.rules()?.len() == 10_000, "not all of them are listed");
    ensure!(guard.json(&["lookup", "198.18.39.248"])?["verdict"] == "block", "the last IPv4 one is missing");
    ensure!(guard.json(&["lookup", "2001:db8::270f"])?["verdict"] == "block", "the last IPv6 one is missing");
    guard.run(&["unblock", "--all"])?.expect(0)?;
    ensure!(guard.rules()?.is_empty(), "`unblock --all` left some");
    Ok(())
}

#[test]
fn a_mistake_in_standard_input_blocks_nothing_and_names_its_line() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    for mistake in
        ["2001:db8::5:5060", "192.0.2.300", "192.0.2.0/33", "192.0.2.1/24", "pbx.example.net", "::1::"]
    {
        let input = format!("192.0.2.1\n192.0.2.2 # good\n{mistake}\n192.0.2.4\n");
        let output = site.guard.run_with_input(&["block", "-"], &input)?.expect(2)?;
        let named = output.stderr.contains("line 3") && output.stderr.contains(mistake);
        ensure!(named && output.stdout.is_empty(), "it said {output:?}");
        ensure!(site.guard.rules()?.is_empty(), "something was blocked in spite of {mistake}");
    }
    Ok(())
}

#[test]
fn an_own_address_needs_force() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    site.pbx.add_route("default", "10.77.0.2")?;
    for (source, why) in [
        ("10.77.0.1", "own address"),
        ("fd77::/64", "own address"),
        ("10.77.0.2", "gateway"),
        ("0.0.0.0/0", "nothing was blocked"),
        ("::ffff:0:0/96", "nothing was blocked"),
        ("::ffff:0:0/97", "nothing was blocked"),
        ("::ffff:10.77.0.0/120", "nothing was blocked"),
        ("::ffff:10.77.0.1/128", "own address"),
        ("::ffff:10.77.0.2/127", "gateway"),
    ] {
        let Output { stdout, stderr, .. } = guard.run(&["block", "192.0.2.7", source])?.expect(1)?;
        ensure!(
            stdout.is_empty() && stderr.contains(why) && stderr.contains("--force"),
            "{source}: {stderr}"
        );
        ensure!(guard.rules()?.is_empty(), "something was blocked in spite of {source}");
    }
    guard.run(&["block", "--force", "10.77.0.1"])?.expect(0)?;
    ensure!(guard.rules()?.len() == 1, "--force did not block it");
    Ok(())
}

#[test]
fn what_is_hardly_meant_needs_force() -> Result<()> {
    let site = Site::guarded(true, &["--port", "5060,5070"])?;
    let guard = &site.guard;
    for (source, status, hint) in [
        ("2001:db8::5:5060", 2, "[2001:db8::5]:5060"),
        ("2001:db8::5:5070", 2, "[2001:db8::5]:5070"),
        ("198.0.0.0/7", 1, "shorter than /8"),
        ("2000::/15", 1, "shorter than /16"),
    ] {
        let said = guard.run(&["block", "192.0.2.7", source])?.expect(status)?;
        ensure!(said.stderr.contains(hint) && said.stderr.contains("--force"), "{source}: it said {said:?}");
        ensure!(guard.rules()?.is_empty(), "something was blocked in spite of {source}");
        guard.run(&["block", "--force", source])?.expect(0)?;
        ensure!(guard.rules()?[0]["target"] == source, "--force did not block {source}");
        guard.run(&["unblock", source])?.expect(0)?;
    }
    // A program writes what it has seen.
    for words in [&["2001:db8::5:5060", "--origin", "fail2ban"][..], &["2001:db8::5:5060/128"]] {
        guard.run(&[&["block"], words].concat())?.expect(0)?;
        guard.run(&["unblock", "2001:db8::5:5060"])?.expect(0)?;
    }
    guard.run(&["block", "2001:db8::5:5071", "[2001:db8::5]:5060", "198.0.0.0/8"])?.expect(0)?;
    ensure!(guard.rules()?.len() == 3, "{:?}", guard.rows(&["list"])?);
    Ok(())
}

#[test]
fn ipv4_that_is_written_as_ipv6_is_ipv4() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "::ffff:10.77.0.2/127"])?.expect(0)?;
    ensure!(!answers_ping(&site, Site::PBX[0])?, "the block does not hold");
    ensure!(answers_ping(&site, Site::PBX[1])?, "the block is of IPv6 as well");
    for address in ["10.77.0.2", "::ffff:10.77.0.2", "[::ffff:10.77.0.2]:5060"] {
        let found = guard.json(&["lookup", address])?;
        ensure!(found["src_ip"] == "10.77.0.2", "{address}: it said {found}");
        ensure!(found["rule"]["target"] == "10.77.0.2/31", "{address}: it said {found}");
    }
    guard.run(&["allow", "::ffff:a4d:2/128"])?.expect(0)?;
    ensure!(answers_ping(&site, Site::PBX[0])?, "the allowance does not hold");
    ensure!(guard.json(&["unallow", "10.77.0.2"])?["removed"] == 1, "the allowance has another form");
    ensure!(guard.json(&["unblock", "10.77.0.2/31"])?["removed"] == 1, "the block has another form");
    guard.run(&["trunk", "add", "carrier", "--peer", "::ffff:10.77.0.0/120"])?.expect(0)?;
    let shown = guard.json(&["trunk", "show", "carrier"])?;
    ensure!(shown["peers"][0] == "10.77.0.0/24", "it said {shown}");
    ensure!(guard.json(&["lookup", "10.77.0.2"])?["trunk"] == "carrier", "it is no trunk's");
    guard.run(&["trunk", "remove", "carrier"])?.expect(0)?;
    // All of IPv6, and nothing of IPv4.
    guard.run(&["block", "--force", "::/0"])?.expect(0)?;
    ensure!(answers_ping(&site, Site::PBX[0])?, "::/0 stops IPv4");
    ensure!(guard.json(&["lookup", "10.77.0.2"])?["verdict"] == "pass", "`lookup` says that ::/0 stops IPv4");
    ensure!(guard.json(&["lookup", "2001:db8::1"])?["verdict"] == "block", "::/0 does not stop IPv6");
    Ok(())
}

#[test]
fn lookup_names_the_prefix_that_decides_and_its_packets() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let pass = guard.json(&["lookup", "10.77.0.2:5060"])?;
    ensure!(pass["verdict"] == "pass" && pass["rule"].is_null(), "it said {pass}");
    guard.run(&["block", "--force", "10.0.0.0/8", "10.77.0.0/16", "10.77.0.2/31", "10.77.9.9"])?.expect(0)?;
    ensure!(!answers_ping(&site, Site::PBX[0])?, "the block does not hold");
    let found = guard.json(&["lookup", "10.77.0.2:5060"])?;
    ensure!(found["verdict"] == "block" && found["rule"]["target"] == "10.77.0.2/31", "it said {found}");
    ensure!(
        number(&found["rule"], "packets")? >= 1 && number(&found["rule"], "bytes")? >= 98,
        "it said {found}"
    );
    for (address, rule) in
        [("10.77.9.9", "10.77.9.9"), ("10.77.9.8", "10.77.0.0/16"), ("10.1.2.3", "10.0.0.0/8")]
    {
        let found = guard.json(&["lookup", address])?;
        ensure!(found["rule"]["target"] == rule && found["rule"]["packets"] == 0, "it said {found}");
    }
    let output = guard.run(&["lookup", "10.77.0.2"])?.expect(0)?;
    ensure!(output.stdout.contains("blocked by 10.77.0.2/31"), "it said {:?}", output.stdout);
    Ok(())
}

#[test]
fn ban_unban_and_ls_are_other_names() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["ban", "192.0.2.7"])?.expect(0)?;
    for verb in ["ls", "list"] {
        let listed = guard.rows(&[verb])?;
        ensure!(listed.len() == 1 && listed[0]["target"] == "192.0.2.7", "{verb}: listed is {listed:?}");
    }
    guard.run(&["unban", "192.0.2.7"])?.expect(0)?;
    ensure!(guard.rows(&["ls"])?.is_empty(), "`unban` did not lift the block");
    Ok(())
}
