//! Limits by command: what is over them is dropped, of a source and of a trunk, and they are kept.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Result, ensure};
use serde_json::Value;
use sipguard_common::{Reason, abi::rules_in_use};
use sipguard_core::{maps, pins::Pins};
use sipguard_tests::{
    application::{sip, wait_until},
    guard::{Guard, Site, text},
    message::register,
};

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

/// Sends 200 registrations, and says how many were valid and how many over the limit.
fn flood(site: &Site, to: IpAddr) -> Result<(u64, u64)> {
    let counted = || {
        Ok::<_, anyhow::Error>((
            site.guard.counted(Reason::Valid)?,
            site.guard.counted(Reason::RateRegister)?,
        ))
    };
    let before = counted()?;
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = site.phone.enter(|| UdpSocket::bind((any, 0)))??;
    for number in 0..200 {
        site.phone.enter(|| socket.send_to(&register(number), sip(to)))??;
    }
    let now = || Ok::<_, anyhow::Error>((counted()?.0 - before.0, counted()?.1 - before.1));
    wait_until("all are counted", || Ok(now().map(|(valid, over)| valid + over)? == 200))?;
    now()
}

#[test]
fn what_is_over_the_limit_is_dropped_of_a_source_and_of_a_trunk() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let [trunk, device] = Site::PBX;
    run(guard, "trunk add carrier --peer 10.77.0.2")?;
    let limited =
        || Ok::<_, anyhow::Error>(maps::settings(&Pins::new(guard.pins()))?.rules & rules_in_use::RATES != 0);
    let first = guard.rows(&["limit", "list"])?;
    ensure!(
        first.len() == 4 && first.iter().all(|row| row["author"] == "default") && limited()?,
        "{first:?}"
    );
    run(guard, "limit clear")?;
    run(guard, "bans off")?;
    ensure!(!limited()?, "the kernel looks for limits that there are not");
    let said = run(guard, "limit set --of register 1/s burst 50")?;
    ensure!(said == "limited register for devices: 1/s burst 50\n", "it said {said}");
    ensure!(
        run(guard, "limit set --of register --per source 1/s burst 50")?.starts_with("nothing changed"),
        "again"
    );
    let (valid, over) = flood(&site, device)?;
    ensure!((50..100).contains(&valid) && over > 100, "{valid} passed, {over} were over the limit");
    ensure!(flood(&site, trunk)? == (200, 0), "the trunk has no limit");
    run(guard, "limit set --trunk carrier --of register 1/s burst 20")?;
    // As it was written before.
    let again = run(guard, "limit set --per trunk carrier --of register 1/s burst 20")?;
    ensure!(again.starts_with("nothing changed"), "it said {again}");
    let (valid, over) = flood(&site, trunk)?;
    ensure!((20..70).contains(&valid) && over > 130, "{valid} passed, {over} were over the limit");
    // Kept, brought back, and found in the kernel when the store is gone.
    let before = guard.rows(&["limit", "list"])?;
    ensure!(before.len() == 2 && before[1]["trunk"] == "carrier" && before[1]["burst"] == 20, "{before:?}");
    run(guard, "detach --all")?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(limited()? && guard.rows(&["limit", "list"])? == before, "they did not come back");
    std::fs::remove_file(guard.store())?;
    run(guard, "block 192.0.2.7")?;
    let rows = guard.rows(&["limit", "list"])?;
    ensure!(rows.len() == 2 && rows[0]["burst"] == 50 && rows[1]["burst"] == 20, "{rows:?}");
    run(guard, "limit clear")?;
    run(guard, "trunk remove recovered-1")?;
    ensure!(guard.rows(&["limit", "list"])?.is_empty() && !limited()?, "something is limited still");
    ensure!(flood(&site, device)? == (200, 0), "a source is limited still");
    // Back to what a new store has: of one kind, and of all.
    run(guard, "trunk add carrier --peer 10.77.0.2")?;
    run(guard, "limit set --trunk carrier --of open 7")?;
    run(guard, "limit set --of open 7")?;
    let said = run(guard, "limit reset --of register")?;
    ensure!(said.contains("register 500/s burst 6000"), "it said {said}");
    let rows = guard.rows(&["limit", "list"])?;
    ensure!(rows.len() == 3 && rows.iter().any(|row| row["burst"] == 6000) && limited()?, "{rows:?}");
    run(guard, "limit set --of register 1/s burst 50 --monitor")?;
    run(guard, "limit reset")?;
    run(guard, "limit reset --trunk carrier")?;
    ensure!(limits(guard)? == first.iter().map(limit).collect::<Result<Vec<_>>>()?, "{:?}", limits(guard)?);
    ensure!(run(guard, "limit reset")?.starts_with("nothing changed"), "again");
    Ok(())
}

/// What is limited, and to how much.
fn limit(row: &Value) -> Result<String> {
    Ok(format!("{} {} {} {} {}", row["trunk"], text(row, "of")?, row["burst"], row["at_once"], row["mode"]))
}

fn limits(guard: &Guard) -> Result<Vec<String>> {
    guard.rows(&["limit", "list"])?.iter().map(limit).collect()
}

/// Sends 200 registrations, and says how many were valid, dropped for a reason, and would have been.
fn send(site: &Site, to: IpAddr, reason: Reason) -> Result<[u64; 3]> {
    let counted = || -> Result<[u64; 3]> {
        let rows = site.guard.counter_rows()?;
        let of = |reason: Reason, action: &str| {
            let rows = rows.iter().filter(|row| row.reason == reason.name() && row.action == action);
            rows.map(|row| row.packets).sum()
        };
        Ok([of(Reason::Valid, "pass"), of(reason, "drop"), of(reason, "would-drop")])
    };
    let before = counted()?;
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = site.phone.enter(|| UdpSocket::bind((any, 0)))??;
    for number in 0..200 {
        site.phone.enter(|| socket.send_to(&register(number), sip(to)))??;
    }
    let now = || {
        let after = counted()?;
        anyhow::Ok([0, 1, 2].map(|at| after[at] - before[at]))
    };
    wait_until("all are counted", || Ok(now().map(|[valid, dropped, _]| valid + dropped)? == 200))?;
    now()
}

