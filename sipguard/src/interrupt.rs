//! Signals that end what goes on until somebody ends it.

use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// SIGINT, SIGTERM and SIGHUP, which from now on end nothing by themselves.
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
}

impl Interrupt {
    /// Begins to look for them. Threads that were started before are not held back from being ended by one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Interrupt> {
        let mut ends = SigSet::empty();
        ends.extend([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
        ends.thread_block().context("blocking signals")?;
        Ok(Interrupt { signals: SignalFd::new(&ends).context("waiting for signals")? })
    }

    /// Waits for `pause` (to the millisecond), or until one comes: then true, and for ever after.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait(&self, pause: Duration) -> Result<bool> {
        let millis = i32::try_from(pause.as_millis()).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).context("waiting for signals")?;
        let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, timeout).context("waiting for signals")? > 0)
    }
}
