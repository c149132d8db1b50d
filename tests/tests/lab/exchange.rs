//! Lists of rules: every form in and out, many at once, and whole or not at all.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site, neighbour, number, text},
    process::Running,
    scratch::Scratch,
};

const TXT: &str = "# a list\n203.0.113.7 ; its comment\n2001:db8::/32 198.51.100.0/24\n\n";
const CSV: &str = "name,IP,comment,ends,rule\none,203.0.113.7,\"scans, often\",2099-01-01T00:00:00Z,\ntwo,2001:db8::/32,,,allow\n";
const PLAIN_CSV: &str = "203.0.113.7,DE,1\n2001:db8::/32,FR,2\n";
const JSON: &str = r#"[ "203.0.113.7", { "address": "2001:db8::/32", "mode": "monitor", "reason": "odd" } ]"#;
const IPSET: &str = "create bad hash:net family inet hashsize 1024 maxelem 65536 timeout 0 comment\n\
    add bad 203.0.113.7 timeout 3600 packets 7 bytes 9 comment \"scans, \"\n\
    add bad 198.51.100.0/24\nadd bad 198.51.100.7 nomatch\n";

/// Rules as the listing has them, short.
fn listed(guard: &Guard) -> Result<Vec<String>> {
    let line = |row: &Value| {
        let ends = if row["expires_at"].is_null() { "" } else { " ends" };
        let parts = [text(row, "rule")?, text(row, "target")?, text(row, "mode")?, text(row, "origin")?];
        Ok(format!("{} {}{ends}", parts.join(" "), text(row, "comment")?).trim_end().to_owned())
    };
    guard.rules()?.iter().map(line).collect()
}

fn import(guard: &Guard, file: &Path, words: &[&str]) -> Result<Value> {
    let file = file.to_string_lossy();
    guard.json(&[&["import", &*file], words].concat())
}

#[test]
fn every_form_is_read_and_known_by_its_name_or_its_beginning() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("lists")?;
    let net = "block 198.51.100.0/24 enforce import:bad";
    for (end, content, rules) in [
        (
            "txt",
            TXT,
            vec![net, "block 203.0.113.7 enforce import:bad", "block 2001:db8::/32 enforce import:bad"],
        ),
        (
            "csv",
            CSV,
            vec![
                "block 203.0.113.7 enforce import:bad scans, often ends",
                "allow 2001:db8::/32 enforce import:bad",
            ],
        ),
        (
            "csv",
            PLAIN_CSV,
            vec!["block 203.0.113.7 enforce import:bad", "block 2001:db8::/32 enforce import:bad"],
        ),
        (
            "json",
            JSON,
            vec!["block 203.0.113.7 enforce import:bad", "block 2001:db8::/32 monitor import:bad odd"],
        ),
        (
            "ipset",
            IPSET,
            vec![
                net,
                "allow 198.51.100.7 enforce import:bad",
                "block 203.0.113.7 enforce import:bad scans,  ends",
            ],
        ),
    ] {
        for name in [format!("bad.{end}"), "bad".to_owned()] {
            let file = scratch.write(&name, content)?;
            let change = import(guard, &file, &[])?;
            ensure!(change["added"] == rules.len(), "{name}: it said {change}");
            ensure!(listed(guard)? == rules, "{name}: listed is {:#?}", listed(guard)?);
            ensure!(import(guard, &file, &[])?["added"] == 0, "{name}: twice is not once");
            guard.run(&["unblock", "--all"])?.expect(0)?;
            guard.run(&["unallow", "--all"])?.expect(0)?;
        }
    }
    let said = guard.run_with_input(&["import", "-", "--origin", "feed", "--for", "1h"], TXT)?.expect(0)?;
    ensure!(said.stdout == "added 3 rules\n", "it said {said:?}");
    ensure!(
        listed(guard)?[0] == "block 198.51.100.0/24 enforce feed  ends",
        "listed is {:?}",
        listed(guard)?
    );
    let trail = guard.rows(&["log", "--last", "1"])?;
    ensure!(trail[0]["verb"] == "import" && trail[0]["added"] == 3, "the log has {trail:?}");
    Ok(())
}

