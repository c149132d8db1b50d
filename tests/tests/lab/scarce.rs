//! What is scarce: room in a map, descriptors, memory, and a bpffs. What runs out of them fails by name or is killed; the filter stays as it is.

use std::{fmt::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::abi::USER_AGENT_ENTRIES;
use sipguard_tests::{
    guard::{Guard, Output, Site},
    rules::{addresses, consistent},
};

/// A command of the guard, by way of another program that sets a limit: what `nsenter` enters is what that runs.
fn limited(guard: &Guard, by: &[&str], words: &str, input: &str) -> Result<(Option<i32>, String)> {
    let plain = guard.command(&words.split(' ').collect::<Vec<_>>());
    let mut command = Command::new(by[0]);
    command.args(&by[1..]).arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let path = guard.pins().file_name().map(|name| std::env::temp_dir().join(name)).context("no name")?;
    std::fs::write(&path, input)?;
    let output = command.stdin(std::fs::File::open(&path)?).output().context("running it")?;
    std::fs::remove_file(path)?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn run(guard: &Guard, words: &str, status: i32) -> Result<Output> {
    guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(status)
}

/// Names beside the pins that begin as they do.
fn begun(guard: &Guard) -> Result<Vec<String>> {
    let own = format!("{}-", guard.pins().file_name().context("no name")?.to_string_lossy());
    let entries = std::fs::read_dir(guard.pins().parent().context("no directory")?)?;
    let names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| name.starts_with(&own)).collect())
}

#[test]
fn without_descriptors_nothing_is_taken_off_and_nobody_is_told_that_nothing_filters() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "block 192.0.2.7", 0)?;
    // Below four the dynamic linker finds no library; with all of them everything works.
    let (mut failed, mut worked) = (0, 0);
    for descriptors in [4, 6, 8, 11, 14, 20, 32, 64] {
        let limit = format!("--nofile={descriptors}:{descriptors}");
        for words in
            ["status", "mode", "lookup 192.0.2.7", "attach eth0", "block 192.0.2.8", "unblock 192.0.2.8"]
        {
            let (status, said) = limited(guard, &["prlimit", &limit], words, "")?;
            let shown = || format!("{words} with {descriptors} descriptors ended with {status:?}: {said}");
            match status {
                Some(0) => worked += 1,
                Some(1) => {
                    ensure!(
                        said.contains("Too many open files") || said.contains("os error 24"),
                        "{}",
                        shown()
                    );
                    failed += 1;
                }
                _ => anyhow::bail!("{}", shown()),
            }
            ensure!(run(guard, "status", 0).is_ok(), "{}: it does not filter any more", shown());
        }
        run(guard, "unblock 192.0.2.8", 0)?;
        ensure!(consistent(guard)? == 1, "with {descriptors} descriptors a rule was lost");
    }
    ensure!(failed > 10 && worked > 10, "{failed} failed, {worked} worked");
    Ok(())
}

#[test]
fn a_rule_that_finds_no_room_is_refused_and_all_others_stay() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let mut list = String::new();
    for number in 0..USER_AGENT_ENTRIES {
        writeln!(list, "user-agent:scanner-{number}x")?;
    }
    guard.run_with_input(&["import", "-", "--format", "txt"], &list)?.expect(0)?;
    let full = USER_AGENT_ENTRIES as usize;
    ensure!(consistent(guard)? == full, "not all of them are in force");
    let said = run(guard, "block --user-agent one-more", 1)?.stderr;
    ensure!(
        said.contains("one-more") && said.contains("map is full") && said.contains("nothing was changed"),
        "{said}"
    );
    ensure!(consistent(guard)? == full, "something changed");
    // What is of another kind, or there already, finds its place, and one that goes makes room.
    run(guard, "block 192.0.2.7", 0)?;
    run(guard, "block --user-agent scanner-7x --origin import:stdin --comment again", 0)?;
    run(guard, "unblock --user-agent scanner-8x", 0)?;
    run(guard, "block --user-agent one-more", 0)?;
    ensure!(consistent(guard)? == full + 1, "it found no room");
    run(guard, "status", 0).map(drop)
}

/// Where everybody may write to the bpffs, as where it was mounted by hand.
#[test]
fn what_others_put_in_the_place_of_the_pins_is_named() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let foreign = guard.pins().join("foreign");
    std::fs::create_dir_all(&foreign)?;
    let said = limited(guard, &["timeout", "60"], "attach eth0", "")?;
    std::fs::remove_dir(&foreign)?;
    ensure!(said.0 == Some(1) && said.1.contains("/foreign is not sipguard's"), "{said:?}");
    guard.attach(&[Site::INTERFACE])
}

