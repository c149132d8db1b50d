//! `kill -9` at each step of `attach`, `upgrade`, `reload`, `block` and `detach`: packets are judged as before, as afterwards, or pass; no verb says otherwise;
//! and the next command of the same kind ends what was begun.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::{
    application::{PATIENCE, udp, uninterrupted, wait_until},
    exclusive::beside_others,
    guard::{Guard, Site},
    message::{negative_length, register},
    rules::consistent,
    scratch::Scratch,
    steps::{self, telling},
};

/// A second address of the phone, which is blocked.
const BLOCKED: &str = "10.77.0.9";

/// Two senders and the PBX.
struct Probe {
    server: UdpSocket,
    phone: UdpSocket,
    blocked: UdpSocket,
}

/// What the PBX reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Something malformed.
    malformed: bool,
    /// Something good of [`BLOCKED`].
    blocked: bool,
}

const UNFILTERED: Seen = Seen { malformed: true, blocked: true };
const FILTERED: Seen = Seen { malformed: false, blocked: true };

impl Probe {
    fn new(site: &Site, port: u16) -> Result<Probe> {
        let bind = |machine, address: &str, port| -> Result<UdpSocket> {
            udp(machine, SocketAddr::new(address.parse::<IpAddr>()?, port))
        };
        let server = bind(&site.pbx, "10.77.0.1", port)?;
        server.set_read_timeout(Some(PATIENCE)).context("setting a time-out")?;
        Ok(Probe {
            server,
            phone: bind(&site.phone, "10.77.0.2", 0)?,
            blocked: bind(&site.phone, BLOCKED, 0)?,
        })
    }

    /// Sends what is malformed, what is from the blocked address and what is good, and says what of it arrived when the good did.
    fn look(&self) -> Result<Seen> {
        let to = self.server.local_addr()?;
        let good = register(1);
        self.phone.send_to(&negative_length().bytes, to)?;
        self.blocked.send_to(&good, to)?;
        self.phone.send_to(&good, to)?;
        let mut seen = Seen { malformed: false, blocked: false };
        let mut bytes = [0; 4096];
        loop {
            let (length, from) =
                uninterrupted(|| self.server.recv_from(&mut bytes)).context("the good one")?;
            if from == self.blocked.local_addr()? {
                seen.blocked = true;
            } else if bytes[..length] == good {
                return Ok(seen);
            } else {
                seen.malformed = true;
            }
        }
    }

    /// Waits until packets are judged so: a program goes a moment after its process.
    fn expect(&self, expected: Seen) -> Result<()> {
        wait_until(&format!("{expected:?}"), || Ok(self.look()? == expected))
    }
}

/// A PBX and a phone with two addresses.
fn site() -> Result<Site> {
    let site = Site::new(true)?;
    site.phone.add_address(Site::INTERFACE, &format!("{BLOCKED}/24"))?;
    Ok(site)
}

/// The same, guarded, without limits that a test could reach.
fn guarded() -> Result<Site> {
    let site = site()?;
    site.guard.attach(&[Site::INTERFACE])?;
    site.guard.run(&["limit", "clear"])?.expect(0)?;
    Ok(site)
}

/// The same words as a command whose program is `sipguard`.
fn command(guard: &Guard, words: &str) -> Command {
    guard.command(&words.split(' ').collect::<Vec<_>>())
}

fn run(guard: &Guard, words: &str) -> Result<sipguard_tests::guard::Output> {
    guard.run(&words.split(' ').collect::<Vec<_>>())
}

/// Kills a command at each telling step. `prepare` makes what it begins with, `check` gets the number of the run and looks at what is left and at what
/// the next command makes of it.
fn each_step(
    guard: &Guard,
    words: &dyn Fn(usize) -> String,
    prepare: &dyn Fn() -> Result<()>,
    check: &dyn Fn(usize) -> Result<()>,
) -> Result<()> {
    let began = Instant::now();
    prepare()?;
    let whole = steps::run(&mut command(guard, &words(0)), "sipguard", None)?;
    let steps = telling(&whole.steps)?;
    ensure!(steps.len() > 4, "it has few steps: {:?}", whole.steps);
    let mut killed = 0;
    for (number, step) in (1..).zip(&steps) {
        prepare().with_context(|| format!("before the run that is killed at {}", whole.steps[*step]))?;
        let run = steps::run(&mut command(guard, &words(number)), "sipguard", Some(*step))?;
        killed += usize::from(run.killed);
        let at = || format!("killed at step {step}, {:?}", run.steps.last());
        check(number).with_context(at)?;
        no_leftovers(guard).with_context(at)?;
    }
    // What the runs before have left may spare one some of its steps.
    ensure!(killed * 10 >= steps.len() * 9, "{killed} of {} runs were killed", steps.len());
    let took = began.elapsed();
    println!("{}: {killed} kills of {} steps in {took:?}", words(0), whole.steps.len());
    Ok(())
}

