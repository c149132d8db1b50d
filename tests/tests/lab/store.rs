//! Rules by name: they outlive the kernel's maps, and every process that dies.

use std::{
    fmt::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_core::{blocks::Blocks, pins::Pins};
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site, number},
    process::{Running, output},
    rules::{addresses, consistent, listed, reboot, while_it_lasts},
};

fn attach(guard: &Guard) -> Result<()> {
    guard.attach(&[Site::INTERFACE])
}

/// When the kernel ends the rule of a source, on its own clock.
fn kernels_end(guard: &Guard, source: &str) -> Result<u64> {
    let blocks = Blocks::open(&Pins::new(guard.pins()))?;
    let rule = blocks.get(&source.parse().map_err(anyhow::Error::msg)?)?.context("no such rule")?;
    Ok(rule.expires_ns)
}

#[test]
fn rules_come_back_with_reason_and_end_after_a_reboot() -> Result<()> {
    let (site, end_before) = while_it_lasts(|short| {
        let site = Site::guarded(true, &[])?;
        let guard = &site.guard;
        guard.run(&["block", "192.0.2.7", "--for", "1h", "--comment", "scans for peers"])?.expect(0)?;
        guard.run(&["block", "2001:db8::/32", "--origin", "feed", "--monitor"])?.expect(0)?;
        guard.run(&["block", "192.0.2.8", "--for", &short.to_string()])?.expect(0)?;
        let before = guard.rules()?;
        let end_before = kernels_end(guard, "192.0.2.7")?;
        reboot(guard)?;
        let stored = guard.rules()?;
        ensure!(
            stored.len() == 3 && stored.iter().all(|row| row["in_force"] == false),
            "stored is {stored:?}"
        );
        attach(guard)?;
        let after = guard.rules()?;
        ensure!(after == before, "before {before:?}, after {after:?}");
        let hour = before.iter().find(|row| row["target"] == "192.0.2.7").context("the hour's block")?;
        ensure!(
            hour["comment"] == "scans for peers" && hour["created_at"] != hour["expires_at"],
            "listed is {hour}"
        );
        ensure!(guard.json(&["lookup", "192.0.2.8"])?["verdict"] == "block", "the short block is not back");
        Ok((site, end_before))
    })?;
    let guard = &site.guard;
    // The kernel got what was left of the time, not all of it again.
    let moved = kernels_end(guard, "192.0.2.7")?.abs_diff(end_before);
    ensure!(moved < Duration::from_millis(100).as_nanos() as u64, "the end moved by {moved} ns");
    let pass = || Ok(guard.json(&["lookup", "192.0.2.8"])?["verdict"] == "pass");
    wait_until("the short block ends", pass)?;
    ensure!(guard.json(&["lookup", "192.0.2.7"])?["verdict"] == "block", "the long block ended");
    reboot(guard)?;
    attach(guard)?;
    ensure!(consistent(guard)? == 2, "the ended block came back");
    Ok(())
}

#[test]
fn what_is_said_while_nothing_is_attached_waits_for_the_attach() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let said = guard.run(&["block", "192.0.2.7", "192.0.2.8"])?.expect(0)?;
    ensure!(said.stdout.contains("takes effect with the next `sipguard attach`"), "it said {said:?}");
    let change = guard.json(&["unblock", "192.0.2.8"])?;
    ensure!(change["removed"] == 1 && change["in_force"] == false, "it said {change}");
    ensure!(!guard.pins().exists(), "pins were made");
    let mode = |path: &Path| anyhow::Ok(std::fs::metadata(path)?.permissions().mode() & 0o777);
    let directory = guard.store().parent().context("a directory")?;
    ensure!(mode(guard.store())? == 0o600 && mode(directory)? == 0o700, "others may read the store");
    attach(guard)?;
    ensure!(consistent(guard)? == 1 && listed(guard)? == ["192.0.2.7 cli"], "listed is {:?}", listed(guard)?);
    Ok(())
}

