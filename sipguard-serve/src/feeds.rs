//! Reads the feeds when it is time to, in a thread of its own, one after the other: a server that is slow holds up the other feeds, and
//! nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sipguard_core::clock::Clock;
use sipguard_core::notice;
use sipguard_core::ops::Context;
use sipguard_core::ops::feed::{self, FeedRow, Fetch};

use super::tell;

/// How often the store is asked which feeds there are.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is looked whether one is due.
const TICK: Duration = Duration::from_millis(100);
/// The shortest and the longest time after a reading that failed.
const AGAIN: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(3600)];

/// A feed as this thread knows it.
struct Schedule {
    due: Instant,
    /// How many readings failed, one after the other.
    failed: u32,
    every: Duration,
}

/// Starts the thread. What it gives is whether a feed, or the list of them, can't be read.
pub(crate) fn start(host: Context, fetch: Option<Fetch>) -> Result<Arc<AtomicBool>> {
    let fails = Arc::new(AtomicBool::new(false));
    let told = fails.clone();
    let run = move || {
        let (mut known, mut looked, mut list_fails) = (HashMap::new(), None::<Instant>, false);
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                let stored = feed::stored(&host).and_then(|feeds| update(&mut known, &feeds));
                if let (Err(error), false) = (&stored, list_fails) {
                    notice::send(format!("the feeds can't be read from the store: {error:#}"));
                }
                list_fails = stored.is_err();
            }
            for (name, schedule) in &mut known {
                if schedule.due <= Instant::now() {
                    tell(refresh(&host, name, schedule, fetch));
                }
            }
            told.store(list_fails || known.values().any(|one| one.failed > 0), Ordering::Relaxed);
            thread::sleep(TICK);
        }
    };
    thread::Builder::new().name("feeds".to_owned()).spawn(run).context("starting the thread of feeds")?;
    Ok(fails)
}

/// Takes over what the store has: a new feed is read when its time since the last reading is over.
fn update(known: &mut HashMap<String, Schedule>, feeds: &[FeedRow]) -> Result<()> {
    let now_ms = Clock::now()?.wall_ms();
    known.retain(|name, _| feeds.iter().any(|feed| feed.name == *name));
    for feed in feeds {
        let age = feed.tried_ms.and_then(|tried| u64::try_from(now_ms - tried).ok());
        let left = age.map_or(Duration::ZERO, |age| feed.every.saturating_sub(Duration::from_millis(age)));
        let fresh = || Schedule { due: Instant::now() + left, failed: 0, every: feed.every };
        let schedule = known.entry(feed.name.clone()).or_insert_with(fresh);
        if schedule.every != feed.every {
            *schedule = fresh();
        }
    }
    Ok(())
}

/// Reads one. What an operator is to be told: that it fails, once, and that it works again.
fn refresh(host: &Context, name: &str, schedule: &mut Schedule, fetch: Option<Fetch>) -> Option<String> {
    let outcome = feed::refresh(host, name, fetch, false);
    let failed_before = schedule.failed > 0;
    schedule.failed = if outcome.is_ok() { 0 } else { schedule.failed + 1 };
    schedule.due = Instant::now() + wait(schedule.every, schedule.failed);
    match outcome {
        Err(error) if !failed_before => Some(format!("the feed {name} fails, what it had stays: {error:#}")),
        Ok(_) if failed_before => Some(format!("the feed {name} works again")),
        _ => None,
    }
}

/// How long until the next reading: after failures longer each time.
fn wait(every: Duration, failed: u32) -> Duration {
    let [least, most] = AGAIN;
    let longer = |failed: u32| every.max(least).saturating_mul(1 << (failed - 1).min(8)).min(most.max(every));
    if failed == 0 { every } else { longer(failed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_is_asked_less_often() {
        let second = Duration::from_secs(1);
        assert_eq!(wait(second, 0), second);
        assert_eq!(wait(second, 1), 10 * second);
        assert_eq!(wait(second, 3), 40 * second);
        assert_eq!(wait(second, 99), 2560 * second);
        assert_eq!(wait(300 * second, 99), 3600 * second);
        assert_eq!(wait(7200 * second, 2), 7200 * second);
    }
}
