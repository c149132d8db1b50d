//! Coming, staying and going: the filter outlives every process of ours and leaves nothing behind.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_common::abi::IFACE_SLOTS;
use sipguard_tests::{
    application::{End, Server, expect_same, sip, wait_until},
    guard::{Guard, Site, neighbour, text},
    message::{negative_length, register},
    netns::veth,
    process::{Running, output},
    program::Program,
    scratch::Scratch,
};

mod detach;

/// The address of the PBX on a second cable.
const SECOND: &str = "10.78.0.1";

/// Whether a malformed message that the phone sends to this address is kept from the application.
fn filters(site: &Site, address: &str) -> Result<bool> {
    let server = Server::listen(&site.pbx, sip(address.parse()?))?;
    let (phone, application) = server.connect(&site.phone)?;
    let (good, bad) = (register(1), negative_length().bytes);
    phone.write(&good)?;
    expect_same(&application.wait_for(good.len())?, &good)?;
    phone.offer(&bad)?;
    let both = [good, bad].concat();
    wait_until("the application reads it or is reset", || {
        Ok(application.end().is_some() || application.bytes().len() == both.len())
    })?;
    Ok(application.end() == Some(End::Reset))
}

/// Whether the kernel says that an XDP program is on an interface of the PBX.
fn has_program(site: &Site, interface: &str) -> Result<bool> {
    Ok(site.pbx.run(&["ip", "-d", "link", "show", interface])?.contains("prog/xdp"))
}

/// A second cable, so that the PBX has an `eth1`.
fn add_interface(site: &Site) -> Result<()> {
    veth(&site.pbx, "eth1", "10.78.0.1/24", &site.phone, "eth1", "10.78.0.2/24", true)
}

/// What bpftool says about one object, or `None` when the kernel has none of that number.
fn object(kind: &str, words: &[&str]) -> Result<Option<Value>> {
    let mut command = Command::new("bpftool");
    let output = command.args(["-j", kind, "show"]).args(words).output().context("running bpftool")?;
    let answer: Value = serde_json::from_slice(&output.stdout).context("bpftool printed no JSON")?;
    Ok((output.status.success() && answer.get("error").is_none()).then_some(answer))
}

/// The kernel's numbers of everything that the pins hold, and of what their programs hold.
fn objects(pins: &Path) -> Result<BTreeSet<(&'static str, u64)>> {
    let mut found = BTreeSet::new();
    for (kind, directory) in [("map", "maps"), ("prog", "programs"), ("link", "links")] {
        for entry in std::fs::read_dir(pins.join(directory)).context("listing the pins")? {
            let path = entry?.path();
            if path.is_symlink() {
                continue;
            }
            let one =
                object(kind, &["pinned", &path.to_string_lossy()])?.with_context(|| format!("{path:?}"))?;
            found.insert((kind, one["id"].as_u64().context("no id")?));
            // Maps of a program that are not pinned: its read-only data.
            let maps = one["map_ids"].as_array().map(Vec::as_slice).unwrap_or_default();
            found.extend(maps.iter().filter_map(Value::as_u64).map(|id| ("map", id)));
        }
    }
    Ok(found)
}

#[test]
fn a_second_attach_changes_nothing() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    site.guard.run(&["block", "192.0.2.7"])?.expect(0)?;
    // Without `since`, which is as exact as the translation between two clocks.
    let status = || -> Result<Value> {
        let mut status = site.guard.json(&["status"])?;
        status["interfaces"][0]["attached_at"].take();
        Ok(status)
    };
    let before = (status()?, objects(site.guard.pins())?);
    let output = site.guard.run(&["attach", Site::INTERFACE])?.expect(0)?;
    ensure!(output.stdout.contains("attached already, nothing changed"), "it said {:?}", output.stdout);
    let after = (status()?, objects(site.guard.pins())?);
    ensure!(after == before, "{before:?} became {after:?}");
    ensure!(filters(&site, "10.77.0.1")?, "it does not filter any more");
    Ok(())
}

