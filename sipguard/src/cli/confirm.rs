//! `attach`, which takes itself back unless somebody confirms it.

use std::io::{IsTerminal, Read, Write as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::ops::{Context, attach};

use super::args::attach::Args;
use super::printer::{self, Format, notices};

pub fn attach(host: &Context, object: &'static [u8], format: Format, args: Args) -> Result<()> {
    let (request, patience) = args.request()?;
    // From here on no signal keeps what nobody has confirmed.
    let signals = patience.map(|_| ends()).transpose()?;
    let outcome = attach::run(host, object, &request)?;
    let stays = || outcome.keep(host).map(|notice| notices(&notice));
    let printed = printer::attach::attached(format, &outcome);
    let (Some(patience), Some(signals)) = (patience, signals) else {
        return printed.and_then(|()| stays());
    };
    if printed.is_ok() && confirmed(patience, &signals).unwrap_or(false) {
        return stays();
    }
    let (did, notice) = outcome.take_back(host)?;
    notices(&notice);
    printed?;
    Err(Failure::with(FailureKind::Failed, format!("not confirmed: {did}")))
}

/// Holds the signals back that would end the process, to be read.
fn ends() -> Result<SignalFd> {
    let mut ends = SigSet::empty();
    ends.extend([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT]);
    ends.thread_block().context("blocking signals")?;
    SignalFd::new(&ends).context("waiting for signals")
}

/// Waits for Enter. End of input and SIGHUP are no confirmation, they are what a cut connection looks like; nor is Ctrl-C.
fn confirmed(patience: Duration, signals: &SignalFd) -> Result<bool> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        // A terminal that is gone is found by the poll: `eprintln` would panic.
        let _gone = writeln!(std::io::stderr(), "Press Enter within {} s to keep it.", patience.as_secs());
    }
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout =
            PollTimeout::try_from(left.as_millis().min(60_000) as i32 + 1).context("waiting for Enter")?;
        let mut fds = [stdin.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if poll(&mut fds, timeout).context("waiting for Enter")? == 0 {
            continue;
        }
        if fds[1].any() == Some(true) {
            return Ok(false);
        }
        let mut byte = [0];
        return Ok(matches!(stdin.lock().read(&mut byte), Ok(1)));
    }
}
