//! `CLOCK_BOOTTIME`, the kernel side's clock, and its translation to wall time.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use sipguard_common::abi::PERMANENT;

/// How often the clocks are read when something came between.
const ATTEMPTS: usize = 50;
/// How exactly it is told how far the two clocks are apart, in nanoseconds.
const APART_NS: i128 = 1_000_000;
/// What the readings of two clocks may be apart. Half of it is how inexact [`Clock::wall_exactly`] may be, and by so little in a millisecond it
/// happens that one event is told with two times.
const AT_ONCE_NS: u64 = 1_000;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    wall: Timestamp,
}

impl Clock {
    /// Now.
    ///
    /// # Errors
    /// When the kernel has no such clock.
    pub fn now() -> Result<Clock> {
        at_one_moment(|| Ok((boot_ns()?, Timestamp::now(), boot_ns()?)))
    }

    /// The wall time of a boot time, to the second; `None` for [`PERMANENT`].
    #[must_use]
    pub fn wall(&self, boot_ns: u64) -> Option<Timestamp> {
        if boot_ns == PERMANENT {
            return None;
        }
        let wall_ns = self.wall.as_nanosecond() + i128::from(boot_ns) - i128::from(self.boot_ns);
        // Rounded once, at the end, or else one moment would get two names when it is asked for twice.
        Timestamp::from_second(i64::try_from((wall_ns + 500_000_000).div_euclid(1_000_000_000)).ok()?).ok()
    }

    /// The wall time of a boot time, to the millisecond; apart from others of the same clocks by exactly what their boot times are.
    #[must_use]
    pub fn wall_exactly(&self, boot_ns: u64) -> Timestamp {
        // How far the clocks are apart is never read twice the same, by some microseconds, and a moment must not have two names.
        let apart_ns = self.wall.as_nanosecond() - i128::from(self.boot_ns);
        let apart_ns = (apart_ns + APART_NS / 2).div_euclid(APART_NS) * APART_NS;
        Timestamp::from_nanosecond(apart_ns + i128::from(boot_ns)).unwrap_or(Timestamp::MIN)
    }

    /// The boot time (nanoseconds) of a wall time in nanoseconds since 1970, as exact as the two clocks were read.
    #[must_use]
    pub fn boot_exactly(&self, wall_ns: i128) -> u64 {
        let boot_ns = i128::from(self.boot_ns) + wall_ns - self.wall.as_nanosecond();
        u64::try_from(boot_ns.max(0)).unwrap_or(PERMANENT)
    }

    /// The wall time, in milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        self.wall.as_millisecond()
    }

    /// The wall time (milliseconds) after `duration`; `None`: permanent, also when it is beyond all calendars.
    #[must_use]
    pub(crate) fn wall_ms_after(&self, duration: Option<Duration>) -> Option<i64> {
        let end = self.wall_ms().checked_add(i64::try_from(duration?.as_millis()).ok()?)?;
        Timestamp::from_millisecond(end).is_ok().then_some(end)
    }

    /// The wall time of a boot time, in milliseconds; `None` for [`PERMANENT`].
    #[must_use]
    pub(crate) fn wall_of(&self, boot_ns: u64) -> Option<i64> {
        if boot_ns == PERMANENT {
            return None;
        }
        let wall_ns = self.wall.as_nanosecond() + i128::from(boot_ns) - i128::from(self.boot_ns);
        i64::try_from(wall_ns.div_euclid(1_000_000)).ok()
    }

    /// The boot time of a wall time in milliseconds; [`PERMANENT`] for none.
    #[must_use]
    pub fn boot(&self, wall_ms: Option<i64>) -> u64 {
        let Some(wall_ms) = wall_ms else { return PERMANENT };
        let from_now = i128::from(wall_ms) * 1_000_000 - self.wall.as_nanosecond();
        let boot_ns = i128::from(self.boot_ns) + from_now;
        // Centuries are more nanoseconds than there are numbers.
        u64::try_from(boot_ns).unwrap_or(if boot_ns < 0 { 0 } else { PERMANENT })
    }

    /// The boot time after `duration`, or [`PERMANENT`] without one.
    #[must_use]
    pub fn after(&self, duration: Option<Duration>) -> u64 {
        let end =
            duration.and_then(|duration| u64::try_from(duration.as_nanos()).ok()?.checked_add(self.boot_ns));
        end.unwrap_or(PERMANENT)
    }
}