/// Names in the directory of a path.
fn names(of: &Path) -> Result<Vec<String>> {
    let parent = of.parent().context("no directory")?;
    let Ok(entries) = std::fs::read_dir(parent) else { return Ok(Vec::new()) };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Nothing is left of what was killed: no pins that were begun, no maps of an upgrade, no journal, no temporary file.
fn no_leftovers(guard: &Guard) -> Result<()> {
    let own = guard.pins().file_name().context("no name")?.to_string_lossy().into_owned();
    let begun: Vec<_> =
        names(guard.pins())?.into_iter().filter(|name| name.starts_with(&format!("{own}-"))).collect();
    ensure!(begun.is_empty(), "pins are left: {begun:?}");
    for directory in ["maps-new", "maps-next"] {
        ensure!(!guard.pins().join(directory).exists(), "{directory} is left");
    }
    for directory in ["programs", "links"] {
        let left = names(&guard.pins().join(directory).join("any"))?;
        ensure!(!left.iter().any(|name| name.ends_with("-new")), "pins are left: {left:?}");
    }
    let left = names(guard.store())?;
    // A journal of the store is not strange: the next change of it takes back what that says, and here there may have been none.
    let known = ["rules.db", "rules.db.lock", "rules.db-journal", "last-good.json"];
    let strange = |name: &String| !known.contains(&name.as_str());
    ensure!(!left.iter().any(strange), "files are left: {left:?}");
    Ok(())
}

/// What `status` ends with, and with 0 that it says of the interface that it is filtered, and nothing weaker than else.
fn status(guard: &Guard) -> Result<i32> {
    let output = run(guard, "status -o json")?;
    if output.status == 0 {
        let report: Value = serde_json::from_str(&output.stdout)?;
        ensure!(report["interfaces"][0]["mode"] == "native", "{report}");
        ensure!(report["weaknesses"].as_array().is_some_and(Vec::is_empty), "{report}");
    }
    Ok(output.status)
}

#[test]
fn an_attach_that_is_killed_at_any_step_filters_or_does_not_and_says_which() -> Result<()> {
    let _beside = beside_others();
    let site = site()?;
    let guard = &site.guard;
    run(guard, &format!("block {BLOCKED}"))?.expect(0)?;
    let probe = Probe::new(&site, 5060)?;
    let attach = |_| format!("attach {}", Site::INTERFACE);
    let prepare = || {
        let status = run(guard, "detach --all")?.status;
        ensure!([0, 3].contains(&status), "detach ended with {status}");
        no_leftovers(guard)?;
        probe.expect(UNFILTERED)
    };
    let check = |_| -> Result<()> {
        let filters = Seen { malformed: false, blocked: false };
        match status(guard)? {
            0 => probe.expect(filters)?,
            3 => probe.expect(UNFILTERED).context("status says that nothing is attached")?,
            other => anyhow::bail!("status ended with {other}"),
        }
        run(guard, &attach(0))?.expect(0)?;
        ensure!(status(guard)? == 0 && consistent(guard)? == 1, "the next one does not end it");
        probe.expect(filters)
    };
    each_step(guard, &attach, &prepare, &check)
}

#[test]
fn a_detach_that_is_killed_at_any_step_filters_or_does_not_and_says_which() -> Result<()> {
    let _beside = beside_others();
    let site = site()?;
    let guard = &site.guard;
    let probe = Probe::new(&site, 5060)?;
    let prepare = || {
        guard.attach(&[Site::INTERFACE])?;
        ensure!(status(guard)? == 0, "it does not filter");
        probe.expect(FILTERED)
    };
    let check = |_| -> Result<()> {
        match run(guard, "status")?.status {
            0 => probe.expect(FILTERED)?,
            3 => probe.expect(UNFILTERED).context("status says that nothing is attached")?,
            other => anyhow::bail!("status ended with {other}"),
        }
        let status = run(guard, "detach --all")?.status;
        ensure!([0, 3].contains(&status), "the next one ended with {status}");
        ensure!(!guard.pins().exists(), "pins are left");
        probe.expect(UNFILTERED)
    };
    each_step(guard, &|_| "detach --all".to_owned(), &prepare, &check)
}

#[test]
fn an_upgrade_that_is_killed_at_any_step_filters_on() -> Result<()> {
    let _beside = beside_others();
    let site = guarded()?;
    let guard = &site.guard;
    let probe = Probe::new(&site, 5060)?;
    let check = |_| -> Result<()> {
        ensure!(status(guard)? == 0, "it does not filter");
        ensure!(probe.look()? == FILTERED, "it filters otherwise");
        run(guard, "upgrade")?.expect(0)?;
        ensure!(status(guard)? == 0 && probe.look()? == FILTERED, "the next one filters otherwise");
        Ok(())
    };
    each_step(guard, &|_| "upgrade".to_owned(), &|| Ok(()), &check)
}

/// What a `reload` goes to, and what it comes from.
const FILES: [&str; 2] = [
    "[guard]\nports = [5060]\n[block]\nuser-agents = [\"scanner\"]\n[trunks.old]\npeers = [\"192.0.2.1\"]\n",
    "[guard]\nports = [5060, 5080]\n[limits]\nmessages = \"40/s burst 400\"\n[bans]\nafter = 7\n[deny]\ndevices = [\"options\"]\n\
     [trunks.new]\npeers = [\"192.0.2.2\"]\n",
];

#[test]
fn a_reload_that_is_killed_at_any_step_is_ended_by_the_next() -> Result<()> {
    let _beside = beside_others();
    let site = guarded()?;
    let (guard, scratch) = (&site.guard, Scratch::new("kills")?);
    let [before, after] = [0, 1].map(|at| scratch.write(&format!("{at}.toml"), FILES[at]));
    let [before, after] = [before?, after?].map(|path| format!("reload --config {}", path.display()));
    let (probe, other) = (Probe::new(&site, 5060)?, Probe::new(&site, 5080)?);
    let shown = || -> Result<[Value; 4]> {
        let without_time = |words: &[&str]| -> Result<Value> {
            let mut rows = guard.rows(words)?;
            rows.iter_mut().for_each(|row| row["created_at"] = Value::Null);
            Ok(rows.into())
        };
        let ports = guard.json(&["status"])?["ports"].clone();
        Ok([
            ports,
            without_time(&["trunk", "list"])?,
            without_time(&["limit", "list"])?,
            without_time(&["deny"])?,
        ])
    };
    let prepare = || run(guard, &before)?.expect(0).map(drop);
    prepare()?;
    run(guard, &after)?.expect(0)?;
    let wanted = shown()?;
    let check = |_| -> Result<()> {
        ensure!(status(guard)? == 0 && probe.look()? == FILTERED, "it filters otherwise");
        let ports = guard.json(&["status"])?["ports"].to_string();
        let expected = if ports.contains("5080") { FILTERED } else { UNFILTERED };
        ensure!(other.look()? == expected, "{ports}, and it filters otherwise");
        run(guard, &after)?.expect(0)?;
        ensure!(other.look()? == FILTERED && shown()? == wanted, "{:?} instead of {wanted:?}", shown()?);
        Ok(())
    };
    each_step(guard, &|_| after.clone(), &prepare, &check)
}

#[test]
fn a_block_that_is_killed_at_any_step_holds_or_does_not_and_says_which() -> Result<()> {
    let _beside = beside_others();
    let site = guarded()?;
    let guard = &site.guard;
    let probe = Probe::new(&site, 5060)?;
    // A sender at once, and a whole list with it.
    let block = |_| format!("block {BLOCKED} 198.51.100.0/24 192.0.2.7 203.0.113.7:4001 --for 1h");
    let agree = || -> Result<Seen> {
        let seen = probe.look()?;
        let verdict = guard.json(&["lookup", BLOCKED])?["verdict"].clone();
        ensure!(
            seen == Seen { malformed: false, blocked: verdict == "pass" },
            "{seen:?}, and lookup says {verdict}"
        );
        Ok(seen)
    };
    let check = |number: usize| -> Result<()> {
        ensure!(status(guard)? == 0, "it does not filter");
        agree()?;
        run(guard, &format!("block 198.51.{number}.1"))?.expect(0)?;
        let rules = consistent(guard)?;
        // All of it, or none.
        ensure!(rules == if agree()?.blocked { 1 } else { 5 }, "{rules} rules");
        Ok(())
    };
    each_step(guard, &block, &|| run(guard, "unblock --all")?.expect(0).map(drop), &check)
}