#[test]
fn a_second_attach_opens_no_new_grace() -> Result<()> {
    // Or whoever pushes connections out of the guard's memory only waits for the next configuration run.
    let site = Site::guarded(true, &[])?;
    let path = site.guard.pins().join("maps/SETTINGS");
    let settings = || output(Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&path));
    let before = settings()?;
    site.guard.attach(&[Site::INTERFACE])?;
    ensure!(settings()? == before, "the settings changed");
    Ok(())
}

#[test]
fn a_second_attach_with_other_options_does_not_say_that_nothing_changed() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    for options in [["--monitor"].as_slice(), &["--on-malformed", "drop"], &["--port", "5080"]] {
        let before = site.guard.json(&["status"])?;
        let output = site.guard.run(&[&["attach", Site::INTERFACE], options].concat())?.expect(0)?;
        let after = site.guard.json(&["status"])?;
        let changed = ["mode", "on_malformed", "ports"].iter().any(|key| before[key] != after[key]);
        ensure!(
            changed != output.stdout.contains("nothing changed"),
            "{options:?}: it said {:?}",
            output.stdout
        );
    }
    Ok(())
}

#[test]
fn an_interface_that_is_named_twice_is_attached_once() -> Result<()> {
    let site = Site::new(true)?;
    site.guard.attach(&[Site::INTERFACE; 2])?;
    let status = site.guard.json(&["status"])?;
    ensure!(status["interfaces"].as_array().map(Vec::len) == Some(1), "it said {status}");
    site.guard.run(&["attach", Site::INTERFACE, "--xdp-mode", "generic"])?.expect(1)?;
    Ok(())
}

#[test]
fn status_says_how_it_is_attached_and_why_so() -> Result<()> {
    for (options, mode, why) in [
        (&[][..], "native", "the driver runs XDP"),
        (&["--xdp-mode", "native"][..], "native", "the driver runs XDP"),
        (&["--xdp-mode", "generic", "--monitor", "--port", "5060,5080"][..], "generic", "asked for"),
    ] {
        let site = Site::guarded(true, options)?;
        let status = site.guard.json(&["status"])?;
        let interface = &status["interfaces"][0];
        ensure!(interface["interface"] == "eth0" && interface["driver"] == "veth", "it said {status}");
        ensure!(interface["mode"] == mode && interface["why"] == why, "it said {status}");
        let monitor = options.contains(&"--monitor");
        ensure!(status["mode"] == if monitor { "monitor" } else { "enforce" }, "it said {status}");
        ensure!(
            status["ports"].as_array().map(Vec::len) == Some(1 + usize::from(monitor)),
            "it said {status}"
        );
        ensure!(interface["program_id"].as_u64().is_some_and(|id| id > 0), "it said {status}");
    }
    Ok(())
}

/// Starts a command of the guard whose standard input stays open and empty.
fn start_waiting(guard: &Guard, words: &[&str]) -> Result<Running> {
    let mut command = guard.command(words);
    Running::start("sipguard", command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()))
}

#[test]
fn the_filter_outlives_every_process_that_is_killed() -> Result<()> {
    let site = Site::new(true)?;
    let attaching = start_waiting(&site.guard, &["attach", "--confirm", "60s", Site::INTERFACE])?;
    wait_until("it is attached", || Ok(site.guard.run(&["status"])?.status == 0))?;
    let blocking = start_waiting(&site.guard, &["block", "-"])?;
    for mut process in [attaching, blocking] {
        process.expect_alive()?;
        process.signal(Signal::SIGKILL)?;
        wait_until("the process is gone", || Ok(process.try_wait()?.is_some()))?;
    }
    ensure!(filters(&site, "10.77.0.1")?, "it does not filter any more");
    // Both need the lock, and the second one alone.
    ensure!(site.guard.rules()?.is_empty(), "a killed `block` blocked something");
    site.guard.run(&["block", "192.0.2.7"])?.expect(0)?;
    Ok(())
}