#[test]
fn own_addresses_that_a_list_writes_as_ipv6_are_skipped() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let scratch = Scratch::new("mapped")?;
    for (end, content) in [
        ("txt", "203.0.113.7\n::ffff:10.77.0.0/120\n"),
        ("csv", "network,comment\n203.0.113.7,\n::ffff:a4d:0/120,\"martians\"\n"),
        ("json", r#"[ "203.0.113.7", { "cidr": "::ffff:10.77.0.1/128" } ]"#),
        ("ipset", "add bad 203.0.113.7\nadd bad ::ffff:10.77.0.0/120\n"),
    ] {
        let file = scratch.write(&format!("bad.{end}"), content)?;
        let said = site.guard.run(&["import", &file.to_string_lossy()])?.expect(0)?;
        let skipped = said.stderr.contains("10.77.0.") && said.stderr.contains("own address");
        ensure!(skipped && said.stdout == "added 1 rule\n", "{end}: it said {said:?}");
        ensure!(
            listed(&site.guard)? == ["block 203.0.113.7 enforce import:bad"],
            "{end}: listed is {:?}",
            listed(&site.guard)?
        );
        site.guard.run(&["unblock", "--all"])?.expect(0)?;
    }
    Ok(())
}

#[test]
fn short_prefixes_of_a_list_are_taken_by_force_and_own_addresses_never() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let (guard, scratch) = (&site.guard, Scratch::new("wide")?);
    for (end, content) in [
        ("txt", "203.0.113.7\n240.0.0.0/4\n0.0.0.0/0\n"),
        ("csv", "network\n203.0.113.7\n240.0.0.0/4\n::ffff:0:0/96\n"),
        ("json", "[\"203.0.113.7\",\n\"240.0.0.0/4\",\n\"0.0.0.0/0\"]"),
        ("ipset", "add bad 203.0.113.7\nadd bad 240.0.0.0/4\nadd bad 0.0.0.0/0\n"),
    ] {
        let file = scratch.write(&format!("bad.{end}"), content)?;
        let file = file.to_string_lossy();
        let line = if end == "csv" { ":3:" } else { ":2:" };
        let said = guard.run(&["import", &file])?.expect(2)?;
        ensure!(
            said.stderr.contains(line) && said.stderr.contains("240.0.0.0/4 is shorter"),
            "it said {said:?}"
        );
        ensure!(guard.rules()?.is_empty(), "{end}: something was imported");
        let said = guard.run(&["import", &file, "--force"])?.expect(0)?;
        ensure!(said.stdout == "added 2 rules\n" && said.stderr.contains("0.0.0.0/0 is"), "it said {said:?}");
        guard.run(&["unblock", "--all"])?.expect(0)?;
    }
    // An allowance stops nobody.
    let file = scratch.write("good.csv", "network,rule\n224.0.0.0/4,allow\n")?;
    guard.run(&["import", &file.to_string_lossy()])?.expect(0)?;
    Ok(())
}

#[test]
fn what_is_exported_is_imported_as_it_was() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    guard.run(&["block", "203.0.113.7", "--comment", "he said \"no\", twice", "--for", "1h"])?.expect(0)?;
    guard.run(&["block", "203.0.113.7", "2001:db8::/32", "--origin", "feed", "--monitor"])?.expect(0)?;
    guard.run(&["allow", "198.51.100.0/24"])?.expect(0)?;
    let before = guard.rules()?;
    ensure!(before.len() == 4, "listed is {before:?}");
    for form in ["json", "csv"] {
        let exported = guard.run(&["export", "--format", form])?.expect(0)?.stdout;
        let other = Guard::new(&site.pbx, &neighbour("SIPGUARD", "sipguard")?);
        other.run_with_input(&["import", "-"], &exported)?.expect(0)?;
        ensure!(other.rules()? == before, "{form}: {:#?}", other.rows(&["list"])?);
    }
    let exported = guard.run(&["export", "--format", "txt"])?.expect(0)?.stdout;
    ensure!(exported.lines().count() == 2, "exported is {exported}");
    let exported = guard.run(&["export", "--format", "ipset", "--origin", "cli"])?.expect(0)?.stdout;
    let adds: Vec<&str> = exported.lines().filter(|line| line.starts_with("add")).collect();
    ensure!(adds.len() == 2 && adds[0] == "add sipguard4 198.51.100.0/24 nomatch", "exported is {exported}");
    let ends = adds[1].starts_with("add sipguard4 203.0.113.7 timeout 3")
        && adds[1].ends_with("comment \"he said 'no', twice\"");
    ensure!(ends, "exported is {exported}");
    let other = Guard::new(&site.pbx, &neighbour("SIPGUARD", "sipguard")?);
    other.run_with_input(&["import", "-"], &exported)?.expect(0)?;
    ensure!(listed(&other)?.len() == 2, "listed is {:?}", listed(&other)?);
    Ok(())
}