#[test]
fn a_limit_counts_before_it_stops() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let [trunk, device] = Site::PBX;
    run(guard, "trunk add carrier --peer 10.77.0.2")?;
    run(guard, "limit clear")?;
    let said = run(guard, "limit set --of register 1/s burst 50 --monitor")?;
    ensure!(
        said == "limited register for devices: 1/s burst 50 monitor; what is over it passes, and `sipguard counters` has it as \
                 rate-register with would-drop\n",
        "it said {said}"
    );
    ensure!(
        run(guard, "limit set --of register 1/s burst 50 --monitor")?.starts_with("nothing changed"),
        "again"
    );
    let [valid, dropped, over] = send(&site, device, Reason::RateRegister)?;
    ensure!((valid, dropped) == (200, 0) && (100..=150).contains(&over), "{valid} {dropped} {over}");
    // Another limit stops meanwhile, and so does the same one of a trunk.
    run(guard, "limit set --of messages 1/s burst 20")?;
    let [valid, dropped, _] = send(&site, device, Reason::RateMessages)?;
    ensure!((20..80).contains(&valid) && dropped > 120, "{valid} {dropped}");
    run(guard, "limit clear --of messages")?;
    run(guard, "limit set --trunk carrier --of register 1/s burst 20")?;
    let [valid, dropped, over] = send(&site, trunk, Reason::RateRegister)?;
    ensure!((20..70).contains(&valid) && dropped > 130 && over == 0, "{valid} {dropped} {over}");
    run(guard, "limit set --trunk carrier --of register 1/s burst 20 --monitor")?;
    let [valid, dropped, over] = send(&site, trunk, Reason::RateRegister)?;
    ensure!((valid, dropped) == (200, 0) && over > 130, "{valid} {dropped} {over}");
    // It is told where limits and what is not enforced are.
    let modes = |guard: &Guard| -> Result<Vec<String>> {
        guard.rows(&["limit", "list"])?.iter().map(|row| text(row, "mode")).collect()
    };
    let before = guard.rows(&["limit", "list"])?;
    ensure!(modes(guard)? == ["monitor"; 2], "{before:?}");
    let table = run(guard, "limit list")?;
    ensure!(table.lines().skip(1).all(|line| line.contains("  monitor  ")), "{table}");
    let status = run(guard, "status")?;
    for line in ["limit register: monitor for devices\n", "limit register: monitor for trunk carrier\n"] {
        ensure!(status.contains(line), "{status}");
    }
    let of = &guard.json(&["status"])?["monitored_limits"];
    ensure!(of[0]["scope"] == "devices" && of[1]["trunk"] == "carrier" && of[1]["of"] == "register", "{of}");
    let log = run(guard, "log")?;
    ensure!(log.contains("register for devices 1/s burst 50 monitor"), "{log}");
    // Kept, brought back, and found in the kernel when the store is gone.
    run(guard, "detach --all")?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(guard.rows(&["limit", "list"])? == before, "they did not come back");
    let [valid, dropped, over] = send(&site, device, Reason::RateRegister)?;
    ensure!((valid, dropped) == (200, 0) && over > 100, "{valid} {dropped} {over}");
    std::fs::remove_file(guard.store())?;
    run(guard, "block 192.0.2.7")?;
    ensure!(modes(guard)? == ["monitor"; 2], "{:?}", guard.rows(&["limit", "list"])?);
    // From now on it stops; the trunk's goes on counting.
    ensure!(
        run(guard, "limit set --of register 1/s burst 50")? == "limited register for devices: 1/s burst 50\n",
        "it stops"
    );
    ensure!(modes(guard)? == ["enforce", "monitor"], "{:?}", guard.rows(&["limit", "list"])?);
    let [valid, dropped, over] = send(&site, device, Reason::RateRegister)?;
    ensure!(valid < 100 && dropped > 100 && over == 0, "{valid} {dropped} {over}");
    let [valid, dropped, over] = send(&site, trunk, Reason::RateRegister)?;
    ensure!((valid, dropped) == (200, 0) && over > 130, "{valid} {dropped} {over}");
    // In monitor mode all limits count.
    run(guard, "mode monitor")?;
    let [valid, dropped, over] = send(&site, device, Reason::RateRegister)?;
    ensure!((valid, dropped) == (200, 0) && over > 100, "{valid} {dropped} {over}");
    Ok(())
}

/// What an event tells of a limit was true when it happened.
#[test]
fn an_event_names_no_limit_that_was_set_after_it() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "limit clear")?;
    run(guard, "limit set --of register 1/s burst 50")?;
    flood(&site, Site::PBX[0])?;
    let told = || -> Result<Vec<String>> {
        let text = run(guard, "events --reason rate-register")?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let before = told()?;
    ensure!(before.len() == 1 && before[0].contains("limit 1/s burst 50 "), "{before:?}");
    run(guard, "limit set --of register 2/s burst 60")?;
    let after = told()?;
    ensure!(after.len() == 1 && !after[0].contains("/s"), "{after:?}");
    ensure!(after[0].contains("which was set anew since"), "{after:?}");
    run(guard, "limit clear --of register")?;
    ensure!(!told()?[0].contains("limit "), "{:?}", told()?);
    Ok(())
}