#[test]
fn an_attach_that_is_killed_at_any_moment_can_be_repeated() -> Result<()> {
    let site = Site::new(true)?;
    for delay_ms in [2, 10, 30, 60, 100, 150, 200, 300, 400, 500, 700, 1000] {
        let mut attaching = start_waiting(&site.guard, &["attach", Site::INTERFACE])?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        attaching.signal(Signal::SIGKILL)?;
        wait_until("the process is gone", || Ok(attaching.try_wait()?.is_some()))?;
        site.guard
            .attach(&[Site::INTERFACE])
            .with_context(|| format!("after one killed at {delay_ms} ms"))?;
        ensure!(
            filters(&site, "10.77.0.1")?,
            "it does not filter after one that was killed at {delay_ms} ms"
        );
        site.guard.run(&["detach", "--all"])?.expect(0)?;
        ensure!(!has_program(&site, Site::INTERFACE)?, "it is attached still");
    }
    Ok(())
}

#[test]
fn an_attach_that_nobody_confirms_is_undone() -> Result<()> {
    let site = Site::new(true)?;
    let mut attaching = start_waiting(&site.guard, &["attach", "--confirm", "1s", Site::INTERFACE])?;
    wait_until("it gives up", || Ok(attaching.try_wait()?.is_some()))?;
    ensure!(attaching.try_wait()?.and_then(|status| status.code()) == Some(1), "{:?}", attaching.try_wait()?);
    ensure!(!has_program(&site, Site::INTERFACE)? && !site.guard.pins().exists(), "it is attached still");
    // The end of input is what a cut connection looks like.
    let output = site.guard.run(&["attach", "--confirm", "60s", Site::INTERFACE])?.expect(1)?;
    ensure!(output.stderr.contains("detached again from eth0"), "it said {:?}", output.stderr);
    ensure!(!has_program(&site, Site::INTERFACE)? && !site.guard.pins().exists(), "it is attached still");
    // And Enter keeps it.
    site.guard.run_with_input(&["attach", "--confirm", "60s", Site::INTERFACE], "\n")?.expect(0)?;
    ensure!(filters(&site, "10.77.0.1")?, "it does not filter");
    Ok(())
}

#[test]
fn an_interface_that_is_made_anew_is_attached_anew_as_often_as_it_comes() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    for number in 0..=IFACE_SLOTS {
        add_interface(&site)?;
        site.guard.attach(&["eth1"]).with_context(|| format!("the interface number {number}"))?;
        ensure!(has_program(&site, "eth1")?, "the interface number {number} has no program");
        let rows = site.guard.json(&["status"])?["interfaces"].as_array().map(Vec::len);
        ensure!(rows == Some(2), "{rows:?} interfaces with number {number}");
        site.pbx.run(&["ip", "link", "delete", "eth1"])?;
        // With its end goes the one of the phone.
        wait_until("it is gone", || Ok(site.phone.run(&["ip", "link", "show", "eth1"]).is_err()))?;
    }
    ensure!(filters(&site, "10.77.0.1")?, "the interface that stayed is not filtered any more");
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_named_and_nothing_is_attached() -> Result<()> {
    let site = Site::new(true)?;
    for words in [&["attach", "eth7"][..], &["attach", Site::INTERFACE, "eth7"]] {
        let output = site.guard.run(words)?.expect(1)?;
        ensure!(output.stderr.contains("no interface `eth7`"), "it said {:?}", output.stderr);
        ensure!(
            !has_program(&site, Site::INTERFACE)? && !site.guard.pins().exists(),
            "{words:?} left something"
        );
    }
    Ok(())
}

