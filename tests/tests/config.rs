//! The configuration file: what is wrong with it is told, all of it, and a reload is whole or not at all.

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
    settings::Chosen,
};
use sipguard_common::abi::BanPolicy;
use sipguard_tests::{
    guard::{Guard, Output, Site, neighbour, text},
    process::output,
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
    fs::write(&main, "[trunks.carrier]\npeers = [\"192.0.2.1\"]\nmethods = [\"INVITE\"]\n")?;
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
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        fs::write(&docs, sipguard::config::markdown())?;
    }
    ensure!(
        fs::read_to_string(&docs)? == sipguard::config::markdown(),
        "docs/configuration.md is old: SIPGUARD_WRITE_DOCS=1 writes it anew"
    );
    Ok(())
}

#[test]
fn what_is_in_effect_is_shown_with_its_place() -> Result<()> {
    let scratch = Scratch::new("config")?;
    fs::create_dir(scratch.join("conf.d"))?;
    let main = scratch.write("main.toml", "[guard]\nprofile = \"strict\"\n")?;
    scratch.write("conf.d/carrier.toml", "[trunks.carrier]\npeers = [\"192.0.2.1\"]\n")?;
    let shown = said(&["config", "show", "--config", shown(&main)])?.expect(0)?.stdout;
    let directory = format!("{}/", scratch.path().display());
    insta::assert_snapshot!(shown.replace(&directory, ""));
    Ok(())
}

