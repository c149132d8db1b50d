//! The units of `deploy/systemd` under a real systemd: a program that it starts, in one boot and in the next.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{faults, init, report::Report};
use crate::{
    application::{Connection, End, PATIENCE, dial, wait_until},
    message::negative_length,
    netns::Netns,
    process::output,
    service::ADDRESS,
};

/// What is tried, with the other end of the cable.
type Step = fn(&Netns) -> Result<()>;

/// The steps of the first boot.
const FIRST: [(&str, Step); 7] = [
    ("start", start),
    ("hot-plug", hot_plug),
    ("stop", stop),
    ("kill", kill),
    ("processor", faults::processor),
    ("clock", faults::clock),
    ("reload", reload),
];
/// Those of the second.
const SECOND: [(&str, Step); 2] = [("boot", boot), ("last-good", last_good)];

/// Where the units expect it.
pub(super) const PROGRAM: &str = "/usr/local/sbin/sipguard";
const CONFIGURATION: &str = "/etc/sipguard/sipguard.toml";
/// Tells the second boot from the first.
const MARK: &str = "/var/lib/rebooted";
const GUARD: &str = "sipguard@eth0.service";
const SERVE: &str = "sipguard-serve.service";
/// The address that systemd-networkd gives to `eth0`, and the other end's.
pub(super) const PBX: &str = "10.77.0.1:5060";
const PHONE: &str = "10.77.0.2/24";

/// The names of all steps, in their order.
pub fn steps() -> impl Iterator<Item = &'static str> {
    FIRST.iter().chain(&SECOND).map(|(name, _)| *name)
}

/// Runs the steps of this boot, then reboots or powers off.
///
/// # Errors
/// When there is no way to report; what a step fails of is reported.
pub fn run() -> Result<()> {
    let mut report = Report::open()?;
    let is_second = Path::new(MARK).exists();
    let steps = if is_second { &SECOND[..] } else { &FIRST };
    // The other card is the phone's.
    let phone = Netns::new("phone")?;
    output(Command::new("ip").args(["link", "set", "eth1", "netns", phone.name()]))?;
    phone.add_address("eth1", PHONE)?;
    phone.run(&["ip", "link", "set", "eth1", "up"])?;
    for (name, step) in steps {
        report.line(&format!("begin {name}"))?;
        let outcome = step(&phone);
        report.line(&match outcome {
            Ok(()) => format!("ok {name}"),
            Err(error) => format!("failed {name} {error:#}"),
        })?;
    }
    if is_second {
        report.line("done")?;
        init::power_off();
        return Ok(());
    }
    fs::write(MARK, "").context("marking the first boot")?;
    // A mistake that nobody has seen before the machine starts again.
    configure("\"all\"")?;
    systemctl(&["reboot"])
}

/// As docs/guide/systemd.md says.
fn start(phone: &Netns) -> Result<()> {
    configure("[5060, 5070]")?;
    wait_until("eth0 has its address", || Ok(TcpListener::bind(PBX).is_ok()))?;
    ensure!(!filters(phone)?, "it filters before the unit is started");
    systemctl(&["enable", "--now", GUARD, SERVE])?;
    ensure!(filters(phone)?, "it does not filter");
    ensure!(TcpStream::connect(ADDRESS).is_ok(), "serve does not answer");
    is_active(&[GUARD, SERVE])?;
    let ports = status()?["ports"].take();
    ensure!(ports == json!([5060, 5070]), "the ports are {ports}");
    let journal = output(Command::new("journalctl").args(["--no-pager", "--boot"]))?;
    ensure!(!journal.contains("status=31/SYS"), "the journal tells of a forbidden system call");
    Ok(())
}

/// An interface that comes later, goes, and comes again.
fn hot_plug(_: &Netns) -> Result<()> {
    let unit = "sipguard@hot0.service";
    let add =
        || output(Command::new("ip").args(["link", "add", "hot0", "type", "veth", "peer", "name", "hot1"]));
    // Enabled before there is any such interface, as for a VPN; that is not waited for.
    systemctl(&["enable", unit])?;
    for time in ["the first", "the second", "the third"] {
        add()?;
        wait_until(&format!("the unit starts {time} time"), || {
            Ok(property(unit, "ActiveState")? == "active")
        })?;
        ensure!(attached()?.contains_key("hot0"), "hot0 is not filtered {time} time: {:?}", attached()?);
        output(Command::new("ip").args(["link", "delete", "hot0"]))?;
        wait_until("the unit follows the interface", || Ok(property(unit, "ActiveState")? == "inactive"))?;
    }
    systemctl(&["disable", unit])?;
    // What is gone and was to be filtered makes `status` fail until somebody says that it won't come back.
    let status = Command::new(PROGRAM).arg("status").output().context("running status")?;
    ensure!(status.status.code() == Some(3), "with hot0 gone, status ended with {}", status.status);
    output(Command::new(PROGRAM).args(["detach", "hot0"]))?;
    ensure!(attached()?.contains_key("eth0"), "eth0 is not filtered any more");
    Ok(())
}

/// Stopping the unit, and starting it again, leaves the same program on the interface.
fn stop(phone: &Netns) -> Result<()> {
    let before = attached()?;
    systemctl(&["stop", GUARD])?;
    ensure!(filters(phone)? && attached()? == before, "stopped, {before:?} became {:?}", attached()?);
    systemctl(&["start", GUARD])?;
    ensure!(filters(phone)? && attached()? == before, "started, {before:?} became {:?}", attached()?);
    Ok(())
}