#[test]
fn another_xdp_program_is_named_and_stays() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let id = site.guard.json(&["status"])?["interfaces"][0]["program_id"].clone();
    add_interface(&site)?;
    let stranger = Guard::new(&site.pbx, &neighbour("SIPGUARD", "sipguard")?);
    for words in
        [&["attach", "eth0"][..], &["attach", "eth1", "eth0"], &["attach", "--xdp-mode", "generic", "eth0"]]
    {
        let output = stranger.run(words)?.expect(5)?;
        let named =
            output.stderr.contains("another sipguard") && output.stderr.contains(&format!("program {id}"));
        ensure!(named && output.stderr.contains("eth0"), "it said {:?}", output.stderr);
        ensure!(!stranger.pins().exists() && !has_program(&site, "eth1")?, "{words:?} left something behind");
    }
    ensure!(
        site.guard.json(&["status"])?["interfaces"][0]["program_id"] == id,
        "the first program was evicted"
    );
    ensure!(filters(&site, "10.77.0.1")?, "the first one does not filter any more");
    Ok(())
}

#[test]
fn what_is_not_attached_is_said_with_a_status_of_its_own() -> Result<()> {
    let site = Site::new(true)?;
    for verb in ["status", "counters", "lookup 192.0.2.7", "mode", "detach eth0"] {
        let words: Vec<&str> = verb.split(' ').collect();
        let output = site.guard.run(&words)?.expect(3).with_context(|| verb.to_owned())?;
        ensure!(output.stdout.is_empty() && output.stderr.contains("not attached"), "{verb}: {output:?}");
        ensure!(!site.guard.pins().exists(), "{verb} made the directory of the pins");
    }
    Ok(())
}

#[test]
fn without_privileges_it_names_those_that_are_missing() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    // Where nobody may read the build, nobody could run it.
    let scratch = Scratch::new("unprivileged")?;
    let copy = scratch.join("sipguard");
    std::fs::copy(neighbour("SIPGUARD", "sipguard")?, &copy).context("copying the program")?;
    for verb in ["attach eth0", "status", "list", "block 192.0.2.7", "counters", "detach --all"] {
        let mut command = site.pbx.command("setpriv");
        command
            .args(["--reuid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
            .arg(&copy);
        command.args(verb.split(' ')).env("SIPGUARD_PINS", site.guard.pins());
        let output = command.output().context("running setpriv")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(4), "{verb}: {}: {stderr}", output.status);
        for capability in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"] {
            ensure!(stderr.contains(capability), "{verb}: {capability} is not named: {stderr}");
        }
    }
    ensure!(filters(&site, "10.77.0.1")?, "it does not filter any more");
    Ok(())
}

