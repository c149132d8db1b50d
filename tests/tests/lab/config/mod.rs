//! The configuration file and an attached guard: a reload is whole or not at all.

mod reload;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::abi::BanPolicy;
use sipguard_core::{
    maps::{self, Ports},
    pins::Pins,
    policy::{Policy, PolicyMaps},
    settings::EffectiveSettings,
};
use sipguard_tests::{
    configurations::broken,
    guard::{Guard, Site, text},
    rules::reboot,
    scratch::Scratch,
};

fn shown(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Settings, ports, policy and store of a guard.
fn state(guard: &Guard) -> Result<(EffectiveSettings, Ports, Policy, Vec<u8>)> {
    let pins = Pins::new(guard.pins());
    let policy = PolicyMaps::open(&pins)?.read()?;
    Ok((EffectiveSettings::read(&pins)?, maps::ports(&pins)?, policy, fs::read(guard.store())?))
}

/// Reloads and gives the keys that changed, or would.
fn reload(guard: &Guard, config: &Path, more: &[&str]) -> Result<Vec<String>> {
    let told = guard.json(&[&["reload", "--config", shown(config)], more].concat())?;
    let rows = told["rows"].as_array().context("rows")?;
    rows.iter().map(|row| text(row, "key")).collect()
}

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

#[test]
fn a_broken_file_leaves_what_is_in_force() -> Result<()> {
    let site = Site::guarded(true, &["--port", "5070"])?;
    let guard = &site.guard;
    run(guard, "trunk add carrier --peer 198.51.100.0/28 --transport udp")?;
    run(guard, "limit set --of register 20/s")?;
    run(guard, "deny options --from devices")?;
    run(guard, "block 192.0.2.7")?;
    let before = (state(guard)?, guard.rules()?);
    for path in broken()? {
        let said = guard.run(&["reload", "--config", shown(&path)])?.expect(6)?;
        ensure!(
            said.stdout.is_empty() && said.stderr.contains("nothing was changed"),
            "{}: it said {said:?}",
            path.display()
        );
        ensure!((state(guard)?, guard.rules()?) == before, "{}: something changed", path.display());
    }
    Ok(())
}

/// After how many streams, for how long at first, and after how long a quiet the kernel bans; seconds.
fn bans(guard: &Guard) -> Result<(u32, u64, u64)> {
    let BanPolicy { after, first_ns, quiet_ns, .. } = state(guard)?.2.bans;
    Ok((after, first_ns / 1_000_000_000, quiet_ns / 1_000_000_000))
}

/// Who blocks a user agent, and how; empty when nobody does.
fn blocked(guard: &Guard, agent: &str) -> Result<String> {
    let rows = guard.rows(&["list", "block"])?;
    let of = rows.iter().filter(|row| row["target"] == format!("user-agent:{agent}"));
    Ok(of
        .map(|row| format!("{} {}", row["origin"], row["mode"]))
        .collect::<Vec<_>>()
        .join(", ")
        .replace('"', ""))
}

#[test]
fn user_agents_are_blocked_by_the_file_and_what_it_names_no_more_is_not() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let path =
        scratch.write("sipguard.toml", "[block]\nuser-agents = [\"Evil/1\", \"evil/1\", \"scan\"]\n")?;
    run(guard, "block --user-agent mine")?;
    run(guard, "block --user-agent scan --monitor")?;
    let keys = ["block.user-agents \"evil/1\"", "block.user-agents \"scan\""];
    ensure!(reload(guard, &path, &[])? == keys, "they are not told");
    ensure!(blocked(guard, "evil/1")? == "config enforce", "{}", blocked(guard, "evil/1")?);
    let found = guard.json(&["lookup", "--user-agent", "EVIL/1.2"])?;
    ensure!(found["verdict"] == "block" && found["rule"]["in_force"] == true, "{found}");
    // Both say something about it: what stops comes before what counts.
    ensure!(blocked(guard, "scan")? == "cli monitor, config enforce", "{}", blocked(guard, "scan")?);
    ensure!(guard.json(&["lookup", "--user-agent", "scan"])?["verdict"] == "block", "it only counts");
    ensure!(reload(guard, &path, &[])?.is_empty(), "a second one changed something");
    // What a command has lifted, or changed, is set back.
    run(guard, "unblock --user-agent evil/1")?;
    run(guard, "block --user-agent scan --monitor --origin config --for 1h")?;
    ensure!(reload(guard, &path, &[])? == keys, "it is not set back");
    ensure!(blocked(guard, "scan")? == "cli monitor, config enforce", "{}", blocked(guard, "scan")?);
    // Every way of coming back brings them: a reboot, and a store that is lost.
    reboot(guard)?;
    guard.attach(&[Site::INTERFACE, "--config", shown(&path)])?;
    ensure!(guard.json(&["lookup", "--user-agent", "evil/1"])?["verdict"] == "block", "it did not come back");
    fs::write(&path, "[block]\nuser-agents = [\"evil/1\"]\n")?;
    ensure!(reload(guard, &path, &[])? == keys[1..], "it is not lifted");
    ensure!(blocked(guard, "scan")? == "cli monitor", "{}", blocked(guard, "scan")?);
    fs::write(&path, "")?;
    ensure!(
        reload(guard, &path, &[])? == keys[..1] && blocked(guard, "evil/1")?.is_empty(),
        "it is not lifted"
    );
    ensure!(blocked(guard, "mine")? == "cli enforce", "a command's block is gone");
    Ok(())
}

/// How many connections a source, and each trunk that has a limit of them, may have open.
fn open(guard: &Guard) -> Result<Vec<u32>> {
    let Policy { open, trunks, .. } = state(guard)?.2;
    let limits = [open].into_iter().chain(trunks.iter().map(|trunk| trunk.open));
    Ok(limits.filter(|most| *most != 0).collect())
}

#[test]
fn bans_are_turned_off_and_on_by_the_file() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let path = scratch.write("sipguard.toml", "[bans]\nenabled = false\nafter = 7\n")?;
    ensure!(reload(guard, &path, &[])? == ["bans.enabled"] && bans(guard)?.0 == 0, "{:?}", bans(guard)?);
    ensure!(reload(guard, &path, &[])?.is_empty(), "a second one changed something");
    fs::write(&path, "[bans]\nafter = 7\n")?;
    ensure!(reload(guard, &path, &[])? == ["bans.enabled", "bans.after"], "it is not turned on");
    ensure!(guard.json(&["bans"])?["after"] == 7 && bans(guard)?.0 == 7, "{:?}", bans(guard)?);
    fs::write(&path, "")?;
    ensure!(reload(guard, &path, &[])? == ["bans.after"] && bans(guard)?.0 == 3, "{:?}", bans(guard)?);
    // A file that says nothing of it leaves a command's word.
    run(guard, "bans off")?;
    ensure!(reload(guard, &path, &[])?.is_empty() && bans(guard)?.0 == 0, "{:?}", bans(guard)?);
    Ok(())
}
