//! Starts a capture: a process of its own, in a group of its own, so that it goes on, and ends its file well, when this one ends.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::ops::Context;
use sipguard_observe::ops::capture::SEES;

use super::CAPTURE_SECS;

/// Captures the packets of a target to a file for [`CAPTURE_SECS`], and says what came of it.
///
/// # Errors
/// When the process can't be started, or fails.
pub fn capture(host: &Context, target: &str, file: &Path) -> Result<String> {
    let program = std::env::current_exe().context("asking for the path of this program")?;
    let mut command = Command::new(program);
    command.arg("--pins").arg(host.pins.dir()).arg("--store").arg(&host.store);
    command.args(["capture", "--src", target, "--for", &format!("{CAPTURE_SECS}s"), "-w"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // A child inherits which signals are blocked, and this one must hear of them.
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_unblock().context("unblocking signals")?;
    let child = command.spawn();
    signals.thread_block().context("blocking signals")?;
    let output = child.and_then(Child::wait_with_output).context("starting a capture")?;
    let text = |bytes: &[u8], last: bool| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        // What is captured is said before anything can go wrong.
        let is_told = |line: &&str| !line.trim().is_empty() && !line.contains(SEES);
        let mut lines = text.lines().filter(is_told);
        let line = if last { lines.next_back() } else { lines.next() }.unwrap_or_default();
        line.strip_prefix("sipguard: ").unwrap_or(line).to_owned()
    };
    if !output.status.success() {
        // What went wrong comes first, hints after it.
        let said = text(&output.stderr, false);
        return Err(Failure::with(FailureKind::Failed, format!("capturing {target} failed: {said}")));
    }
    let said =
        [text(&output.stdout, true), text(&output.stderr, true)].into_iter().find(|said| !said.is_empty());
    let said = said.unwrap_or_else(|| "done".to_owned());
    Ok(format!("captured {target} to {}: {said}", file.display()))
}
