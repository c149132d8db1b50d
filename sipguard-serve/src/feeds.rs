//! Reads the feeds when it is time to, each in a thread of its own: a server that is slow holds up no other feed, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use sipguard_core::clock::Clock;
use sipguard_core::duration;
use sipguard_core::notice;
use sipguard_core::ops::Context;
use sipguard_core::ops::feed::{self, FeedRefreshed, FeedRow, Fetch, Refresh};

use super::tell;

/// How often the store is asked which feeds there are.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is looked whether one is due.
const TICK: Duration = Duration::from_millis(100);
/// The shortest and the longest time after a reading that failed.
const AGAIN: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(3600)];
/// How many feeds are read at the same time: each may hold a text of some MiB, and `serve` has 64 in all.
const READERS: usize = 3;
/// How many of them may be read that failed or were slow the last time: the rest is for the others.
const SLOW_READERS: usize = READERS - 1;
/// What takes longer is slow.
const SLOW: Duration = Duration::from_secs(2);

/// What came of a reading, when, and how long it took.
type Ended = (Result<FeedRefreshed>, Instant, Duration);

/// A feed as it is known here.
struct Schedule {
    due: Instant,
    /// How many readings failed, one after the other.
    failed: u32,
    every: Duration,
    /// Whether the last reading took long.
    is_slow: bool,
    /// Whether it was read to an end here.
    is_known: bool,
    /// Whether it has more entries than a feed may have.
    is_too_long: bool,
    reader: Option<JoinHandle<Ended>>,
}

/// Starts the thread that starts the others. What it gives is whether a feed, or the list of them, can't be read as a whole.
pub(crate) fn start(host: Context, fetch: Option<Fetch>) -> Result<Arc<AtomicBool>> {
    let fails = Arc::new(AtomicBool::new(false));
    let told = fails.clone();
    let run = move || {
        let (mut known, mut looked, mut list_fails) = (HashMap::new(), None::<Instant>, false);
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                let stored = feed::stored(&host).and_then(|feeds| update(&mut known, &feeds));
                match &stored {
                    Ok(notices) => tell(notices.iter().cloned()),
                    Err(error) if !list_fails => {
                        notice::send(format!("the feeds can't be read from the store: {error:#}"));
                    }
                    Err(_) => {}
                }
                list_fails = stored.is_err();
            }
            for (name, schedule) in &mut known {
                if let Some(reader) = schedule.reader.take_if(|reader| reader.is_finished()) {
                    tell(schedule.end(name, reader));
                }
            }
            for name in ready(&known, Instant::now()) {
                known.entry(name.clone()).and_modify(|schedule| schedule.begin(&host, name, fetch));
            }
            let is_bad = |schedule: &Schedule| schedule.failed > 0 || schedule.is_too_long;
            told.store(list_fails || known.values().any(is_bad), Ordering::Relaxed);
            thread::sleep(TICK);
        }
    };
    thread::Builder::new().name("feeds".to_owned()).spawn(run).context("starting the thread of feeds")?;
    Ok(fails)
}

/// Takes over what the store has: a new feed is read when its time since the last reading is over. What an operator is to be told.
fn update(known: &mut HashMap<String, Schedule>, feeds: &[FeedRow]) -> Result<Vec<String>> {
    let now_ms = Clock::now()?.wall_ms();
    let mut notices = Vec::new();
    known.retain(|name, schedule| schedule.reader.is_some() || feeds.iter().any(|feed| feed.name == *name));
    for feed in feeds {
        // One may be at work in another process; a second came to no end.
        let lost = feed.unfinished.saturating_sub(1);
        let span = wait(feed.every, feed.unfinished);
        let age = feed.tried_ms.and_then(|tried| u64::try_from(now_ms - tried).ok());
        let left = age.map_or(Duration::ZERO, |age| span.saturating_sub(Duration::from_millis(age)));
        let due = Instant::now() + left;
        let schedule = known.entry(feed.name.clone()).or_insert_with(|| {
            notices.extend((lost > 0).then(|| {
                let left = duration::shown(Duration::from_secs(left.as_secs()));
                format!(
                    "the feed {}: {} readings ended with the process that read it; it is read again in {left}",
                    feed.name, feed.unfinished
                )
            }));
            Schedule {
                due,
                failed: lost,
                every: feed.every,
                is_slow: lost > 0,
                is_known: false,
                is_too_long: false,
                reader: None,
            }
        });
        if schedule.every != feed.every {
            (schedule.due, schedule.every) = (due, feed.every);
        }
    }
    Ok(notices)
}

