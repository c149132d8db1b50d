//! Which processor a thread runs on.

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The processors that this thread may run on, by number.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("asking for the processors of a thread")?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).collect();
    ensure!(!cpus.is_empty(), "there is no processor");
    Ok(cpus)
}

/// Keeps this thread, and whatever it starts from now on, on one processor. What it sends over a cable between namespaces is
/// then taken in by that processor too, in the order in which it was sent, however many cables it goes over.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("processor {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pinning a thread to processor {cpu}"))
}