#[test]
fn one_source_lifts_its_own_block_only() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7", "--origin", "fail2ban", "--for", "1h"])?.expect(0)?;
    guard.run(&["block", "192.0.2.7", "--origin", "feed"])?.expect(0)?;
    let rows = guard.rules()?;
    let decides: Vec<_> = rows.iter().map(|row| (&row["origin"], row["decides"] == true)).collect();
    ensure!(decides == [(&"fail2ban".into(), false), (&"feed".into(), true)], "listed is {rows:?}");
    let ends = || anyhow::Ok(guard.json(&["lookup", "192.0.2.7"])?["rule"]["expires_at"].clone());
    ensure!(ends()?.is_null(), "the block that ends last does not hold");
    guard.run(&["unblock", "--origin", "feed", "--all"])?.expect(0)?;
    ensure!(listed(guard)? == ["192.0.2.7 fail2ban"] && ends()?.is_string(), "the other block does not hold");
    // As fail2ban does when it stops: twice.
    for removed in [1, 0] {
        let change = guard.json(&["unblock", "--origin", "fail2ban", "--all"])?;
        ensure!(change["removed"] == removed, "it said {change}");
    }
    ensure!(guard.json(&["lookup", "192.0.2.7"])?["verdict"] == "pass", "a block stayed");
    // The operator lifts what anybody has set.
    guard.run(&["block", "192.0.2.7", "--origin", "feed"])?.expect(0)?;
    guard.run(&["unblock", "192.0.2.7"])?.expect(0)?;
    ensure!(consistent(guard)? == 0, "a block stayed");
    Ok(())
}

#[test]
fn what_has_ended_is_swept_from_store_and_maps() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7", "198.51.100.0/24", "--for", "1s"])?.expect(0)?;
    wait_until("the blocks end", || Ok(guard.rules()?.is_empty()))?;
    guard.run(&["block", "192.0.2.9"])?.expect(0)?;
    for (map, count) in [("HOSTS", 1), ("PREFIXES", 0)] {
        let mut dump = Command::new("bpftool");
        let dump = dump.args(["-j", "map", "dump", "pinned"]).arg(guard.pins().join("maps").join(map));
        let entries: Value = serde_json::from_str(&output(dump)?)?;
        ensure!(entries.as_array().map(Vec::len) == Some(count), "{map} has {entries}");
    }
    ensure!(consistent(guard)? == 1, "the ended ones are listed");
    Ok(())
}

