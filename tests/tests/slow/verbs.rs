//! Every verb beside few and many rules: none takes the memory that the PBX needs, and none waits for a long list.
//!
//! A million with `SIPGUARD_MANY=1000000`, a program of the release profile in `SIPGUARD`, and `--nocapture`, which prints the tables.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::Stdio, time::Instant};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    exclusive,
    guard::{Guard, Site, neighbour, number},
    process::Running,
    scratch::Scratch,
};

/// What a verb may take, in kilobytes; what reads or writes a whole list apart.
const MOST_KB: u64 = 64 << 10;

/// Verbs with their arguments, in an order in which each has something to do.
const VERBS: &[&str] = &[
    "status",
    "counters",
    "counters --by source",
    "counters --by trunk",
    "counters --format prometheus",
    "lookup 48.0.0.1",
    "list",
    "feed",
    "list ban",
    "list allow",
    "list --origin nobody",
    "list --limit all",
    "block 192.0.2.1",
    "unblock 192.0.2.1",
    "block 192.0.2.0/24",
    "allow 192.0.2.0/24",
    "unallow 192.0.2.0/24",
    "unblock 192.0.2.0/24",
    "trunk add carrier --peer 198.51.100.0/24",
    "trunk set carrier --transport tcp",
    "trunk list",
    "trunk remove carrier",
    "limit list",
    "limit set --of register 400/s",
    "deny REGISTER/tcp --from devices",
    "permit REGISTER/tcp --from devices",
    "bans",
    "mode monitor",
    "mode enforce",
    "log",
    "events -n 1",
    "top --once",
    "check",
    "reload",
    "export",
    "detach --all",
    "attach eth0",
    "unblock --all",
];

fn many() -> Result<Option<u32>> {
    std::env::var("SIPGUARD_MANY").ok().map(|count| count.parse().context("SIPGUARD_MANY")).transpose()
}

/// A list of that many addresses.
fn list(scratch: &Scratch, count: u32) -> Result<PathBuf> {
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "{}", std::net::Ipv4Addr::from(0x3000_0000 + number))?;
    }
    scratch.write("list.txt", &text)
}

/// Runs a verb; the seconds and kilobytes that it took.
fn measured(guard: &Guard, words: &str) -> Result<(f64, u64)> {
    let mut verb = guard.command(&words.split(' ').collect::<Vec<_>>());
    // Behind `nsenter --net=... --`, which becomes it.
    let inner: Vec<_> = verb.get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut command = std::process::Command::new(verb.get_program());
    let (enter, own) = inner.split_at(2);
    command.args(enter).arg(neighbour("MEASURE", "measure")?).args(own);
    command.envs(verb.get_envs().filter_map(|(name, value)| Some((name, value?))));
    verb.stdin(Stdio::null());
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{words}: {said}");
    let last = said.lines().last().context("nothing was measured")?;
    let (seconds, kilobytes) = last.split_once(' ').context("nothing was measured")?;
    Ok((seconds.parse()?, kilobytes.parse()?))
}

#[test]
fn no_verb_takes_the_memory_that_the_pbx_needs() -> Result<()> {
    let _shared = exclusive::beside_others();
    let counts: Vec<u32> = [Some(0), Some(10_000), many()?].into_iter().flatten().collect();
    let mut table = vec![String::new(); VERBS.len()];
    for count in &counts {
        let site = Site::guarded(true, &[])?;
        let scratch = Scratch::new("verbs")?;
        let file = list(&scratch, *count)?;
        let import = format!("import {}", file.display());
        println!("{count} rules: import {:?}", measured(&site.guard, &import)?);
        for (verb, line) in VERBS.iter().zip(&mut table) {
            let (seconds, kilobytes) = measured(&site.guard, verb)?;
            let _infallible =
                write!(line, " | {:>8.1} | {:>5.1}", seconds * 1000.0, kilobytes as f64 / 1024.0);
            ensure!(kilobytes < MOST_KB, "{verb} took {kilobytes} kB beside {count} rules");
        }
    }
    println!(
        "| verb | {} |",
        counts.iter().map(|count| format!("{count}: ms | MB")).collect::<Vec<_>>().join(" | ")
    );
    for (verb, line) in VERBS.iter().zip(table) {
        println!("| {verb:40}{line} |");
    }
    Ok(())
}

#[test]
fn the_panic_switch_does_not_wait_for_a_long_list() -> Result<()> {
    let _shared = exclusive::beside_others();
    let count = many()?.unwrap_or(60_000);
    let (site, other) = (Site::guarded(true, &[])?, Site::guarded(true, &[])?);
    let scratch = Scratch::new("verbs")?;
    let file = list(&scratch, count)?;
    let file = file.to_string_lossy();
    let (mut answers, mut rounds) = (0, 0);
    let mut longest: BTreeMap<&str, f64> = BTreeMap::new();
    // A hundred answers while lists come and go; a list that ends meanwhile is followed by the next.
    'lists: for words in [&["import", &file][..], &["unblock", "--all"]].iter().cycle() {
        rounds += 1;
        ensure!(
            rounds < 100,
            "{answers} answers in a hundred lists: each was through before anything was asked"
        );
        let mut command = site.guard.command(words);
        let mut long = Running::start("a long list", command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        for verbs in [
            "mode monitor",
            "mode enforce",
            "block 192.0.2.1",
            "lookup 192.0.2.1",
            "counters",
            "status",
            "list",
        ]
        .iter()
        .cycle()
        {
            let start = Instant::now();
            site.guard.run(&verbs.split(' ').collect::<Vec<_>>())?.expect(0)?;
            let took = start.elapsed().as_secs_f64();
            other.guard.run(&["mode", "monitor"])?.expect(0)?;
            if let Some(status) = long.try_wait()? {
                ensure!(status.success(), "{words:?} failed: {status}");
                break;
            }
            answers += 1;
            let most = longest.entry(verbs).or_default();
            *most = most.max(took);
            if answers == 100 {
                break 'lists;
            }
        }
    }
    println!("{answers} answers beside lists of {count} addresses, the longest in seconds: {longest:.3?}");
    // What was cut off is taken back or brought to its end, and then store and kernel are one.
    site.guard.run(&["block", "192.0.2.2"])?.expect(0)?;
    let rules = site.guard.rules()?;
    let blocks = number(&site.guard.json(&["status"])?, "blocks")?;
    ensure!(rules.iter().all(|row| row["in_force"] == true), "not all are in force");
    ensure!(blocks == rules.len() as u64, "{blocks} in force, {} stored", rules.len());
    Ok(())
}