#[test]
fn a_list_replaces_its_predecessor_and_nothing_else() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.1"])?.expect(0)?;
    guard.run(&["allow", "192.0.2.4"])?.expect(0)?;
    let replace = |list: &str| -> Result<Value> {
        let words = ["import", "-", "--origin", "feed", "--replace", "-j"];
        Ok(serde_json::from_str(&guard.run_with_input(&words, list)?.expect(0)?.stdout)?)
    };
    replace("192.0.2.1 192.0.2.2 192.0.2.3")?;
    let change = replace("192.0.2.3 192.0.2.4 192.0.2.5 10.77.0.1")?;
    ensure!(change["added"] == 1 && change["removed"] == 2 && change["unchanged"] == 1, "it said {change}");
    ensure!(change["skipped"] == 1, "what is allowed was not skipped: {change}");
    let rules = [
        "block 192.0.2.1 enforce cli",
        "block 192.0.2.3 enforce feed",
        "allow 192.0.2.4 enforce cli",
        "block 192.0.2.5 enforce feed",
    ];
    ensure!(listed(guard)? == rules, "listed is {:#?}", listed(guard)?);
    let said = guard.run_with_input(&["import", "-"], "10.77.0.1")?.expect(0)?;
    ensure!(
        said.stderr.contains("own address") && said.stdout.contains("nothing changed"),
        "it said {said:?}"
    );
    // A download that failed: what its source had set stays, until it is said.
    for list in ["", "# nothing any more\n", "10.77.0.1"] {
        let words = ["import", "-", "--origin", "feed", "--replace"];
        let said = guard.run_with_input(&words, list)?.expect(1)?;
        ensure!(said.stderr.contains("`sipguard unblock --all --origin feed`"), "{list:?}: it said {said:?}");
        ensure!(listed(guard)? == rules, "{list:?}: listed is {:#?}", listed(guard)?);
    }
    guard.run(&["unblock", "--all", "--origin", "feed"])?.expect(0)?;
    ensure!(listed(guard)?.len() == 2, "the last list stayed: {:#?}", listed(guard)?);
    Ok(())
}

/// Writes a list of that many addresses, a tenth of them of IPv6, and one prefix for every hundred.
fn many(scratch: &Scratch, count: u32) -> Result<PathBuf> {
    let mut list = String::new();
    for number in 0..count {
        let _infallible = match number % 10 {
            0 => writeln!(list, "{}", Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number))),
            _ => writeln!(
                list,
                "{}",
                Ipv4Addr::from(0x3000_0000 + number.wrapping_mul(2_654_435_761) % 0x1000_0000)
            ),
        };
    }
    for number in 0..count / 100 {
        writeln!(list, "{}/24", Ipv4Addr::from(0x6400_0000 + (number << 8)))?;
    }
    scratch.write("many.txt", &list)
}

#[test]
fn the_bar_of_an_import_goes_to_its_end_and_leaves_nothing() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let scratch = Scratch::new("lists")?;
    let file = many(&scratch, 100_000)?;
    let (pins, store) = (guard.pins().display(), guard.store().display());
    let program = neighbour("SIPGUARD", "sipguard")?;
    let words = format!("{} --pins {pins} --store {store} import {}", program.display(), file.display());
    // `script` gives it a terminal.
    let mut script = std::process::Command::new("script");
    let output = script.args(["-qec", &format!("stty cols 80; {words}"), "/dev/null"]).output()?;
    let screen = String::from_utf8_lossy(&output.stdout);
    let percents = || screen.split('%').filter_map(|text| text.rsplit(' ').next()?.parse::<u32>().ok());
    let last = percents().next_back().context("no bar")?;
    // The last drawing is up to a twentieth of a second old.
    ensure!(percents().next() == Some(0) && last >= 60, "the last one is {last} %");
    let (_, left) = screen.rsplit_once("\r\u{1b}[2K").context("it is not cleared")?;
    ensure!(left.starts_with("added 101000 rules; not attached"), "left is {left:?}");
    println!("{} drawings, the last at {last} %; then: {}", percents().count(), left.trim_end());
    Ok(())
}