/// A killed service comes back, and the filter is on all the time.
fn kill(phone: &Netns) -> Result<()> {
    let before = (attached()?, property(SERVE, "MainPID")?);
    systemctl(&["kill", "--signal=KILL", SERVE])?;
    wait_until("serve is back", || {
        ensure!(filters(phone)? && attached()? == before.0, "{before:?} became {:?}", attached()?);
        let pid = property(SERVE, "MainPID")?;
        // It answers a moment before it tells systemd so.
        Ok(pid != before.1 && property(SERVE, "ActiveState")? == "active")
    })?;
    ensure!(TcpStream::connect(ADDRESS).is_ok(), "serve does not answer");
    is_active(&[GUARD])
}

fn reload(_: &Netns) -> Result<()> {
    configure("[5060, 5080]")?;
    systemctl(&["reload", GUARD])?;
    let ports = status()?["ports"].take();
    ensure!(ports == json!([5060, 5080]), "the ports are {ports}");
    Ok(())
}

/// After the reboot: attached before the network was set up.
fn boot(phone: &Netns) -> Result<()> {
    wait_until("the machine is up", || Ok(property("multi-user.target", "ActiveState")? == "active"))?;
    wait_until("eth0 has its address", || Ok(TcpListener::bind(PBX).is_ok()))?;
    is_active(&[GUARD])?;
    ensure!(filters(phone)?, "it does not filter");
    let time = |unit, name| -> Result<u64> {
        let text = property(unit, name)?;
        text.parse().with_context(|| format!("{name} of {unit} is {text:?}"))
    };
    let attached = time(GUARD, "ActiveEnterTimestampMonotonic")?;
    let network = time("systemd-networkd.service", "InactiveExitTimestampMonotonic")?;
    ensure!(
        attached > 0 && attached < network,
        "attached at {attached} us, and the network began at {network} us"
    );
    Ok(())
}

/// After the reboot with a mistake in the file: what was applied last is in force, and the unit says so.
fn last_good(_: &Netns) -> Result<()> {
    let ports = status()?["ports"].take();
    ensure!(ports == json!([5060, 5080]), "the ports are {ports}");
    let ended = property(GUARD, "ExecMainStatus")?;
    ensure!(ended == "7", "attach ended with {ended}");
    let told = output(Command::new("journalctl").args(["--no-pager", "--boot", "--unit", GUARD]))?;
    ensure!(told.contains("sipguard.toml:2:9"), "the journal does not name the mistake: {told}");
    // The service does not take the last good one: it serves again once the mistake is gone.
    configure("[5060, 5090]")?;
    systemctl(&["reload", GUARD])?;
    systemctl(&["restart", SERVE])?;
    wait_until("serve answers", || Ok(TcpStream::connect(ADDRESS).is_ok()))
}

/// Whether a malformed message of the phone is reset before it is read.
pub(super) fn filters(phone: &Netns) -> Result<bool> {
    let address: SocketAddr = PBX.parse()?;
    let listener = TcpListener::bind(address).context("listening")?;
    let device = dial(phone, address)?;
    let application = Connection::record(listener.accept().context("accepting")?.0)?;
    let bytes = negative_length().bytes;
    device.offer(&bytes)?;
    wait_until("the message is read, or refused", || {
        Ok(application.end().is_some() || application.bytes().len() == bytes.len())
    })?;
    Ok(application.end() == Some(End::Reset) && application.bytes().is_empty())
}

fn status() -> Result<Value> {
    let told = output(Command::new(PROGRAM).args(["status", "-o", "json"]))?;
    serde_json::from_str(&told).context("`sipguard status` printed no JSON")
}

/// The interfaces that are filtered, with the number of the program.
fn attached() -> Result<BTreeMap<String, u64>> {
    let mut status = status()?;
    let Value::Array(rows) = status["interfaces"].take() else { bail!("no interfaces in {status}") };
    let here = rows.iter().filter(|row| row["mode"] != "gone");
    here.map(|row| {
        let name = row["interface"].as_str().with_context(|| format!("no name in {row}"))?;
        Ok((name.to_owned(), row["program_id"].as_u64().with_context(|| format!("no program in {row}"))?))
    })
    .collect()
}

fn configure(ports: &str) -> Result<()> {
    fs::write(CONFIGURATION, format!("[guard]\nports = {ports}\n")).context("writing the configuration")
}

/// Runs systemctl, which may wait for what it starts.
fn systemctl(words: &[&str]) -> Result<()> {
    let limit = Duration::from_secs(3 * PATIENCE.as_secs()).as_secs().to_string();
    output(Command::new("timeout").args([&limit, "systemctl"]).args(words)).map(drop)
}

fn property(unit: &str, name: &str) -> Result<String> {
    let told = output(Command::new("systemctl").args(["show", "--value", "--property", name, unit]))?;
    Ok(told.trim().to_owned())
}

fn is_active(units: &[&str]) -> Result<()> {
    for unit in units {
        let state = property(unit, "ActiveState")?;
        ensure!(state == "active", "{unit} is {state}");
    }
    Ok(())
}
