//! The units of `deploy/systemd`: what they start runs under their own filter of system calls. Whether systemd takes them, and in which
//! order they come, is tried in a virtual machine: `cargo xtask vm --systemd`.

use std::{
    fs,
    net::TcpStream,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{libc, sys::signal::Signal};
use sipguard_tests::{
    application::{Server, sip, wait_until},
    guard::{Output, Site, neighbour},
    message::negative_length,
    process::Running,
    rules::reboot,
    scratch::Scratch,
    service::{ADDRESS, get},
    unit::Unit,
};

const GUARD: &str = "sipguard@.service";
const SERVE: &str = "sipguard-serve.service";

/// A command of a unit, under its filter, with the pins and the store of the site and this configuration.
fn command(site: &Site, unit: &Unit, key: &str, config: &Path) -> Result<Command> {
    let mut command = Command::new(neighbour("SIPGUARD", "sipguard")?);
    command.args(unit.arguments(key, Site::INTERFACE)?).stdin(Stdio::null());
    command.env("SIPGUARD_PINS", site.guard.pins()).env("SIPGUARD_STORE", site.guard.store());
    command.env("SIPGUARD_CONFIG", config);
    unit.confine(&mut command)?;
    Ok(command)
}

/// Runs one to its end in the namespace of the PBX.
fn run(site: &Site, unit: &Unit, key: &str, config: &Path) -> Result<Output> {
    let mut command = command(site, unit, key, config)?;
    let done = site.pbx.enter(|| command.output())?.context("starting it")?;
    ensure!(done.status.signal() != Some(libc::SIGSYS), "{key}: a system call that the unit does not allow");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = done.status.code().with_context(|| format!("{key}: {}", done.status))?;
    Ok(Output { status, stdout: text(&done.stdout), stderr: text(&done.stderr) })
}

/// Whether a malformed message is stopped on its way to the PBX.
fn is_filtered(site: &Site) -> Result<bool> {
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let (phone, application) = server.connect(&site.phone)?;
    let bytes = negative_length().bytes;
    phone.offer(&bytes)?;
    wait_until("the message is read, or refused", || {
        Ok(application.end().is_some() || application.bytes().len() == bytes.len())
    })?;
    Ok(application.bytes().is_empty())
}

#[test]
fn the_filter_of_the_guard_lets_it_attach_and_reload() -> Result<()> {
    let (site, scratch, unit) = (Site::new(true)?, Scratch::new("units")?, Unit::read(GUARD)?);
    let config =
        scratch.write("sipguard.toml", "[guard]\nports = [5060]\n[trunks.a]\npeers = [\"192.0.2.1\"]\n")?;
    run(&site, &unit, "ExecStart", &config)?.expect(0)?;
    ensure!(is_filtered(&site)?, "it does not filter");
    // Once more, as `systemctl restart` does.
    run(&site, &unit, "ExecStart", &config)?.expect(0)?;
    fs::write(&config, "[guard]\nports = [5060, 5070]\n")?;
    let reload = run(&site, &unit, "ExecReload", &config)?.expect(0)?;
    ensure!(
        reload.stdout.contains("5070") && reload.stdout.contains("trunks.a"),
        "it said {:?}",
        reload.stdout
    );
    ensure!(unit.values("ExecStop").next().is_none(), "stopping the unit would take the filter off");
    Ok(())
}

#[test]
fn a_mistake_in_the_configuration_attaches_with_the_last_good_one_and_says_so() -> Result<()> {
    let (site, scratch, unit) = (Site::new(true)?, Scratch::new("units")?, Unit::read(GUARD)?);
    let config = scratch.write("sipguard.toml", "[guard]\nports = \"none\"\n")?;
    let ports = || Ok::<_, anyhow::Error>(site.guard.json(&["status"])?["ports"].clone());

    // There is no earlier one: nothing is attached, and the unit fails.
    let first = run(&site, &unit, "ExecStart", &config)?.expect(6)?;
    ensure!(first.stderr.contains("there is no earlier one"), "it said {:?}", first.stderr);
    ensure!(!site.guard.pins().exists() && !is_filtered(&site)?, "it attached");

    // Applied by attach, and by reload after it.
    for (good, verb) in [("[5060, 5070]", "ExecStart"), ("[5060, 5080]", "ExecReload")] {
        fs::write(&config, format!("[guard]\nports = {good}\n"))?;
        run(&site, &unit, verb, &config)?.expect(0)?;
    }
    // A look at what would change applies nothing, nor does one more attach, nor what is no configuration.
    fs::write(&config, "[guard]\nports = [5060, 5090]\n")?;
    let dry = site.guard.command(&["reload", "--dry-run"]).env("SIPGUARD_CONFIG", &config).status()?;
    ensure!(dry.success(), "{dry}");
    run(&site, &unit, "ExecStart", &config)?.expect(0)?;
    site.guard.run(&["reload"])?.expect(0)?;

    reboot(&site.guard)?;
    fs::write(&config, "[guard]\nports = \"none\"\n")?;
    let last = run(&site, &unit, "ExecStart", &config)?.expect(7)?;
    let told = ["the configuration is invalid", "last good", "sipguard.toml:2:9", "sipguard check"];
    ensure!(told.iter().all(|words| last.stderr.contains(words)), "it said {:?}", last.stderr);
    ensure!(is_filtered(&site)? && ports()? == serde_json::json!([5060, 5080]), "the ports are {}", ports()?);
    // systemd takes that for a start, and what says that nothing is attached for none.
    let started: Vec<&str> = unit.values("SuccessExitStatus").flat_map(str::split_whitespace).collect();
    ensure!(started == ["7"], "a start is {started:?}");
    // Without the flag it is as ever.
    reboot(&site.guard)?;
    let mut plain = site.guard.command(&["attach", Site::INTERFACE]);
    ensure!(plain.env("SIPGUARD_CONFIG", &config).output()?.status.code() == Some(6), "it attached");
    Ok(())
}

#[test]
fn the_filter_of_serve_lets_it_serve_and_keep_its_history() -> Result<()> {
    let (site, scratch, unit) = (Site::guarded(true, &[])?, Scratch::new("units")?, Unit::read(SERVE)?);
    let config = scratch.write("serve.toml", "[serve]\njournal = false\n")?;
    let history = scratch.join("history.db");
    let mut command = command(&site, &unit, "ExecStart", &config)?;
    command.env("SIPGUARD_HISTORY", &history).stderr(fs::File::create(scratch.join("said"))?);
    let mut running = site.pbx.enter(|| Running::start("sipguard serve", &mut command))??;
    let mut expect_alive = || {
        let ended = running.try_wait()?;
        let said = fs::read_to_string(scratch.join("said"))?;
        ensure!(ended.is_none(), "it ended: {ended:?} {said}");
        Ok(())
    };
    wait_until("sipguard serve answers", || {
        expect_alive()?;
        Ok(site.pbx.enter(|| TcpStream::connect(ADDRESS))?.is_ok())
    })?;
    // What it answers with, and what it writes down: one slot of the history and the next.
    wait_until("a slot is in the history", || {
        expect_alive()?;
        let told: serde_json::Value =
            serde_json::from_str(&get(&site, ADDRESS, "/api/history?hours=1")?.body)?;
        Ok(told["watched_ms"].as_array().is_some_and(|all| all.iter().any(|ms| ms.as_u64() > Some(0))))
    })?;
    for path in ["/", "/health", "/metrics", "/api/status", "/api/offenders", "/api/events"] {
        let status = get(&site, ADDRESS, path)?.status;
        ensure!(status == 200, "{path}: {status}");
    }
    expect_alive()?;
    running.signal(Signal::SIGTERM)?;
    wait_until("it ends", || Ok(running.try_wait()?.is_some()))?;
    ensure!(running.stop()?.success(), "it ended with {:?}", running.stop()?);
    Ok(())
}

#[test]
fn what_a_unit_does_not_allow_ends_its_program() -> Result<()> {
    let unit = Unit::read(SERVE)?;
    ensure!(!unit.system_calls()?.contains("chroot"), "it may call chroot");
    let mut command = Command::new("chroot");
    command.args(["/", "true"]);
    unit.confine(&mut command)?;
    let status = command.status()?;
    ensure!(status.signal() == Some(libc::SIGSYS), "it ended with {status}");
    Ok(())
}
