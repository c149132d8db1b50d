//! Who may override whom: the operator and what is automatic, blocks and allowances, and how `lookup`, `list` and `log` tell it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site, neighbour, number},
    rules::while_it_lasts,
};

/// Whether the PBX answers one echo request of the phone.
fn answers(site: &Site) -> Result<bool> {
    let mut ping = site.phone.command("ping");
    let output = ping.args(["-c", "1", "-W", "1", "10.77.0.1"]).output().context("running ping")?;
    Ok(output.status.success())
}

fn verdict(guard: &Guard, address: &str) -> Result<Value> {
    Ok(guard.json(&["lookup", address])?["verdict"].clone())
}

#[test]
fn an_allowance_lets_through_what_a_shorter_block_stops() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "10.77.0.2/31"])?.expect(0)?;
    ensure!(!answers(&site)?, "the block does not hold");
    let said = guard.run(&["allow", "10.77.0.2", "--comment", "our office"])?.expect(0)?;
    ensure!(said.stdout == "allowed 1 source permanently\n", "it said {said:?}");
    wait_until("the allowed phone is answered", || answers(&site))?;
    let said = guard.run(&["allow", "10.77.0.2"])?.expect(0)?;
    ensure!(said.stdout == "nothing changed, 1 source allowed so already\n", "it said {said:?}");
    while_it_lasts(|short| {
        guard.run(&["allow", "10.77.0.3", "--for", &short.to_string()])?.expect(0)?;
        ensure!(verdict(guard, "10.77.0.3")? == "pass", "the short allowance does not hold");
        Ok(())
    })?;
    wait_until("the short allowance ends", || Ok(verdict(guard, "10.77.0.3")? == "block"))?;
    let said = guard.run(&["unallow", "10.77.0.2"])?.expect(0)?;
    ensure!(said.stdout == "ended the allowance of 1 source\n", "it said {said:?}");
    ensure!(!answers(&site)?, "the block does not hold again");
    ensure!(guard.json(&["unallow", "--all"])?["removed"] == 0, "an allowance was left");
    Ok(())
}

#[test]
fn nothing_automatic_touches_what_is_allowed() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    // Blocked before it is allowed, alone and within a prefix.
    guard.run(&["block", "192.0.2.7", "198.51.100.7", "--origin", "fail2ban"])?.expect(0)?;
    guard.run(&["allow", "192.0.2.0/24", "198.51.100.7"])?.expect(0)?;
    for address in ["192.0.2.7", "198.51.100.7"] {
        ensure!(verdict(guard, address)? == "pass", "{address} is blocked still");
    }
    // And blocked after.
    let said = guard
        .run(&["block", "192.0.2.8", "198.51.100.7", "203.0.113.9", "--origin", "fail2ban"])?
        .expect(0)?;
    ensure!(
        said.stdout == "blocked 1 source permanently, skipped 2 sources, allowed or of a trunk\n",
        "it said {said:?}"
    );
    let change = guard.json(&["block", "192.0.2.8", "--origin", "fail2ban"])?;
    ensure!(change["skipped"] == 1 && change["added"] == 0, "it said {change}");
    ensure!(verdict(guard, "192.0.2.8")? == "pass" && verdict(guard, "203.0.113.9")? == "block", "not so");
    let refused =
        guard.run(&["block", "203.0.113.10", "192.0.2.8", "--origin", "fail2ban", "--no-skip"])?.expect(1)?;
    ensure!(
        refused.stderr.contains("192.0.2.8 is allowed, or a trunk's: nothing was blocked"),
        "it said {refused:?}"
    );
    ensure!(verdict(guard, "203.0.113.10")? == "pass", "half of it was blocked");
    // The allowance held back what goes on after it.
    guard.run(&["unallow", "--all"])?.expect(0)?;
    for (address, then) in [("192.0.2.7", "block"), ("198.51.100.7", "block"), ("192.0.2.8", "pass")] {
        ensure!(verdict(guard, address)? == then, "{address}: not {then}");
    }
    Ok(())
}

#[test]
fn the_operators_last_word_holds() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    for (words, then) in [
        ("block 192.0.2.7", "block"),
        ("allow 192.0.2.7", "pass"),
        ("block 192.0.2.7", "block"),
        ("allow 192.0.2.7 --origin partners", "pass"),
        ("block 192.0.2.7", "block"),
        ("block 192.0.2.7", "block"),
        ("allow 192.0.2.7 --origin partners", "pass"),
        ("unallow 192.0.2.7 --origin partners", "block"),
        ("unblock 192.0.2.7", "pass"),
        ("block 192.0.2.7 --monitor", "pass"),
        ("block 192.0.2.7", "block"),
    ] {
        guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?;
        ensure!(verdict(guard, "192.0.2.7")? == then, "after {words} it is not {then}");
    }
    Ok(())
}