/// Reads the clocks: the boot time before and after the wall time. On a busy machine this process may wait for its turn between them, and
/// every end that is translated would be off by as much: of a few attempts, the one with the least between.
fn at_one_moment(mut read: impl FnMut() -> Result<(u64, Timestamp, u64)>) -> Result<Clock> {
    let mut best = None;
    for _ in 0..ATTEMPTS {
        let (boot_ns, wall, after_ns) = read()?;
        let between_ns = after_ns.saturating_sub(boot_ns);
        if best.is_none_or(|(least_ns, _)| between_ns < least_ns) {
            best = Some((between_ns, Clock { boot_ns: boot_ns + between_ns / 2, wall }));
        }
        if between_ns < AT_ONCE_NS {
            break;
        }
    }
    best.map(|(_, clock)| clock).context("reading two clocks")
}

fn boot_ns() -> Result<u64> {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).context("reading CLOCK_BOOTTIME")?;
    Ok(Duration::from(boot).as_nanos() as u64)
}

/// `CLOCK_MONOTONIC` in nanoseconds.
///
/// # Errors
/// When the kernel has no such clock.
pub fn monotonic_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading CLOCK_MONOTONIC")?;
    Ok(Duration::from(now).as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_time_however_exactly_the_clocks_were_read() {
        let at = |off_ns: i128| Clock {
            boot_ns: 5_000_000_000,
            wall: Timestamp::from_nanosecond(1_700_000_000_000_000_000 + off_ns).unwrap(),
        };
        let event_ns = 4_000_123_456;
        let told = at(0).wall_exactly(event_ns);
        assert_eq!(told.as_nanosecond(), 1_699_999_999_000_123_456);
        for off_ns in [-90_000, -700, 3, 40_000] {
            assert_eq!(at(off_ns).wall_exactly(event_ns), told, "{off_ns}");
        }
        assert_ne!(at(1_000_000).wall_exactly(event_ns), told, "the clock was set");
    }

    #[test]
    fn two_clocks_are_read_at_one_moment() {
        let read = |between: &[u64]| {
            let mut between = between.iter().zip(0..).map(|(between_ns, number)| {
                let wall = Timestamp::from_second(number).unwrap();
                Ok((1_000_000_000, wall, 1_000_000_000 + between_ns))
            });
            at_one_moment(|| between.next().unwrap()).unwrap().wall.as_second()
        };
        assert_eq!(read(&[100]), 0, "one reading is enough");
        assert_eq!(read(&[90_000_000, 3_000_000, 100]), 2);
        let mut between = [90_000_000; ATTEMPTS];
        between[ATTEMPTS - 2] = 3_000_000;
        assert_eq!(read(&between), ATTEMPTS as i64 - 2, "the least of all");
        let clock = at_one_moment(|| Ok((1_000, Timestamp::UNIX_EPOCH, 1_600))).unwrap();
        assert_eq!(clock.boot_ns, 1_300, "the wall time was read in the middle");
    }

    #[test]
    fn a_moment_has_one_name_whenever_it_is_asked_for() {
        const BASE_NS: i128 = 1_700_000_000_000_000_000;
        let at = |boot_ns: u64| Clock {
            boot_ns,
            wall: Timestamp::from_nanosecond(BASE_NS + i128::from(boot_ns)).unwrap(),
        };
        let event_ns = 100_700_000_000;
        for now_ns in [100_700_000_000, 100_900_000_000, 101_100_000_000, 500_300_000_001] {
            assert_eq!(at(now_ns).wall(event_ns).unwrap().as_second(), 1_700_000_101, "asked at {now_ns}");
        }
        assert_eq!(at(5).wall(PERMANENT), None);
        assert_eq!(at(7).after(None), PERMANENT);
        assert_eq!(at(7).after(Some(Duration::MAX)), PERMANENT);
        assert_eq!(at(7).after(Some(Duration::from_nanos(3))), 10);
    }

    #[test]
    fn a_wall_time_is_a_boot_time_for_as_long_as_the_machine_runs() {
        let clock =
            Clock { boot_ns: 5_000_000_000, wall: Timestamp::from_millisecond(1_700_000_000_000).unwrap() };
        assert_eq!(clock.wall_ms_after(Some(Duration::from_secs(2))), Some(1_700_000_002_000));
        assert_eq!(clock.wall_ms_after(Some(Duration::MAX)), None);
        assert_eq!(clock.wall_ms_after(None), None);
        assert_eq!(clock.boot(Some(1_700_000_002_000)), 7_000_000_000);
        assert_eq!((clock.boot(Some(0)), clock.boot(None)), (0, PERMANENT));
        // Nanoseconds of 584 years are all the numbers that there are: what ends later has not ended already.
        let years = |count: i64| 1_700_000_000_000 + count * 365 * 86_400_000;
        for (end_ms, is_permanent) in
            [(years(584), false), (years(585), true), (i64::MAX, true), (i64::MIN, false)]
        {
            assert_eq!(clock.boot(Some(end_ms)) == PERMANENT, is_permanent, "{end_ms}");
        }
    }
}