/// Settings, ports, policy and store of a guard.
fn state(guard: &Guard) -> Result<(Chosen, Ports, Policy, Vec<u8>)> {
    let pins = Pins::new(guard.pins());
    let policy = PolicyMaps::open(&pins)?.read()?;
    Ok((Chosen::read(&pins)?, maps::ports(&pins)?, policy, fs::read(guard.store())?))
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
    let before = (state(guard)?, guard.rows(&["list"])?);
    for path in broken()? {
        let said = guard.run(&["reload", "--config", shown(&path)])?.expect(6)?;
        ensure!(
            said.stdout.is_empty() && said.stderr.contains("nothing was changed"),
            "{}: it said {said:?}",
            path.display()
        );
        ensure!((state(guard)?, guard.rows(&["list"])?) == before, "{}: something changed", path.display());
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
    let of = rows.iter().filter(|row| row["source"] == format!("user-agent:{agent}"));
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
    let policy = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md"))?;
    let toml = format!("user-agents = [{}]", SCANNERS.map(|agent| format!("\"{agent}\"")).join(", "));
    ensure!(
        policy.contains(&SCANNERS.join(" ")) && policy.contains(&toml),
        "docs/policy.md has others: {toml}"
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

const FULL: &str = r#"
[guard]
mode = "monitor"
ports = [5060, 5070]
tls-ports = []
profile = "strict"
refuse-lf = true
on-malformed = "drop"
[checks]
line-bytes = 8192
[limits]
register = "100/s burst 500"
packets = "none"
open = 500
[bans]
after = 5
first = "2m"
[block]
user-agents = ["Evil/1", "sipvicious"]
[deny]
trunks = ["tcp"]
devices = ["options"]
[trunks.carrier]
peers = ["198.51.100.0/28", "2001:db8:7::/48"]
transports = ["udp", "tls"]
reason = "main"
[trunks.carrier.limits]
invite = "50/s"
open = 200
[trunks.spare]
peers = ["203.0.113.9"]
"#;

#[test]
fn a_reload_changes_what_the_file_names_and_no_more() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let path = scratch.write("sipguard.toml", FULL)?;
    run(guard, "trunk add mine --peer 192.0.2.0/24")?;
    run(guard, "limit set --of messages 30/s")?;
    run(guard, "limit set --of packets 1000/s")?;
    run(guard, "deny udp --from devices")?;
    let untouched = state(guard)?;
    let dry = reload(guard, &path, &["--dry-run"])?;
    ensure!(state(guard)? == untouched, "the dry run changed something");
    let changed = reload(guard, &path, &[])?;
    insta::assert_snapshot!(changed.join("\n"));
    ensure!(dry == changed, "the dry run told {dry:?}");
    let status = guard.json(&["status"])?;
    ensure!(
        status["mode"] == "monitor"
            && status["ports"] == serde_json::json!([5060, 5070])
            && status["tls_ports"] == serde_json::json!([]),
        "{status}"
    );
    ensure!(
        status["profile"] == "strict"
            && status["refuse_lf"] == true
            && status["limits"]["line-bytes"] == 8192,
        "{status}"
    );
    let names = |guard: &Guard| {
        guard.rows(&["trunk", "list"])?.iter().map(|row| text(row, "trunk")).collect::<Result<Vec<_>>>()
    };
    ensure!(names(guard)? == ["carrier", "mine", "spare"], "{:?}", names(guard)?);
    ensure!(guard.json(&["lookup", "198.51.100.3"])?["trunk"] == "carrier", "not in force");
    // A second one finds nothing to do.
    let said = run(guard, &format!("reload --config {}", shown(&path)))?;
    ensure!(said == "nothing changes, all is as the configuration says\n", "it said {said}");
    // What a command changed of it is set back.
    let settled = state(guard)?.2;
    run(guard, "mode enforce")?;
    run(guard, "trunk remove spare")?;
    run(guard, "permit options --from devices")?;
    run(guard, "limit set --per trunk carrier --of invite 1/s")?;
    run(guard, "limit set --of open 9")?;
    run(guard, "limit clear --of open --per trunk carrier")?;
    run(guard, "bans set --quiet 2h")?;
    run(guard, "bans off")?;
    let back = reload(guard, &path, &[])?;
    let expected = [
        "trunks.spare",
        "guard.mode",
        "trunks.carrier.limits.invite",
        "limits.open",
        "trunks.carrier.limits.open",
        "bans.enabled",
        "bans.after",
        "deny.devices OPTIONS/tcp",
        "deny.devices OPTIONS/udp",
    ];
    ensure!(back == expected, "{back:?}");
    ensure!(open(guard)? == [500, 200], "{:?}", open(guard)?);
    ensure!(state(guard)?.2.denied == settled.denied && state(guard)?.0.mode == 1, "it was not set back");
    ensure!(bans(guard)? == (5, 120, 7200), "{:?}", state(guard)?.2.bans);
    // What is named no more goes, what commands made stays.
    fs::write(&path, "[trunks.spare]\npeers = [\"203.0.113.9\"]\n")?;
    reload(guard, &path, &[])?;
    ensure!(names(guard)? == ["mine", "spare"], "{:?}", names(guard)?);
    ensure!(state(guard)?.0 == Chosen::default(), "{:?}", state(guard)?.0);
    ensure!(bans(guard)? == (3, 60, 7200), "{:?}", state(guard)?.2.bans);
    ensure!(open(guard)?.is_empty(), "{:?}", open(guard)?);
    ensure!(guard.rows(&["list"])?.is_empty(), "{:?}", guard.rows(&["list"])?);
    let kinds =
        guard.rows(&["limit", "list"])?.iter().map(|row| text(row, "of")).collect::<Result<Vec<_>>>()?;
    ensure!(kinds == ["connections", "invite", "messages", "register"], "{kinds:?}");
    let denied = guard.rows(&["deny"])?;
    ensure!(denied.len() == 1 && denied[0]["what"] == "udp", "{denied:?}");
    let log = guard.rows(&["log", "--source", "config"])?;
    ensure!(log.len() == 3, "{log:?}");
    // It comes back without the file.
    reboot(guard)?;
    guard.attach(&[Site::INTERFACE, "--config", shown(&path)])?;
    ensure!(names(guard)? == ["mine", "spare"], "{:?}", names(guard)?);
    Ok(())
}

#[test]
fn the_log_tells_of_settings_too() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let path = scratch.write("sipguard.toml", "[guard]\nmode = \"monitor\"\n[checks]\nline-bytes = 99\n")?;
    reload(guard, &path, &[])?;
    reload(guard, &path, &[])?;
    run(guard, "mode monitor")?;
    run(guard, "mode enforce")?;
    let told = |row: &Value| {
        let words = [text(row, "origin")?, text(row, "verb")?, text(row, "what")?, row["moved"].to_string()];
        anyhow::Ok(words.join(" "))
    };
    let log = guard.rows(&["log"])?.iter().map(told).collect::<Result<Vec<_>>>()?;
    ensure!(log == ["config reload guard.mode checks.line-bytes 2", "cli mode enforce 1"], "{log:?}");
    // The mode changes without a store as well: a file in the place of its directory.
    let told =
        guard.run(&["mode", "monitor", "--store", &format!("{}/rules.db", shown(&path))])?.expect(0)?;
    ensure!(told.stdout == "monitor\n" && told.stderr.contains("the log does not tell of it"), "{told:?}");
    ensure!(guard.json(&["status"])?["mode"] == "monitor", "the mode did not change");
    Ok(())
}

#[test]
fn peers_move_between_trunks() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let file = |one: &str, two: &str| {
        format!("[trunks.one]\npeers = [\"{one}\"]\n[trunks.two]\npeers = [\"{two}\"]\n")
    };
    let path = scratch.write("sipguard.toml", &file("192.0.2.1", "192.0.2.2"))?;
    reload(guard, &path, &[])?;
    fs::write(&path, file("192.0.2.2", "192.0.2.1"))?;
    ensure!(reload(guard, &path, &[])? == ["trunks.one", "trunks.two"], "they did not change");
    for (peer, trunk) in [("192.0.2.2", "one"), ("192.0.2.1", "two")] {
        ensure!(guard.json(&["lookup", peer])?["trunk"] == trunk, "{peer} is not of {trunk}");
    }
    // A peer of a trunk that a command made stays its own.
    run(guard, "trunk add mine --peer 192.0.2.3")?;
    fs::write(&path, file("192.0.2.3", "192.0.2.1"))?;
    let before = state(guard)?.2;
    let said = guard.run(&["reload", "--config", shown(&path)])?.expect(1)?;
    ensure!(said.stderr.contains("192.0.2.3 is a peer of the trunk mine"), "it said {said:?}");
    ensure!(state(guard)?.2 == before, "something changed");
    Ok(())
}