#[test]
fn an_allowance_over_a_block_by_hand_gives_it_back() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let run = |words: &str| -> Result<String> {
        Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
    };
    let says = |words: &str, expected: &str| -> Result<()> {
        let said = run(words)?;
        ensure!(said.trim_end() == expected, "{words}: it said {said}");
        Ok(())
    };
    says("block 192.0.2.7 192.0.2.8 --for 1h --comment scans", "blocked 2 sources for 1h")?;
    says(
        "allow 192.0.2.7 --for 30m",
        "allowed 1 source for 30m, overruled 1 block until `sipguard unallow`",
    )?;
    ensure!(verdict(guard, "192.0.2.7")? == "pass", "the allowance does not hold");
    let found = guard.json(&["lookup", "192.0.2.7"])?;
    let over = &found["overruled"][0];
    ensure!(over["rule"] == "block" && over["why"] == "the operator's last word is allow", "it said {found}");
    says(
        "allow 192.0.2.7 --for 30m --comment sorry",
        "changed 1 rule, overruled 1 block until `sipguard unallow`",
    )?;
    // A list keeps both, and which of them decides.
    let exported = run("export --format json")?;
    let other = Guard::new(&site.pbx, &neighbour("SIPGUARD", "sipguard")?);
    other.run_with_input(&["import", "-"], &exported)?.expect(0)?;
    ensure!(other.rules()?.len() == 3, "{:?}", other.rows(&["list"])?);
    says("unallow 192.0.2.7", "ended the allowance of 1 source, 1 block holds again")?;
    ensure!(other.json(&["unallow", "--all"])?["restored"] == 1, "the imported block does not hold again");
    let rule = &guard.json(&["lookup", "192.0.2.7"])?["rule"];
    ensure!(
        rule["rule"] == "block" && rule["comment"] == "scans" && !rule["expires_at"].is_null(),
        "it is {rule}"
    );
    // And the other way round.
    says("allow 198.51.100.7 --comment office", "allowed 1 source permanently")?;
    says(
        "block 198.51.100.7",
        "blocked 1 source permanently, overruled 1 allowance until `sipguard unblock`",
    )?;
    ensure!(verdict(guard, "198.51.100.7")? == "block", "the block does not hold");
    let exported = run("export --format csv")?;
    let other = Guard::new(&site.pbx, &neighbour("SIPGUARD", "sipguard")?);
    other.run_with_input(&["import", "-"], &exported)?.expect(0)?;
    let rows = other.rules()?;
    let decides = |row: &&Value| row["target"] == "198.51.100.7" && row["decides"] == true;
    ensure!(rows.iter().find(decides).is_some_and(|row| row["rule"] == "block"), "listed is {rows:?}");
    says("unblock 198.51.100.7", "unblocked 1 source, 1 allowance holds again")?;
    ensure!(guard.json(&["lookup", "198.51.100.7"])?["rule"]["comment"] == "office", "the allowance is gone");
    says("unallow --all", "ended the allowance of 1 source")?;
    says("unblock --all", "unblocked 2 sources")?;
    ensure!(guard.rules()?.is_empty(), "something is left");
    Ok(())
}

