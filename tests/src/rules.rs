//! What store and kernel say of rules, compared.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    application::wait_until,
    guard::{Guard, number, text},
};

/// Does something with a rule that lasts so many seconds, until all of it was done before the rule may have ended: what a machine
/// takes for a few commands nobody knows. A failure that came too late is none.
pub fn while_it_lasts<T>(mut work: impl FnMut(u64) -> Result<T>) -> Result<T> {
    for seconds in [3, 10, 30, 100, 300] {
        let began = Instant::now();
        let done = work(seconds);
        if began.elapsed() < Duration::from_secs(seconds) {
            return done.with_context(|| format!("with a rule for {seconds} s"));
        }
    }
    bail!("a few commands take longer than five minutes")
}

/// Removes the pins without `sipguard`, as a reboot does.
pub fn reboot(guard: &Guard) -> Result<()> {
    std::fs::remove_dir_all(guard.pins()).context("removing the pins")?;
    wait_until("nothing is attached", || Ok(guard.run(&["status"])?.status == 3))
}

/// Target and source of each listed rule.
pub fn listed(guard: &Guard) -> Result<Vec<String>> {
    let rows = guard.rules()?;
    rows.iter().map(|row| Ok(format!("{} {}", text(row, "target")?, text(row, "origin")?))).collect()
}

/// Fails unless store and maps say the same, and gives how many rules there are.
pub fn consistent(guard: &Guard) -> Result<usize> {
    let rows = guard.rules()?;
    let strange = rows.iter().find(|row| row["in_force"] != true || row["origin"] == "recovered");
    ensure!(strange.is_none(), "not in both: {strange:?}");
    let in_force = number(&guard.json(&["status"])?, "blocks")?;
    ensure!(in_force == rows.len() as u64, "{in_force} in force, {} in the store", rows.len());
    Ok(rows.len())
}

/// That many addresses, one a line.
pub fn addresses(count: u32) -> String {
    let mut text = String::new();
    for number in 0..count {
        let _infallible = writeln!(text, "{}", std::net::Ipv4Addr::from(0xc612_0000 + number));
    }
    text
}