#[test]
fn a_trunk_that_was_found_in_the_kernel_gets_its_name_back() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let path =
        scratch.write("sipguard.toml", "[trunks.carrier]\npeers = [\"192.0.2.1\", \"192.0.2.2\"]\n")?;
    reload(guard, &path, &[])?;
    run(guard, "trunk set carrier --peer 192.0.2.1 192.0.2.2 192.0.2.3")?;
    fs::remove_file(guard.store())?;
    let changed = reload(guard, &path, &[])?;
    ensure!(changed == ["trunks.recovered-1", "trunks.carrier"], "{changed:?}");
    for (peer, trunk) in [("192.0.2.1", "carrier"), ("192.0.2.2", "carrier"), ("192.0.2.3", "recovered-1")] {
        ensure!(guard.json(&["lookup", peer])?["trunk"] == trunk, "{peer} is not of {trunk}");
    }
    // At once, and after another loss, when nothing of it is left.
    run(guard, "trunk remove recovered-1")?;
    fs::remove_file(guard.store())?;
    reload(guard, &path, &[])?;
    let rows = guard.rows(&["trunk", "list"])?;
    ensure!(rows.len() == 1 && rows[0]["trunk"] == "carrier", "{rows:?}");
    Ok(())
}

#[test]
fn what_the_kernel_refuses_is_undone_as_a_whole() -> Result<()> {
    for map in ["PREFIXES", "PORTS", "SETTINGS", "USER_AGENTS"] {
        let site = Site::guarded(true, &[])?;
        let guard = &site.guard;
        let scratch = Scratch::new("config")?;
        let path = scratch.write("sipguard.toml", FULL)?;
        run(guard, "trunk add mine --peer 192.0.2.9")?;
        let (chosen, ports, policy, _) = state(guard)?;
        let told = || {
            anyhow::Ok((
                guard.rows(&["trunk", "list"])?,
                guard.rows(&["deny"])?,
                guard.rows(&["list"])?,
                guard.json(&["bans"])?,
                guard.rows(&["limit", "list"])?,
            ))
        };
        let stored = told()?;
        let mut freeze = Command::new("bpftool");
        output(freeze.args(["map", "freeze", "pinned"]).arg(guard.pins().join("maps").join(map)))?;
        guard.run(&["reload", "--config", shown(&path)])?.expect(1).context(map)?;
        let (chosen_now, ports_now, policy_now, _) = state(guard)?;
        ensure!((chosen_now, ports_now, policy_now) == (chosen, ports, policy), "{map}: the maps changed");
        ensure!(told()? == stored, "{map}: the store changed");
        // And the file is not taken for what it was: the next reload finds all of it again.
        ensure!(reload(guard, &path, &["--dry-run"])?.len() > 10, "{map}: it is taken as done");
    }
    Ok(())
}

