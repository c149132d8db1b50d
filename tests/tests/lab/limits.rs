//! Limits by command: what is over them is dropped, of a source and of a trunk, and they are kept.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Result, ensure};
use sipguard::{maps, pins::Pins};
use sipguard_common::{Reason, abi::rules_in_use};
use sipguard_tests::{
    application::{sip, wait_until},
    guard::{Guard, Site},
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
    ensure!(said == "limited register of a source: 1/s burst 50\n", "it said {said}");
    ensure!(
        run(guard, "limit set --of register --per source 1/s burst 50")?.starts_with("nothing changed"),
        "again"
    );
    let (valid, over) = flood(&site, device)?;
    ensure!((50..100).contains(&valid) && over > 100, "{valid} passed, {over} were over the limit");
    ensure!(flood(&site, trunk)? == (200, 0), "the trunk has no limit");
    run(guard, "limit set --per trunk carrier --of register 1/s burst 20")?;
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
    Ok(())
}