#[test]
fn lookup_says_who_decided_and_what_is_overruled() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard
        .run(&["block", "10.77.0.0/16", "--force", "--comment", "the whole net", "--for", "2h"])?
        .expect(0)?;
    guard.run(&["block", "10.77.0.2", "--origin", "fail2ban", "--for", "1h"])?.expect(0)?;
    guard.run(&["block", "10.77.0.2", "--origin", "feed", "--comment", "on a list"])?.expect(0)?;
    ensure!(!answers(&site)?, "the block does not hold");
    let found = guard.json(&["lookup", "10.77.0.2"])?;
    let rule = &found["rule"];
    ensure!(rule["target"] == "10.77.0.2" && rule["origin"] == "feed", "it said {found}");
    ensure!(
        rule["comment"] == "on a list" && rule["expires_at"].is_null() && rule["created_at"].is_string(),
        "it said {found}"
    );
    ensure!(rule["author"].as_str().is_some_and(|author| !author.is_empty()), "it said {found}");
    ensure!(number(rule, "packets")? >= 1, "it said {found}");
    let why = |at: usize| found["overruled"][at]["why"].clone();
    ensure!(
        found["overruled"][0]["origin"] == "fail2ban"
            && why(0) == "another one of the same address ends later",
        "{found}"
    );
    ensure!(
        found["overruled"][1]["target"] == "10.77.0.0/16" && why(1) == "a longer prefix decides",
        "{found}"
    );
    let said = guard.run(&["lookup", "10.77.0.2"])?.expect(0)?.stdout;
    for part in [
        "blocked by 10.77.0.2, ends: never",
        "origin feed, by ",
        "comment: on a list",
        "overruled: block 10.77.0.0/16, ends: in 1h",
    ] {
        ensure!(said.contains(part), "{part} is missing in {said}");
    }
    guard.run(&["allow", "10.77.0.2"])?.expect(0)?;
    let found = guard.json(&["lookup", "10.77.0.2"])?;
    ensure!(found["verdict"] == "pass" && found["rule"]["rule"] == "allow", "it said {found}");
    let whys: Vec<_> =
        found["overruled"].as_array().context("a list")?.iter().map(|one| &one["why"]).collect();
    ensure!(whys.len() == 3 && whys[0] == "the operator's last word is allow", "it said {found}");
    Ok(())
}

#[test]
fn list_shows_what_is_asked_for() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7", "--for", "30m", "--origin", "fail2ban"])?.expect(0)?;
    guard.run(&["block", "192.0.2.8", "--for", "2h"])?.expect(0)?;
    guard.run(&["block", "192.0.2.9", "--monitor", "--comment", "looks odd"])?.expect(0)?;
    guard.run(&["allow", "198.51.100.0/24"])?.expect(0)?;
    for (words, sources) in [
        ("list", "192.0.2.7 192.0.2.8 192.0.2.9 198.51.100.0/24"),
        ("list block", "192.0.2.7 192.0.2.8 192.0.2.9"),
        ("list allow", "198.51.100.0/24"),
        ("list --origin fail2ban", "192.0.2.7"),
        ("list --expiring 1h", "192.0.2.7"),
        ("list block --expiring 1d --origin cli", "192.0.2.8"),
    ] {
        let rows = guard.rows(&words.split(' ').collect::<Vec<_>>())?;
        let found: Vec<_> = rows.iter().filter_map(|row| row["target"].as_str()).collect();
        ensure!(found.join(" ") == sources, "{words}: {found:?}");
    }
    let said = guard.run(&["list"])?.expect(0)?.stdout;
    ensure!(said.contains("block, counts only") && said.contains("looks odd"), "it said {said}");
    Ok(())
}

#[test]
fn the_log_has_one_row_a_command_that_changed_something() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7", "192.0.2.8", "--comment", "scans"])?.expect(0)?;
    guard.run(&["block", "192.0.2.7", "192.0.2.8"])?.expect(0)?;
    guard
        .run_with_input(
            &["block", "-", "--origin", "feed"],
            "203.0.113.1 203.0.113.2\n203.0.113.3 203.0.113.4 203.0.113.5",
        )?
        .expect(0)?;
    guard.run(&["unblock", "192.0.2.7"])?.expect(0)?;
    guard.run(&["allow", "192.0.2.7"])?.expect(0)?;
    let rows = guard.rows(&["log"])?;
    ensure!(rows[0]["verb"] == "attach", "{rows:?}");
    let told: Vec<String> = rows[1..]
        .iter()
        .map(|row| {
            format!(
                "{} {} +{} -{} {}",
                row["verb"], row["what"], row["added"], row["removed"], row["comment"]
            )
            .replace('"', "")
        })
        .collect();
    let expected = [
        "block 192.0.2.7 192.0.2.8 +2 -0 scans",
        "block 203.0.113.1 203.0.113.2 203.0.113.3 203.0.113.4 and 1 more +5 -0 ",
        "unblock 192.0.2.7 +0 -1 ",
        "allow 192.0.2.7 +1 -0 ",
    ];
    ensure!(told == expected, "it told {told:#?}");
    ensure!(guard.rows(&["audit", "--origin", "feed"])?.len() == 1, "the filter does not work");
    ensure!(guard.rows(&["log", "--last", "2"])?.len() == 2, "the limit does not work");
    Ok(())
}