#[test]
fn attach_takes_from_the_file_what_no_flag_says() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let none = scratch.write("none.toml", "")?;
    let said = guard.run(&["attach", "--config", shown(&none)])?.expect(2)?;
    ensure!(said.stderr.contains("interfaces"), "it said {said:?}");
    let interfaces = "[guard]\ninterfaces = [\"eth0\"]\nxdp-mode = \"generic\"\nflows = 2048\n";
    let broken = scratch.write("broken.toml", &format!("{interfaces}modes = 7\n"))?;
    for words in [&["attach"][..], &["attach", "eth0"]] {
        let said = guard.run(&[words, &["--config", shown(&broken)]].concat())?.expect(6)?;
        ensure!(
            said.stderr.contains("nothing was attached") && said.stderr.contains(":5:1:"),
            "it said {said:?}"
        );
    }
    ensure!(guard.run(&["status"])?.status == 3 && !guard.store().exists(), "something was done");
    let path = scratch.write("sipguard.toml", &FULL.replace("[guard]\n", interfaces))?;
    // While nothing is attached the store follows the file.
    let said = run(guard, &format!("reload --config {}", shown(&path)))?;
    ensure!(said.contains("takes effect with the next `sipguard attach`"), "it said {said}");
    ensure!(reload(guard, &path, &[])?.is_empty(), "a second one changed something");
    fs::remove_file(guard.store())?;
    run(guard, &format!("attach --port 5090 --limit line-bytes=700 --config {}", shown(&path)))?;
    let status = guard.json(&["status"])?;
    ensure!(
        status["interfaces"][0]["mode"] == "generic"
            && status["interfaces"][0]["interface"] == "eth0"
            && status["mode"] == "monitor",
        "{status}"
    );
    ensure!(
        status["ports"] == serde_json::json!([5090]) && status["limits"]["line-bytes"] == 700,
        "{status}"
    );
    ensure!(guard.json(&["lookup", "203.0.113.9"])?["trunk"] == "spare", "the trunks are not in force");
    ensure!(guard.rows(&["limit", "list"])?.len() == 6, "{:?}", guard.rows(&["limit", "list"])?);
    // Attached already: what is in force stays, whatever the file says.
    fs::write(
        &path,
        "[guard]\ninterfaces = [\"eth0\"]\nmode = \"enforce\"\nxdp-mode = \"native\"\nflows = 4096\n",
    )?;
    ensure!(
        run(guard, &format!("attach --config {}", shown(&path)))?.contains("nothing changed"),
        "something changed"
    );
    ensure!(guard.json(&["status"])?["mode"] == "monitor", "the mode changed");
    // A reload changes what it can, and says what takes more.
    let told = guard.json(&["reload", "--config", shown(&path)])?;
    let rows = told["rows"].as_array().context("rows")?;
    let later = rows.iter().filter(|row| row["takes_effect"] == "new attach").map(|row| text(row, "key"));
    ensure!(later.collect::<Result<Vec<_>>>()? == ["guard.xdp-mode", "guard.flows"], "{told}");
    ensure!(guard.json(&["status"])?["mode"] == "enforce", "the mode did not change");
    Ok(())
}