#[test]
fn two_processes_at_once_lose_no_block() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let block = |network: u32| -> Result<()> {
        for round in 0..5 {
            let mut input = String::new();
            for host in 0..40 {
                writeln!(input, "198.18.{network}.{}", round * 40 + host)?;
            }
            site.guard.run_with_input(&["block", "-"], &input)?.expect(0)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let both = [1, 2].map(|network| scope.spawn(move || block(network)));
        both.into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let listed: BTreeSet<String> =
        site.guard.rules()?.iter().map(|row| text(row, "target")).collect::<Result<_>>()?;
    ensure!(listed.len() == 400, "{} of 400 are listed", listed.len());
    Ok(())
}

/// Verb, what and why of each row of the trail.
fn trail(site: &Site) -> Result<Vec<[String; 3]>> {
    let told = |row: &Value| Ok([text(row, "verb")?, text(row, "what")?, text(row, "comment")?]);
    site.guard.rows(&["log"])?.iter().map(told).collect()
}

#[test]
fn the_log_tells_what_was_done_to_the_guard() -> Result<()> {
    let site = Site::new(true)?;
    let run =
        |words: &str, status: i32| site.guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(status);
    // End of input is no confirmation.
    run("attach eth0 --confirm 60s", 1)?;
    run("attach eth0 --xdp-mode native", 0)?;
    run("attach eth0", 0)?;
    run("attach eth0 --monitor --port 5060,5080", 0)?;
    run("mode enforce", 0)?;
    run("mode enforce", 0)?;
    run("crash record on", 0)?;
    run("crash record on", 0)?;
    run("trunk add carrier --peer 192.0.2.200", 0)?;
    run("mode monitor --trunk carrier", 0)?;
    run("detach eth0", 0)?;
    let rows = trail(&site)?;
    let told: Vec<String> = rows.iter().map(|[verb, what, why]| format!("{verb}|{what}|{why}")).collect();
    let first = "guard.mode: none -> enforce; guard.ports: none -> 5060; guard.tls-ports: none -> 5061; guard.profile: none -> default; \
                 guard.refuse-lf: none -> false; guard.on-malformed: none -> reset|";
    let expected = [
        &format!("attach|eth0 native; {first}")[..],
        "attach|detached again from eth0|not confirmed",
        &format!("attach|eth0 native; {first}"),
        "attach|guard.mode: enforce -> monitor; guard.ports: 5060 -> 5060, 5080|",
        "mode|guard.mode: monitor -> enforce|",
        "crash record|off -> on|",
        "trunk add|carrier|",
        "trunk set|carrier mode: inherit -> monitor|",
        "detach|eth0|",
    ];
    ensure!(told == expected, "{told:#?}");
    let rows = site.guard.rows(&["log"])?;
    ensure!(rows.iter().all(|row| row["author"].is_string() && row["done_at"].is_string()), "{rows:?}");
    Ok(())
}

#[test]
fn what_the_log_can_t_tell_of_happens_all_the_same_and_is_said() -> Result<()> {
    let site = Site::new(true)?;
    // A file in the place of its directory.
    let run =
        |words: &[&str]| site.guard.run(&[words, &["--store", "/dev/null/rules.db"]].concat())?.expect(0);
    for (words, attached) in [(&["attach", "eth0"][..], true), (&["detach", "eth0"], false)] {
        let output = run(words)?;
        ensure!(output.stderr.contains("the log does not tell of it"), "{words:?}: {output:?}");
        ensure!(site.guard.pins().exists() == attached, "{words:?}: {output:?}");
    }
    Ok(())
}

/// A filter of somebody else on the way out, and the qdisc that holds it.
#[test]
fn what_others_have_on_the_way_out_stays() -> Result<()> {
    let site = Site::new(true)?;
    let pin = Path::new("/sys/fs/bpf").join(format!("sipguard-other-{}", std::process::id()));
    let mut other = Program::new()?;
    other.pin_second_eye(&pin)?;
    let (eth, path) = (Site::INTERFACE, pin.to_string_lossy().into_owned());
    let filter = ["tc", "filter", "add", "dev", eth, "egress", "prio", "7", "bpf", "da", "pinned", &path];
    let made =
        site.pbx.run(&["tc", "qdisc", "add", "dev", eth, "clsact"]).and_then(|_| site.pbx.run(&filter));
    // The filter holds the program.
    std::fs::remove_file(&pin)?;
    made?;
    let shown = || site.pbx.run(&["tc", "filter", "show", "dev", eth, "egress"]);
    let before = shown()?;
    ensure!(before.contains("pref 7"), "{before}");
    for _ in 0..2 {
        site.guard.attach(&[eth])?;
        ensure!(filters(&site, "10.77.0.1")?, "it does not filter");
        ensure!(site.guard.json(&["status"])?["weaknesses"].as_array().is_some_and(Vec::is_empty), "weaker");
        site.guard.run(&["detach", "--all"])?.expect(0)?;
        ensure!(shown()? == before, "{} before, {} now", before, shown()?);
    }
    let qdiscs = site.pbx.run(&["tc", "qdisc", "show", "dev", eth])?;
    ensure!(qdiscs.contains("clsact"), "{qdiscs}");
    Ok(())
}
