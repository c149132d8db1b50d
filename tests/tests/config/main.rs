//! The configuration file: what is wrong with it is told, all of it, and a reload is whole or not at all.

mod reload;

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard::{
    claim::SCANNERS,
    maps::{self, Ports},
    pins::Pins,
    policy::{Policy, PolicyMaps},
    settings::EffectiveSettings,
};
use sipguard_common::abi::BanPolicy;
use sipguard_tests::{
    guard::{Guard, Output, Site, neighbour, text},
    rules::reboot,
    scratch::Scratch,
};

/// The configurations that are wrong, by name.
fn broken() -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("configurations");
    let mut paths =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    ensure!(paths.len() >= 20, "only {} configurations", paths.len());
    Ok(paths)
}

/// `sipguard` without privileges in mind: nothing is attached, and the store is not touched.
fn said(words: &[&str]) -> Result<Output> {
    let out = Command::new(neighbour("SIPGUARD", "sipguard")?)
        .args(words)
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-config-test")
        .env("SIPGUARD_STORE", "/nonexistent/rules.db")
        .env_remove("SIPGUARD_CONFIG")
        .stdin(Stdio::null())
        .output()?;
    let [stdout, stderr] = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Output { status: out.status.code().context("an exit status")?, stdout, stderr })
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// What `check` says of a file, its directory left out.
fn judged(path: &Path) -> Result<String> {
    let Output { status, stdout, stderr } = said(&["check", "--config", shown(path)])?;
    let directory = path.parent().unwrap_or(path);
    Ok(format!("{stdout}{stderr}exit status {status}\n").replace(&format!("{}/", shown(directory)), ""))
}

#[test]
fn mistakes_are_named_with_their_places() -> Result<()> {
    let mut text = String::new();
    for path in broken()? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        writeln!(text, "## {name}\n{}", judged(&path)?)?;
    }
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn mistakes_of_files() -> Result<()> {
    let scratch = Scratch::new("config")?;
    fs::create_dir(scratch.join("conf.d"))?;
    let main = scratch
        .write("main.toml", "[guard]\nmode = \"monitor\"\n[trunks.carrier]\npeers = [\"192.0.2.1\"]\n")?;
    let mut text = String::new();
    let mut say = |what: &str| {
        writeln!(text, "## {what}\n{}", judged(&main)?)?;
        anyhow::Ok(())
    };
    scratch.write(
        "conf.d/20.toml",
        "[guard]\nmode = \"enforce\"\n[trunks.carrier.limits]\ninvite = \"5/s\"\n",
    )?;
    scratch.write("conf.d/10.toml", "\u{feff}[guard]\nports = [5060]\n[checks]\nline-bytes = 1\n")?;
    scratch.write("conf.d/30.toml", "guard = 7\n[trunks.other]\npeers = [\"192.0.2.1\"]\n")?;
    say("one thing said twice, in several files")?;
    for name in ["10", "20", "30"] {
        fs::remove_file(scratch.join(&format!("conf.d/{name}.toml")))?;
    }
    // Left alone: another end, and a hidden file of an editor.
    for name in ["conf.d/10.toml~", "conf.d/.20.toml.swp", "conf.d/30.conf"] {
        scratch.write(name, "no configuration")?;
    }
    say("names that do not end in .toml")?;
    fs::set_permissions(&main, fs::Permissions::from_mode(0o666))?;
    say("everybody may write")?;
    fs::set_permissions(&main, fs::Permissions::from_mode(0o600))?;
    fs::write(&main, b"[guard]\nmode = \"\xff\"\n")?;
    say("not UTF-8")?;
    fs::write(&main, "# all comment\n".repeat(80_000))?;
    say("too large")?;
    let mut many = String::new();
    for number in 0..256 {
        write!(many, "[trunks.t{number:03}]\npeers = [\"10.9.{number}.1\"]\n")?;
    }
    fs::write(&main, many)?;
    say("more trunks than there is room for")?;
    fs::write(
        &main,
        "[trunks.carrier]\npeers = [\"192.0.2.1\"]\nmethods = [\"INVITE\"]\n[serve]\nhomer-id = 7\n[crash]\nquarantine = \"10m\"\n",
    )?;
    say("doubtful")?;
    fs::remove_file(&main)?;
    say("missing")?;
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn the_example_is_the_documentation_and_valid() -> Result<()> {
    let scratch = Scratch::new("config")?;
    let example = said(&["config", "example"])?.expect(0)?.stdout;
    let path = scratch.write("sipguard.toml", &example)?;
    ensure!(judged(&path)? == "sipguard.toml: valid\nexit status 0\n", "{}", judged(&path)?);
    let schema: Value = serde_json::from_str(&said(&["config", "schema"])?.expect(0)?.stdout)?;
    ensure!(schema["properties"]["guard"]["properties"]["flows"]["maximum"] == 4_000_000, "{schema}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/configuration.md");
    if std::env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        fs::write(&docs, sipguard::config::markdown())?;
    }
    ensure!(
        fs::read_to_string(&docs)? == sipguard::config::markdown(),
        "docs/reference/configuration.md is old: SIPGUARD_WRITE_DOCS=1 writes it anew"
    );
    Ok(())
}

#[test]
fn what_is_in_effect_is_shown_with_its_place() -> Result<()> {
    let scratch = Scratch::new("config")?;
    fs::create_dir(scratch.join("conf.d"))?;
    let main = scratch.write(
        "main.toml",
        "[guard]\nprofile = \"strict\"\n[serve]\nhomer = \"192.0.2.9:9060\"\nhomer-password = \"secret\"\n",
    )?;
    scratch.write("conf.d/carrier.toml", "[trunks.carrier]\npeers = [\"192.0.2.1\"]\n")?;
    let shown = said(&["config", "show", "--config", shown(&main)])?.expect(0)?.stdout;
    let directory = format!("{}/", scratch.path().display());
    insta::assert_snapshot!(shown.replace(&directory, ""));
    Ok(())
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
    run(guard, "block --user-agent scan --monitor --source config --for 1h")?;
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

#[test]
fn the_scanners_are_those_of_the_recipe() -> Result<()> {
    let policy =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/incidents.md"))?;
    let toml = format!("user-agents = [{}]", SCANNERS.map(|agent| format!("\"{agent}\"")).join(", "));
    ensure!(
        policy.contains(&SCANNERS.join(" ")) && policy.contains(&toml),
        "docs/guide/incidents.md has others: {toml}"
    );
    ensure!(
        said(&["config", "example"])?.expect(0)?.stdout.contains(&toml),
        "the example has others: {toml}"
    );
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
