//! Blocks of what requests say of themselves, SIP identity and User-Agent, by command.

use std::net::UdpSocket;

use anyhow::{Context as _, Result, ensure};
use sipguard_common::{Reason, abi::rules_in_use};
use sipguard_core::{maps, pins::Pins};
use sipguard_tests::{
    application::{PATIENCE, Server, expect_same, sip, udp, uninterrupted},
    guard::{Guard, Site, number},
    message::{bent, register},
};

fn run(guard: &Guard, words: &[&str]) -> Result<String> {
    Ok(guard.run(words)?.expect(0)?.stdout)
}

fn in_use(guard: &Guard) -> Result<u32> {
    let kinds = rules_in_use::IDENTITIES | rules_in_use::USER_AGENTS;
    Ok(maps::settings(&Pins::new(guard.pins()))?.rules & kinds)
}

/// An OPTIONS with a User-Agent.
fn options(agent: &str) -> Vec<u8> {
    format!(
        "OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nFrom: <sip:100@h>;tag=1\r\nTo: <sip:100@h>\r\nCall-ID: c\r\n\
         CSeq: 1 OPTIONS\r\nUser-Agent: {agent}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The connection of a phone is reset before its message gets to the PBX.
fn expect_reset(site: &Site, message: &[u8]) -> Result<()> {
    for pbx in Site::PBX {
        let (phone, application) = Server::listen(&site.pbx, sip(pbx))?.connect(&site.phone)?;
        phone.offer(message)?;
        application.wait_for_end()?;
        ensure!(application.bytes().is_empty(), "it reached the PBX by {pbx}");
    }
    Ok(())
}

/// Messages of a phone arrive over TCP, from the addresses of those that are reset.
fn expect_arrival(site: &Site, message: &[u8]) -> Result<()> {
    for pbx in Site::PBX {
        let (phone, application) = Server::listen(&site.pbx, sip(pbx))?.connect(&site.phone)?;
        phone.write(message)?;
        expect_same(&application.wait_for(message.len())?, message)?;
    }
    Ok(())
}

/// Of two datagrams from one socket the first does not arrive, the second does.
fn expect_second_datagram(site: &Site, first: &[u8], second: &[u8]) -> Result<()> {
    let [pbx, _] = Site::PBX;
    let server = udp(&site.pbx, sip(pbx))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for message in [first, second] {
        site.phone.enter(|| phone.send_to(message, sip(pbx)))??;
    }
    let mut bytes = [0; 2048];
    let count = uninterrupted(|| server.recv(&mut bytes)).context("the second did not arrive")?;
    expect_same(&bytes[..count], second)
}

#[test]
fn a_scanner_is_stopped_and_other_user_agents_of_its_address_go_on() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    ensure!(in_use(guard)? == 0, "the kernel looks for rules that there are not");
    let said =
        run(guard, &["block", "--user-agent", "Friendly-Scanner", "--comment", "scans", "--for", "1h"])?;
    ensure!(said == "blocked 1 source for 1h\n", "it said {said}");
    let (scan, phone) = (options("friendly-scanner"), options("Yealink SIP-T46S"));
    expect_reset(&site, &scan)?;
    expect_arrival(&site, &phone)?;
    expect_second_datagram(&site, &scan, &phone)?;
    let found = guard.json(&["lookup", "--user-agent", "friendly-scanner/1.0"])?;
    ensure!(
        found["verdict"] == "block" && found["rule"]["target"] == "user-agent:friendly-scanner",
        "{found}"
    );
    ensure!(found["rule"]["comment"] == "scans" && number(&found["rule"], "packets")? == 3, "{found}");
    ensure!(guard.counted(Reason::BlockedUserAgent)? >= 3, "{:?}", guard.counters()?);
    println!("{}", run(guard, &["lookup", "--user-agent", "friendly-scanner/1.0"])?);
    ensure!(guard.json(&["lookup", "--user-agent", "friendly"])?["verdict"] == "pass");
    run(guard, &["unblock", "--user-agent", "friendly-scanner"])?;
    ensure!(in_use(guard)? == 0, "the kernel looks for what is gone");
    expect_arrival(&site, &scan)
}

#[test]
fn a_device_is_blocked_by_its_identity_and_its_neighbours_go_on() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, &["block", "sips:Desk@SIPGUARD.test", "--monitor"])?;
    run(guard, &["block", "sip:desk@sipguard.test"])?;
    let (errant, other) = (register(1), bent(&register(1), "From: <sip:desk@", "From: <sip:hall@"));
    expect_reset(&site, &errant)?;
    expect_arrival(&site, &other)?;
    expect_second_datagram(&site, &errant, &other)?;
    let found = guard.json(&["lookup", "sip:desk@Sipguard.test"])?;
    ensure!(found["verdict"] == "block" && number(&found["rule"], "packets")? == 3, "{found}");
    let found = guard.json(&["lookup", "sip:Desk@sipguard.test"])?;
    ensure!(found["verdict"] == "pass" && found["rule"]["mode"] == "monitor", "{found}");
    println!("{}", run(guard, &["lookup", "sip:desk@sipguard.test"])?);
    // A trunk may say that it is anybody.
    run(guard, &["trunk", "add", "carrier", "--peer", "10.77.0.2"])?;
    let (phone, application) = Server::listen(&site.pbx, sip(Site::PBX[0]))?.connect(&site.phone)?;
    phone.write(&errant)?;
    expect_same(&application.wait_for(errant.len())?, &errant)
}

