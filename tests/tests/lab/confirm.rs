//! `attach --confirm`: what nobody confirms is taken back as a whole, and what others did meanwhile stays.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site},
    netns::veth,
    process::{Running, output},
    scratch::Scratch,
};

/// Every setting that differs from those of a guard that was attached without options.
const OTHERS: &[&str] = &[
    "--port",
    "5070,5080",
    "--tls-port",
    "5071",
    "--monitor",
    "--on-malformed",
    "drop",
    "--profile",
    "strict",
    "--check",
    "line-bytes=8192",
    "--refuse-lf",
];

/// What a configuration file may set.
const CONFIGURATION: &str = "[limits]\nregister = \"7/s\"\ninvite = \"300/s burst 3000 monitor\"\nopen = \"70 monitor\"\n[checks]\nbad-number = \"monitor\"\n[bans]\nafter = 7\n[block]\nuser-agents = [\"scan\"]\n\
    [deny]\ndevices = [\"options\"]\n[trunks.carrier]\npeers = [\"198.51.100.0/28\"]\nmethods = [\"OPTIONS\"]\n\
    [trunks.other]\npeers = [\"203.0.113.0/24\"]\nlimits.packets = \"9/s\"\n";

/// Settings and ports as the kernel has them.
fn settings(guard: &Guard) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for map in ["SETTINGS", "PORTS"] {
        let path = guard.pins().join("maps").join(map);
        let dump = output(Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&path))?;
        let mut rows: Value = serde_json::from_str(&dump).context("bpftool printed no JSON")?;
        rows.as_array_mut().into_iter().flatten().for_each(|row| drop(row["formatted"].take()));
        all.push(rows);
    }
    Ok(all)
}

/// All that the store says, but for the log.
fn rules(guard: &Guard) -> Result<Vec<Value>> {
    let words = ["list", "trunk list", "limit list", "checks list", "deny", "bans"];
    words.iter().map(|words| guard.json(&words.split(' ').collect::<Vec<_>>())).collect()
}

fn start(guard: &Guard, words: &[&str]) -> Result<Running> {
    let mut command = guard.command(words);
    Running::start("sipguard", command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Ends it with a signal, and expects that it took that for no confirmation.
fn end(mut running: Running, signal: Signal) -> Result<()> {
    running.signal(signal)?;
    wait_until("it takes back what it did", || Ok(running.try_wait()?.is_some()))?;
    let status = running.try_wait()?.and_then(|status| status.code());
    ensure!(status == Some(1), "{signal}: it ended with {status:?}");
    Ok(())
}

#[test]
fn every_setting_is_taken_back() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    veth(&site.pbx, "eth1", "10.78.0.1/24", &site.phone, "eth1", "10.78.0.2/24", true)?;
    let guard = &site.guard;
    let before = settings(guard)?;
    for interfaces in [&["eth0"][..], &["eth0", "eth1"]] {
        let words = [&["attach", "--confirm", "60s"], interfaces, OTHERS].concat();
        // The end of input is what a cut connection looks like.
        let said = guard.run(&words)?.expect(1)?;
        ensure!(said.stderr.contains("the settings are as before"), "it said {said:?}");
        ensure!(
            said.stderr.contains("detached again from eth1") == (interfaces.len() == 2),
            "it said {said:?}"
        );
        ensure!(settings(guard)? == before, "{interfaces:?}: {before:?} became {:?}", settings(guard)?);
    }
    let attached = guard.json(&["status"])?["interfaces"].as_array().map(Vec::len);
    ensure!(attached == Some(1), "{attached:?} interfaces are attached");
    let said = guard.run(&["attach", "--confirm", "60s", "eth0"])?.expect(1)?;
    ensure!(said.stderr.contains("not confirmed: nothing had changed"), "it said {said:?}");
    guard.run_with_input(&[&["attach", "--confirm", "60s", "eth0"], OTHERS].concat(), "\n")?.expect(0)?;
    ensure!(guard.json(&["status"])?["ports"] == serde_json::json!([5070, 5080]), "Enter did not keep it");
    Ok(())
}

#[test]
fn a_signal_confirms_nothing() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let before = settings(guard)?;
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let attaching = start(guard, &[&["attach", "--confirm", "60s", "eth0"], OTHERS].concat())?;
        wait_until("the settings change", || Ok(settings(guard)? != before))?;
        end(attaching, signal)?;
        ensure!(settings(guard)? == before, "{signal}: the settings are not as before");
    }
    Ok(())
}

#[test]
fn what_others_did_meanwhile_stays() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let attaching =
        start(guard, &["attach", "--confirm", "60s", "eth0", "--port", "5070", "--on-malformed", "drop"])?;
    wait_until("the ports change", || Ok(guard.json(&["status"])?["ports"][0] == 5070))?;
    guard.run(&["mode", "monitor"])?.expect(0)?;
    guard.run(&["block", "192.0.2.7"])?.expect(0)?;
    end(attaching, Signal::SIGTERM)?;
    let status = guard.json(&["status"])?;
    ensure!(status["ports"][0] == 5060 && status["on_malformed"] == "reset", "not taken back: {status}");
    ensure!(status["mode"] == "monitor", "the mode of another command was taken back");
    ensure!(guard.rules()?.len() == 1, "the block of another command was taken back");
    Ok(())
}

#[test]
fn what_the_configuration_file_sets_at_a_first_attach_is_taken_back() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let scratch = Scratch::new("confirm")?;
    let file = scratch.write("sipguard.toml", CONFIGURATION)?;
    let file = file.to_string_lossy();
    let attach = ["attach", "--confirm", "60s", "eth0", "--config", &*file];
    // Into a new store, and over what commands have set.
    for commands in [
        &["unblock 192.0.2.7"][..],
        &[
            "trunk add carrier --peer 198.51.100.0/28 --comment main",
            "limit set --of register 20/s",
            "block --user-agent scan",
        ],
    ] {
        for words in commands {
            guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?;
        }
        let before = rules(guard)?;
        let attaching = start(guard, &attach)?;
        wait_until("the rules change", || Ok(rules(guard)? != before))?;
        guard.run(&["deny", "tcp", "--from", "trunks"])?.expect(0)?;
        end(attaching, Signal::SIGHUP)?;
        ensure!(!guard.pins().exists(), "it is attached still");
        guard.run(&["permit", "tcp", "--from", "trunks"])?.expect(0)?;
        let after = rules(guard)?;
        for (before, after) in before.iter().zip(&after) {
            ensure!(before == after, "{before:#} became {after:#}");
        }
    }
    guard.run_with_input(&attach, "\n")?.expect(0)?;
    ensure!(guard.rows(&["trunk", "list"])?.len() == 2, "Enter did not keep it");
    Ok(())
}

#[test]
fn an_attach_that_fails_half_way_changes_no_setting() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let before = settings(&site.guard)?;
    // The loopback device runs no XDP natively.
    let words = ["attach", "eth0", "lo", "--xdp-mode", "native", "--port", "5070", "--monitor"];
    let said = site.guard.run(&words)?.expect(5)?;
    ensure!(said.stderr.contains("lo "), "it said {said:?}");
    ensure!(settings(&site.guard)? == before, "the settings changed");
    Ok(())
}
