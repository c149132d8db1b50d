//! What a reload changes, and that it is undone as a whole.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_core::settings::EffectiveSettings;
use sipguard_tests::{
    guard::{Guard, Site, text},
    process::output,
    rules::reboot,
    scratch::Scratch,
};

use super::{bans, open, reload, run, shown, state};

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
    run(guard, "limit set --trunk carrier --of invite 1/s")?;
    run(guard, "limit set --of open 9")?;
    run(guard, "limit clear --of open --trunk carrier")?;
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
    ensure!(state(guard)?.0 == EffectiveSettings::default(), "{:?}", state(guard)?.0);
    ensure!(bans(guard)? == (3, 60, 7200), "{:?}", state(guard)?.2.bans);
    ensure!(open(guard)?.is_empty(), "{:?}", open(guard)?);
    ensure!(guard.rules()?.is_empty(), "{:?}", guard.rows(&["list"])?);
    let kinds =
        guard.rows(&["limit", "list"])?.iter().map(|row| text(row, "of")).collect::<Result<Vec<_>>>()?;
    ensure!(kinds == ["connections", "invite", "messages", "register", "unfinished"], "{kinds:?}");
    let denied = guard.rows(&["deny"])?;
    ensure!(denied.len() == 1 && denied[0]["what"] == "udp", "{denied:?}");
    let log = guard.rows(&["log", "--origin", "config"])?;
    ensure!(log.len() == 3, "{log:?}");
    // It comes back without the file.
    reboot(guard)?;
    guard.attach(&[Site::INTERFACE, "--config", shown(&path)])?;
    ensure!(names(guard)? == ["mine", "spare"], "{:?}", names(guard)?);
    Ok(())
}

#[test]
fn the_file_says_which_limits_only_count() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("config")?;
    let carrier = "[trunks.carrier]\npeers = [\"198.51.100.0/28\"]\n[trunks.carrier.limits]\n";
    let counts = format!(
        "[limits]\nregister = \"20/s burst 40 monitor\"\nopen = \"70 monitor\"\n{carrier}invite = \"5/s monitor\"\n"
    );
    let path = scratch.write("sipguard.toml", &counts)?;
    let modes = || -> Result<Vec<String>> {
        let rows = guard.rows(&["limit", "list"])?;
        let rows = rows.iter().filter(|row| row["mode"] == "monitor");
        rows.map(|row| Ok(format!("{} {}", text(row, "scope")?, text(row, "of")?))).collect()
    };
    let bits = || -> Result<(u32, u32)> {
        let policy = state(guard)?.2;
        Ok((policy.monitored_limits, policy.trunks.iter().fold(0, |all, trunk| all | trunk.monitored_limits)))
    };
    let changed = run(guard, &format!("reload --config {}", shown(&path)))?;
    for line in [
        "limits.register: 500/s burst 6000 -> 20/s burst 40 monitor",
        "limits.open: none -> 70 at once monitor",
        "trunks.carrier.limits.invite: none -> 5/s burst 10 monitor",
    ] {
        ensure!(changed.contains(line), "it said {changed}");
    }
    ensure!(modes()? == ["devices register", "devices open", "trunk invite"], "{:?}", modes()?);
    let open = Reason::OpenConnections.limit_bit();
    ensure!(
        bits()? == (Reason::RateRegister.limit_bit() | open, Reason::RateInvite.limit_bit()),
        "{:?}",
        bits()?
    );
    ensure!(reload(guard, &path, &[])?.is_empty(), "a second one changed something");
    let words = run(guard, &format!("config show --config {}", shown(&path)))?;
    for line in ["register = \"20/s burst 40 monitor\"", "open = \"70 monitor\"", "invite = \"5/s monitor\""]
    {
        ensure!(words.contains(line), "{words}");
    }
    // What a command made stop is set back, and what the file makes stop stops.
    run(guard, "limit set --of register 20/s burst 40")?;
    ensure!(reload(guard, &path, &[])? == ["limits.register"], "it is not set back");
    fs::write(
        &path,
        format!("[limits]\nregister = \"20/s burst 40\"\nopen = 70\n{carrier}invite = \"5/s\"\n"),
    )?;
    ensure!(
        reload(guard, &path, &[])?.len() == 3 && bits()? == (0, 0) && modes()?.is_empty(),
        "{:?}",
        modes()?
    );
    ensure!(state(guard)?.2.open == 70, "{:?}", state(guard)?.2.open);
    // What is named no more is as it is by default.
    fs::write(&path, "[limits]\nregister = \"20/s burst 40 monitor\"\nunfinished = \"9 monitor\"\n")?;
    reload(guard, &path, &[])?;
    ensure!(modes()? == ["devices register", "devices unfinished"], "{:?}", modes()?);
    fs::write(&path, "")?;
    ensure!(
        reload(guard, &path, &[])? == ["limits.register", "limits.unfinished"] && bits()? == (0, 0),
        "{:?}",
        bits()?
    );
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
        let words =
            [text(row, "origin")?, text(row, "verb")?, text(row, "what")?, row["changed"].to_string()];
        anyhow::Ok(words.join(" "))
    };
    let log = guard.rows(&["log"])?.iter().map(told).collect::<Result<Vec<_>>>()?;
    let expected = [
        "config reload guard.mode: enforce -> monitor; checks.line-bytes: 4096 -> 99 2",
        "cli mode guard.mode: monitor -> enforce 1",
    ];
    ensure!(log[1..] == expected, "{log:?}");
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
                guard.rules()?,
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
    run(guard, &format!("attach --port 5090 --check line-bytes=700 --config {}", shown(&path)))?;
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
    ensure!(guard.rows(&["limit", "list"])?.len() == 7, "{:?}", guard.rows(&["limit", "list"])?);
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
