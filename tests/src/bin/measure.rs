//! `measure COMMAND ARGUMENTS...`: runs a command and tells on the last line of standard error how many seconds it took and how many
//! kilobytes of memory at the most.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};

fn main() -> Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("measure what? Name a command")?;
    let start = Instant::now();
    let status = Command::new(&program).args(words).status().context("starting it")?;
    let seconds = start.elapsed().as_secs_f64();
    let kilobytes = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    eprintln!("{seconds:.3} {kilobytes}");
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1))?))
}
