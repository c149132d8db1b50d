//! `CLOCK_BOOTTIME`, the kernel side's clock, and its translation to wall time.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use sipguard_common::abi::PERMANENT;

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
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).context("reading CLOCK_BOOTTIME")?;
        Ok(Clock { boot_ns: Duration::from(boot).as_nanos() as u64, wall: Timestamp::now() })
    }

    /// The wall time of a boot time, to the second; `None` for [`PERMANENT`].
    #[must_use]
    pub fn wall(&self, boot_ns: u64) -> Option<Timestamp> {
        if boot_ns == PERMANENT {
            return None;
        }
        let seconds = (i128::from(boot_ns) - i128::from(self.boot_ns)) / 1_000_000_000;
        let wall = self.wall.as_second().checked_add(i64::try_from(seconds).ok()?)?;
        Timestamp::from_second(wall).ok()
    }

    /// The boot time after `duration`, or [`PERMANENT`] without one.
    #[must_use]
    pub fn after(&self, duration: Option<Duration>) -> u64 {
        let end =
            duration.and_then(|duration| u64::try_from(duration.as_nanos()).ok()?.checked_add(self.boot_ns));
        end.unwrap_or(PERMANENT)
    }
}