/// Kernel memory of the two maps of rules.
fn map_bytes(guard: &Guard) -> Result<u64> {
    let mut sum = 0;
    for name in ["HOSTS", "PREFIXES"] {
        let mut show = std::process::Command::new("bpftool");
        let output =
            show.args(["-j", "map", "show", "pinned"]).arg(guard.pins().join("maps").join(name)).output()?;
        sum += number(&serde_json::from_slice(&output.stdout)?, "bytes_memlock")?;
    }
    Ok(sum)
}

#[test]
fn many_addresses_are_imported_restored_and_lifted() -> Result<()> {
    // A million with `SIPGUARD_MANY=1000000`, a program of the release profile in `SIPGUARD`, and `--nocapture`.
    let count = std::env::var("SIPGUARD_MANY").ok().map_or(Ok(50_000), |count| count.parse())?;
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("lists")?;
    let file = many(&scratch, count)?;
    let empty = map_bytes(guard)?;
    let timed = |what: &str, words: &[&str]| -> Result<Value> {
        let start = Instant::now();
        let answer = guard.json(words)?;
        println!("{what}: {:.2} s", start.elapsed().as_secs_f64());
        Ok(answer)
    };
    let file = file.to_string_lossy();
    let rules = u64::from(count + count / 100);
    let change = timed("import", &["import", &file])?;
    ensure!(change["added"] == rules && change["in_force"] == true, "it said {change}");
    let bytes = map_bytes(guard)?;
    println!("map memory: {empty} bytes empty, {bytes} with {rules} rules");
    ensure!(bytes < 150 << 20, "{bytes} bytes of map memory");
    let blocks = || number(&guard.json(&["status"])?, "blocks");
    ensure!(blocks()? == rules, "not all are in force");
    let change = timed("import again", &["import", &file])?;
    ensure!(change["unchanged"] == rules && change["added"] == 0, "it said {change}");
    timed("one more", &["block", "192.0.2.7"])?;
    timed("lookup", &["lookup", "192.0.2.7"])?;
    timed("one less", &["unblock", "192.0.2.7"])?;
    timed("detach", &["detach", "--all"]).context("detach")?;
    timed("attach", &["attach", Site::INTERFACE])?;
    ensure!(blocks()? == rules, "not all came back");
    let change = timed("unblock --all", &["unblock", "--all", "--origin", "import:many"])?;
    ensure!(change["removed"] == rules && blocks()? == 0, "it said {change}");
    Ok(())
}

#[test]
fn an_import_that_is_killed_at_any_moment_is_whole_or_not_at_all() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let scratch = Scratch::new("lists")?;
    let file = many(&scratch, 20_000)?;
    let mut left = Vec::new();
    for delay_ms in [10, 50, 150, 300, 500, 800, 1200, 1700, 2300] {
        let mut command = guard.command(&["import", &file.to_string_lossy()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Running::start("sipguard", &mut command)?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        process.signal(Signal::SIGKILL)?;
        wait_until("the process is gone", || Ok(process.try_wait()?.is_some()))?;
        guard.run(&["block", "192.0.2.8"])?.expect(0)?;
        let rows = guard.rules()?;
        let in_force = number(&guard.json(&["status"])?, "blocks")?;
        ensure!(in_force == rows.len() as u64, "{in_force} in force, {} stored", rows.len());
        ensure!(rows.iter().all(|row| row["in_force"] == true), "not in both after {delay_ms} ms");
        ensure!([1, 20_201].contains(&rows.len()), "{} rules after a kill at {delay_ms} ms", rows.len());
        left.push(rows.len());
        guard.run(&["unblock", "--all"])?.expect(0)?;
    }
    println!("rules left: {left:?}");
    Ok(())
}