/// Which feeds are to be read now, those first that wait longest.
fn ready(known: &HashMap<String, Schedule>, now: Instant) -> Vec<String> {
    let is_slow = |schedule: &Schedule| schedule.failed > 0 || schedule.is_slow;
    let reading = || known.values().filter(|schedule| schedule.reader.is_some());
    let (mut all, mut slow) = (reading().count(), reading().filter(|schedule| is_slow(schedule)).count());
    let is_due = |schedule: &Schedule| schedule.reader.is_none() && schedule.due <= now;
    let mut due: Vec<_> = known.iter().filter(|(_, schedule)| is_due(schedule)).collect();
    due.sort_unstable_by_key(|(name, schedule)| (schedule.due, *name));
    due.retain(|(_, schedule)| {
        let is_slow = is_slow(schedule);
        let fits = all < READERS && !(is_slow && slow >= SLOW_READERS);
        all += usize::from(fits);
        slow += usize::from(fits && is_slow);
        fits
    });
    due.into_iter().map(|(name, _)| name.clone()).collect()
}

impl Schedule {
    /// Starts a reading.
    fn begin(&mut self, host: &Context, name: String, fetch: Option<Fetch>) {
        let (host, is_known, feed) = (host.clone(), self.is_known, name.clone());
        let read = move || {
            let begin = Instant::now();
            let outcome = feed::refresh(&host, &Refresh { name: &feed, force: false, is_known }, fetch);
            (outcome, Instant::now(), begin.elapsed())
        };
        match thread::Builder::new().name("feed".to_owned()).spawn(read) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => {
                let outcome = Err(error).context("starting a thread");
                tell(self.take(&name, (outcome, Instant::now(), Duration::ZERO)));
            }
        }
    }

    /// Ends a reading. What an operator is to be told.
    fn end(&mut self, name: &str, reader: JoinHandle<Ended>) -> Vec<String> {
        let panicked = || (Err(anyhow!("its reader panicked")), Instant::now(), Duration::ZERO);
        self.is_known = true;
        let ended = reader.join().unwrap_or_else(|_| panicked());
        self.take(name, ended)
    }

    /// Takes over what came of a reading. What an operator is to be told: that it fails, once, and that it works again.
    fn take(&mut self, name: &str, (outcome, at, took): Ended) -> Vec<String> {
        let (failed_before, was_too_long) = (self.failed > 0, self.is_too_long);
        self.failed = if outcome.is_ok() { 0 } else { self.failed + 1 };
        self.is_slow = took >= SLOW;
        self.due = at + wait(self.every, self.failed);
        let mut notices = Vec::new();
        match outcome {
            Err(error) if !failed_before => {
                notices.push(format!("the feed {name} fails, what it had stays: {error:#}"));
            }
            Err(_) => {}
            Ok(done) => {
                notices.extend(failed_before.then(|| format!("the feed {name} works again")));
                // Only all of it tells whether there is room again.
                self.is_too_long = done.left_out > 0 || was_too_long && !done.is_whole;
                notices.extend((self.is_too_long && !was_too_long).then(|| {
                    format!(
                        "the feed {name} has more entries than a feed may have: {} were left out",
                        done.left_out
                    )
                }));
            }
        }
        notices
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

    fn schedule(due: Instant, failed: u32, is_slow: bool, is_read: bool) -> Schedule {
        let ended = || (Err(anyhow!("nobody looks at it")), Instant::now(), Duration::ZERO);
        let reader = is_read.then(|| thread::spawn(ended));
        Schedule { due, failed, every: LOOK, is_slow, is_known: true, is_too_long: false, reader }
    }

    /// The feeds that are to be read now, of some with the time for which each is due, its failures, and whether it was slow and is read.
    fn ready_of(feeds: &[(&str, i32, u32, bool, bool)]) -> String {
        let now = Instant::now() + Duration::from_secs(100);
        let known = feeds.iter().map(|&(name, due, failed, is_slow, is_read)| {
            let span = Duration::from_secs(due.unsigned_abs().into());
            let due = if due < 0 { now - span } else { now + span };
            (name.to_owned(), schedule(due, failed, is_slow, is_read))
        });
        ready(&known.collect(), now).join(" ")
    }

    #[test]
    fn slow_feeds_hold_up_no_other() {
        let slow = ("slow", -9, 0, true, true);
        let fails = ("fails", -8, 3, false, true);
        assert_eq!(ready_of(&[slow, ("well", -1, 0, false, false)]), "well");
        // Two of those are read: a third waits, and who is well does not.
        assert_eq!(
            ready_of(&[slow, fails, ("also", -7, 1, false, false), ("well", -1, 0, false, false)]),
            "well"
        );
        // Those first that wait longest, and not more at once than there may be.
        let wells = [("a", -1, 0, false, false), ("b", -3, 0, false, false), ("c", -2, 0, false, false)];
        assert_eq!(ready_of(&[wells[0], wells[1], wells[2], ("d", -4, 0, false, false)]), "d b c");
        assert_eq!(ready_of(&[("later", 1, 0, false, false), ("read", -1, 0, false, true)]), "");
    }

    fn stored(every: Duration, tried_ms: Option<i64>, unfinished: u32) -> FeedRow {
        FeedRow {
            name: "drop".to_owned(),
            source: feed::FeedSource::parse("/none").unwrap(),
            form: feed::FeedForm::List,
            every,
            keep: every,
            key_file: None,
            author: String::new(),
            created_ms: 0,
            tried_ms,
            refreshed_ms: None,
            whole_ms: None,
            failure: String::new(),
            unfinished,
        }
    }

    #[test]
    fn what_ended_with_its_process_is_not_read_at_once_again() {
        let second = Duration::from_secs(1);
        let now_ms = Clock::now().unwrap().wall_ms();
        for (tried_ms, unfinished, left, is_told) in [
            (None, 0, 0, false),
            (Some(now_ms - 5000), 0, 0, false),
            (Some(now_ms), 1, 10, false),
            (Some(now_ms), 2, 20, true),
            (Some(now_ms), 5, 160, true),
            (Some(now_ms - 3_600_000), 5, 0, true),
        ] {
            let mut known = HashMap::new();
            let notices = update(&mut known, &[stored(second, tried_ms, unfinished)]).unwrap();
            let due = known["drop"].due.saturating_duration_since(Instant::now());
            let [least, most] = [(left * second).saturating_sub(2 * second), left * second];
            assert!((least..=most).contains(&due), "{unfinished}: {due:?}, and not {left} s");
            assert_eq!(!notices.is_empty(), is_told, "{notices:?}");
            assert!(update(&mut known, &[stored(second, tried_ms, unfinished)]).unwrap().is_empty(), "twice");
        }
    }

    #[test]
    fn that_there_are_too_many_is_told_once_until_there_is_room() {
        let mut feed = schedule(Instant::now(), 0, false, false);
        let mut take = |left_out, is_whole| {
            let done = FeedRefreshed { left_out, is_whole, ..FeedRefreshed::default() };
            let notices = feed.take("decisions", (Ok(done), Instant::now(), Duration::ZERO));
            (notices.len(), feed.is_too_long)
        };
        assert_eq!(take(7, true), (1, true));
        assert_eq!((take(1, false), take(0, false)), ((0, true), (0, true)));
        assert_eq!((take(0, true), take(0, false)), ((0, false), (0, false)));
    }

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
