//! What happens to a machine while it filters: a processor goes and comes back, and the clock is set.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};

use super::system::{PBX, PROGRAM, filters};
use crate::{application::wait_until, guard::number, netns::Netns, process::output};

const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
/// How far the clock is set.
const HOURS: i64 = 2;
/// How long a SYN is tried that may be dropped.
const TRIED: Duration = Duration::from_secs(2);

/// Counters have a value for each processor, also for one that is away.
pub fn processor(phone: &Netns) -> Result<()> {
    let turn = |on: &str| fs::write(ONLINE, on).context("turning a processor on or off");
    for time in ["the first", "the second"] {
        let before = stopped()?;
        ensure!(filters(phone)?, "it does not filter before {time} time");
        turn("0")?;
        let away = (filters(phone)?, filters(phone)?);
        let counted = stopped()?;
        turn("1")?;
        ensure!(away == (true, true), "it does not filter without a processor, {time} time");
        ensure!(counted >= before + 3, "{before}, then {counted} were counted, {time} time");
        ensure!(filters(phone)?, "it does not filter after {time} time");
        ensure!(stopped()? > counted, "{counted}, then {} were counted, {time} time", stopped()?);
    }
    Ok(())
}

/// Set forward, a block holds until the next change; set back, as long as was asked for.
pub fn clock(phone: &Netns) -> Result<()> {
    let (blocked, span) = ("10.77.0.2", HOURS * 3600);
    let sipguard = |words: &[&str]| output(Command::new(PROGRAM).args(words));
    let listener = TcpListener::bind(PBX).context("listening")?;
    ensure!(reaches(phone)?, "it does not reach the PBX before");
    sipguard(&["block", blocked, "--for", "1h"])?;
    ensure!(!reaches(phone)?, "it reaches the PBX in spite of a block");
    set_clock(span)?;
    let forward = reaches(phone)?;
    sipguard(&["block", "192.0.2.9"])?;
    let changed = reaches(phone)?;
    set_clock(-span)?;
    ensure!(!forward, "a block of an hour ended with the clock");
    ensure!(changed, "a block that is over by the clock outlives a change of rules");

    // Long enough for a slow machine to see that it holds.
    sipguard(&["block", blocked, "--for", "30s"])?;
    ensure!(!reaches(phone)?, "it reaches the PBX in spite of a second block");
    set_clock(-span)?;
    let ended = wait_until("a block ends while the clock is two hours behind", || reaches(phone));
    set_clock(span)?;
    sipguard(&["unblock", "192.0.2.9"])?;
    ended?;
    drop(listener);
    ensure!(filters(phone)?, "it does not filter any more");
    Ok(())
}

/// Whether the phone gets a connection.
fn reaches(phone: &Netns) -> Result<bool> {
    phone.enter(|| TcpStream::connect_timeout(&PBX.parse().expect("an address"), TRIED).is_ok())
}

fn set_clock(by: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).context("reading the clock")?;
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::new(by, 0)).context("setting the clock")
}

/// How many packets were stopped.
fn stopped() -> Result<u64> {
    let told = output(Command::new(PROGRAM).args(["counters", "-o", "ndjson"]))?;
    let rows = told.lines().map(serde_json::from_str).collect::<Result<Vec<serde_json::Value>, _>>()?;
    rows.iter().filter(|row| row["action"] == "reset").map(|row| number(row, "packets")).sum()
}