/// A cgroup with a limit to its memory, removed on drop.
struct Cgroup {
    path: PathBuf,
    limit: &'static str,
}

impl Cgroup {
    /// `None` where this machine lets nobody make one.
    fn new(name: &str) -> Option<Cgroup> {
        let places = [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        places.into_iter().find_map(|(place, limit)| {
            let path = PathBuf::from(place).join(format!("sipguard-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).ok()?;
            let cgroup = Cgroup { path, limit };
            cgroup.path.join(limit).exists().then_some(cgroup)
        })
    }

    /// Runs a command of a guard within a limit in MiB.
    fn run(&self, guard: &Guard, mib: u32, words: &str, input: &str) -> Result<(Option<i32>, String)> {
        std::fs::write(self.path.join(self.limit), format!("{mib}M")).context("setting a limit")?;
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        limited(guard, &["sh", "-c", &script, "sh"], words, input)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.path) {
            eprintln!("lab: {} stays behind: {error}", self.path.display());
        }
    }
}

#[test]
fn a_memory_limit_is_named_and_who_is_killed_by_it_leaves_nothing_half_done() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let Some(cgroup) = Cgroup::new("scarce") else {
        println!(
            "skipped: a_memory_limit_is_named_and_who_is_killed_by_it_leaves_nothing_half_done (no cgroup)"
        );
        return Ok(());
    };
    let (mut killed, mut named) = (0, 0);
    for mib in [4, 8, 16, 32, 48, 64, 80] {
        let (status, said) = cgroup.run(guard, mib, "attach eth0", "")?;
        match status {
            None => killed += 1,
            Some(5) => {
                ensure!(said.contains("MemoryMax=") && said.contains("--flows"), "{said}");
                named += 1;
            }
            Some(0) => break,
            other => anyhow::bail!("with {mib} MiB it ended with {other:?}: {said}"),
        }
        run(guard, "status", 3)?;
        // Whoever takes off what there is finds also what was begun.
        run(guard, "detach --all", 3)?;
        ensure!(!guard.pins().exists() && begun(guard)?.is_empty(), "{:?} is left", begun(guard)?);
    }
    ensure!(killed > 0 && named > 0, "{killed} were killed, {named} said why");
    guard.attach(&[Site::INTERFACE])?;
    run(guard, "block 192.0.2.7", 0)?;
    killed = 0;
    for mib in [3, 4, 6, 8, 12] {
        let (status, said) = cgroup.run(guard, mib, "block -", &addresses(20_000))?;
        ensure!(
            [None, Some(0), Some(1)].contains(&status),
            "with {mib} MiB it ended with {status:?}: {said}"
        );
        killed += usize::from(status != Some(0));
        run(guard, "block 192.0.2.8", 0)?;
        let rules = consistent(guard)?;
        ensure!([2, 20_002].contains(&rules), "{rules} rules with {mib} MiB");
        run(guard, "unblock --all", 0)?;
        run(guard, "block 192.0.2.7", 0)?;
    }
    println!("{killed} lists were not taken");
    ensure!(killed > 0, "no list needed more than 3 MiB");
    run(guard, "status", 0).map(drop)
}

/// `umount /sys/fs/bpf`, or a container that has none: who looks there sees no pins.
#[test]
fn without_a_bpffs_it_is_said_and_nothing_is_mounted_over_it() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let without = |words: &str| {
        let script = "mount --make-rprivate / && mount -t tmpfs none /sys/fs/bpf && exec \"$@\"";
        limited(guard, &["unshare", "--mount", "sh", "-c", script, "sh"], words, "")
    };
    let (status, said) = without("status")?;
    ensure!(status == Some(3) && said.contains("not attached"), "{status:?}: {said}");
    let (status, said) = without("attach eth0")?;
    ensure!(status == Some(1) && said.contains("bpffs"), "{status:?}: {said}");
    // Rules go to the store, which says that they wait.
    let (status, said) = without("block 192.0.2.7")?;
    ensure!(status == Some(0), "{status:?}: {said}");
    run(guard, "status", 0)?;
    // The next change brings into force what waited.
    run(guard, "block 192.0.2.8", 0)?;
    ensure!(consistent(guard)? == 2, "a rule waits still");
    Ok(())
}