#[test]
fn the_longest_beginning_of_a_user_agent_decides() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, &["block", "--user-agent", "scan", "--user-agent", "scanner"])?;
    run(guard, &["block", "--user-agent", "scanner x", "--monitor"])?;
    for (agent, verdict, decides, overruled) in [
        ("Scanner X/1", "pass", "user-agent:scanner x", 2),
        ("scanner/1", "block", "user-agent:scanner", 1),
        ("scans", "block", "user-agent:scan", 0),
    ] {
        let found = guard.json(&["lookup", "--user-agent", agent])?;
        ensure!(found["verdict"] == verdict && found["rule"]["target"] == decides, "{agent}: {found}");
        let others = found["overruled"].as_array().context("a list")?;
        ensure!(others.len() == overruled, "{agent}: {found}");
        ensure!(others.iter().all(|one| one["why"] == "a longer beginning decides"), "{agent}: {found}");
    }
    Ok(())
}

#[test]
fn what_would_stop_too_many_is_refused() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    for (words, status, says) in [
        (&["block", "--user-agent", "ab"][..], 2, "the first 3 to 48 bytes of it are wanted"),
        (&["block", "--user-agent", "Aster"], 1, "would stop every user agent of the family asterisk"),
        (&["block", "user-agent:yealink"], 1, "would stop every user agent of the family yealink"),
        (&["block", "sip:1234@pbx:5060"], 2, "without port, password and parameters"),
        (&["allow", "sip:1234@pbx"], 2, "`allow` takes addresses and prefixes"),
        (&["lookup", "sip:pbx"], 2, "is no SIP identity"),
    ] {
        let run = guard.run(words)?.expect(status)?;
        ensure!(run.stderr.contains(says), "{words:?}: it said {run:?}");
        ensure!(guard.rules()?.is_empty(), "{words:?}: a rule was set");
    }
    run(guard, &["block", "--user-agent", "Asterisk PBX 1.8"])?;
    run(guard, &["block", "--user-agent", "asterisk", "--force"])?;
    let said =
        guard.run_with_input(&["import", "-"], "user-agent:polycom\nuser-agent:pplsip\n")?.expect(0)?;
    ensure!(
        said.stdout == "added 1 rule\n" && said.stderr.contains("family polycom and was skipped"),
        "{said:?}"
    );
    Ok(())
}

#[test]
fn claims_come_back_with_the_attach_and_go_with_lists() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, &["block", "sip:1,2@pbx.example", "sip:7@[2001:db8::7]", "--origin", "watch", "--for", "1h"])?;
    run(guard, &["block", "--user-agent", "Evil, \"scanner\" x", "192.0.2.7"])?;
    let before = guard.rules()?;
    let told: Vec<_> = before.iter().map(|row| row["target"].as_str().unwrap_or_default()).collect();
    let expected =
        ["192.0.2.7", "sip:1,2@pbx.example", "sip:7@[2001:db8::7]", "user-agent:evil, \"scanner\" x"];
    ensure!(told == expected, "listed is {told:?}");
    ensure!(before.iter().all(|row| row["in_force"] == true), "{before:?}");
    let both = rules_in_use::IDENTITIES | rules_in_use::USER_AGENTS;
    run(guard, &["detach", "--all"])?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(guard.rules()? == before && in_use(guard)? == both, "it did not come back");
    for form in ["json", "csv", "txt"] {
        let list = run(guard, &["export", "--format", form])?;
        run(guard, &["unblock", "--all"])?;
        ensure!(guard.rules()?.is_empty() && in_use(guard)? == 0, "something was left");
        let said = guard.run_with_input(&["import", "-", "--format", form], &list)?.expect(0)?;
        ensure!(said.stdout == "added 4 rules\n", "{form}: it said {said:?}");
        let rows = guard.rules()?;
        let again: Vec<_> = rows.iter().map(|row| row["target"].as_str().unwrap_or_default()).collect();
        ensure!(again == expected && in_use(guard)? == both, "{form}: taken back is {again:?}");
    }
    let set = run(guard, &["export", "--format", "ipset"])?;
    ensure!(set.contains("192.0.2.7") && !set.contains("sip:"), "ipset has no place for it: {set}");
    let log = guard.rows(&["log"])?;
    ensure!(log.iter().any(|row| row["what"] == "sip:1,2@pbx.example sip:7@[2001:db8::7]"), "{log:?}");
    // Found in the kernel when the store is gone.
    std::fs::remove_file(guard.store())?;
    run(guard, &["unblock", "192.0.2.7"])?;
    let rows = guard.rules()?;
    let again: Vec<_> = rows.iter().map(|row| row["target"].as_str().unwrap_or_default()).collect();
    ensure!(again == expected[1..], "recovered is {again:?}");
    Ok(())
}