/// Starts `block -` with many addresses, and leaves it without the end of its input.
fn start_block(guard: &Guard, input: &str) -> Result<Running> {
    let path = guard.store().with_file_name("addresses");
    std::fs::write(&path, input)?;
    let mut command = guard.command(&["block", "-"]);
    let input = std::fs::File::open(&path)?;
    Running::start("sipguard", command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn kill(mut process: Running) -> Result<()> {
    process.signal(Signal::SIGKILL)?;
    wait_until("the process is gone", || Ok(process.try_wait()?.is_some()))
}

/// Starts to block many addresses, kills that once the kernel has the first, and runs `next`. `false` when it was done before.
fn kill_between(guard: &Guard, next: &str) -> Result<bool> {
    const COUNT: u32 = 30_000;
    let process = start_block(guard, &addresses(COUNT))?;
    let hosts = guard.pins().join("maps").join("HOSTS");
    wait_until("the first entry is in the map", || {
        let mut next = Command::new("bpftool");
        Ok(next.args(["map", "getnext", "pinned"]).arg(&hosts).output()?.status.success())
    })?;
    kill(process)?;
    ensure!(number(&guard.json(&["status"])?, "blocks")? > 0, "nothing was in the map");
    guard.run(&next.split(' ').collect::<Vec<_>>())?.expect(0)?;
    let left = consistent(guard).context(next.to_owned())?;
    ensure!(
        left <= 1 || left >= COUNT as usize,
        "{next} left {left} rules of what a killed `block` had begun"
    );
    guard.run(&["unblock", "--all"])?.expect(0)?;
    Ok(left <= 1)
}

#[test]
fn a_block_that_is_killed_at_any_moment_is_whole_or_not_at_all() -> Result<()> {
    const COUNT: u32 = 30_000;
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7", "--for", "1h", "--comment", "before"])?.expect(0)?;
    let addresses = addresses(COUNT);
    for delay_ms in [5, 20, 60, 120, 250, 400, 700, 1100, 1600] {
        let process = start_block(guard, &addresses)?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        kill(process)?;
        guard.run(&["block", "192.0.2.8"])?.expect(0)?;
        let rules = consistent(guard).with_context(|| format!("killed after {delay_ms} ms"))?;
        ensure!([2, 2 + COUNT as usize].contains(&rules), "{rules} rules after a kill at {delay_ms} ms");
        guard.run(&["unblock", "--all"])?.expect(0)?;
        guard.run(&["block", "192.0.2.7", "--for", "1h", "--comment", "before"])?.expect(0)?;
    }
    Ok(())
}

#[test]
fn a_block_that_is_killed_between_store_and_maps_is_taken_back() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7"])?.expect(0)?;
    guard.run(&["unblock", "192.0.2.7"])?.expect(0)?;
    for next in ["block 192.0.2.8", "unblock 192.0.2.99", "attach eth0"] {
        // On a busy machine the kill may come when all is done.
        wait_until("a block is killed half way", || kill_between(guard, next))?;
    }
    Ok(())
}

#[test]
fn two_writers_at_once_lose_nothing() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let write = |source: &str, network: u32| -> Result<()> {
        for round in 0..50 {
            let mut input = String::new();
            for host in 0..20 {
                writeln!(input, "198.18.{}.{}", network + round / 10, round % 10 * 20 + host)?;
            }
            site.guard.run_with_input(&["block", "-", "--origin", source], &input)?.expect(0)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        // The same addresses, so that each writes beside the other's rows.
        let both =
            [("one", 1), ("two", 1)].map(|(source, network)| scope.spawn(move || write(source, network)));
        both.into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let rows = site.guard.rules()?;
    for source in ["one", "two"] {
        let count = rows.iter().filter(|row| row["origin"] == source).count();
        ensure!(count == 1000, "{count} of 1000 are listed for {source}");
    }
    let in_force = number(&site.guard.json(&["status"])?, "blocks")?;
    ensure!(in_force == 1000, "{in_force} of 1000 are in force");
    Ok(())
}

#[test]
fn a_rule_that_the_kernel_refuses_is_not_claimed() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7", "--comment", "old"])?.expect(0)?;
    let before = guard.rules()?;
    let mut freeze = Command::new("bpftool");
    output(freeze.args(["map", "freeze", "pinned"]).arg(guard.pins().join("maps").join("PREFIXES")))?;
    // The hosts are taken, the prefix is not, and the hosts are given back.
    let words = ["block", "192.0.2.6", "192.0.2.7", "198.51.100.0/24", "--comment", "new", "--for", "1h"];
    let said = guard.run(&words)?.expect(1)?;
    let clear = said.stderr.contains("198.51.100.0/24") && said.stderr.contains("nothing was changed");
    ensure!(clear, "it said {said:?}");
    ensure!(guard.rules()? == before, "listed is {:?}", guard.rows(&["list"])?);
    ensure!(consistent(guard)? == 1, "something stayed");
    // A list goes to the kernel while it is written to the store, and comes back all the same.
    let list = addresses(20_000) + "198.51.100.0/24\n";
    guard.run_with_input(&["import", "-", "--format", "txt"], &list)?.expect(1)?;
    ensure!(guard.rules()? == before && consistent(guard)? == 1, "something of the list stayed");
    Ok(())
}
