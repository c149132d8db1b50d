//! The programs that count open connections: two on one tracepoint, for all interfaces, pinned like the rest.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use aya::Btf;
use aya::programs::BtfTracePoint;
use aya::programs::links::FdLink;
use sipguard_common::abi::{CountedConnection, names};

use crate::error::{Failure, FailureKind};
use crate::kernel::Offsets;
use crate::load::{Loaded, verifier};
use crate::maps::{self, Plain, Sockets};
use crate::pins::Pins;

/// Where the kernel tells of a socket's new state (Linux 4.16).
const TRACEPOINT: &str = "inet_sock_set_state";

/// Loads, attaches and pins them: from now on the kernel counts.
///
/// # Errors
/// When the kernel can't, and says why. Then no pin of them is left.
pub fn begin(loaded: &mut Loaded, pins: &Pins) -> Result<()> {
    start(loaded, pins).inspect_err(|_| remove(pins))
}

/// Loads them, and attaches nothing.
///
/// # Errors
/// When the kernel can't, and says why.
pub(crate) fn load(loaded: &mut Loaded) -> Result<()> {
    if !Offsets::of_running_kernel().tell_of_connections() {
        bail!("its BTF does not say what a socket looks like");
    }
    let btf = Btf::from_sys_fs().context("reading its BTF")?;
    for name in names::CONNECTION_PROGRAMS {
        program(loaded, name)?.load(TRACEPOINT, &btf).map_err(verifier)?;
    }
    Ok(())
}

/// Puts loaded ones in the place of those that are at work. For a moment both are, and a connection is counted once: a socket has one entry.
///
/// # Errors
/// When the kernel refuses; then the old ones stay, or both.
pub(crate) fn replace(loaded: &mut Loaded, pins: &Pins) -> Result<()> {
    for name in names::CONNECTION_PROGRAMS {
        let program = program(loaded, name)?;
        let link = program.attach().context("attaching the programs that count connections")?;
        let link = FdLink::from(program.take_link(link)?);
        let [path, link_path] = pins.counting(name);
        pins.replace(&path, |path| Ok(program.pin(path)?))?;
        pins.replace(&link_path, |path| Ok(link.pin(path).map(drop)?))?;
    }
    Ok(())
}

/// Counts in the namespace at hand from now on, where it was another one.
///
/// # Errors
/// When the kernel can't, and says why. Then nothing is counted any more.
pub(crate) fn renew(loaded: &mut Loaded, pins: &Pins) -> Result<()> {
    load(loaded).and_then(|()| replace(loaded, pins)).inspect_err(|_| remove(pins))
}

fn remove(pins: &Pins) {
    for path in names::CONNECTION_PROGRAMS.iter().flat_map(|name| pins.counting(name)) {
        // Most often there is none.
        let _absent = std::fs::remove_file(path);
    }
}

fn program<'l>(loaded: &'l mut Loaded, name: &str) -> Result<&'l mut BtfTracePoint> {
    Ok(loaded.ebpf().program_mut(name).context("the object holds no such program")?.try_into()?)
}

fn start(loaded: &mut Loaded, pins: &Pins) -> Result<()> {
    load(loaded)?;
    let mut links = Vec::new();
    for name in names::CONNECTION_PROGRAMS {
        let program = program(loaded, name)?;
        let link = program.attach()?;
        let link = FdLink::from(program.take_link(link)?);
        let [path, link_path] = pins.counting(name);
        program.pin(path).context("pinning the program")?;
        links.push((link, link_path));
    }
    for (link, path) in links {
        link.pin(path).context("pinning the link")?;
    }
    Ok(())
}

/// Whether they are at work.
#[must_use]
pub(crate) fn is_on(pins: &Pins) -> bool {
    names::CONNECTION_PROGRAMS.iter().all(|name| pins.counting(name)[1].exists())
}

/// Says so when there would be nobody to count for a limit of open connections.
///
/// # Errors
/// [`FailureKind::Kernel`]
pub(crate) fn is_on_or_fail(pins: &Pins) -> Result<()> {
    if is_on(pins) {
        return Ok(());
    }
    Err(Failure::with(
        FailureKind::Kernel,
        format!(
            "open connections are not counted here: the kernel did not take the programs for its tracepoint {TRACEPOINT}, or their \
             pins are gone. `sipguard detach --all` and `sipguard attach` try again; `limit set --of connections` needs no such program"
        ),
    ))
}

/// Who has how many connections open, the most first: of each sender one of them, and the count.
///
/// # Errors
/// When the map can't be read.
pub fn senders(pins: &Pins) -> Result<Vec<(CountedConnection, usize)>> {
    let sockets: Sockets = maps::open(pins, names::SOCKETS)?;
    let mut counts: BTreeMap<_, (CountedConnection, usize)> = BTreeMap::new();
    for opened in sockets.iter() {
        let Plain(opened) = opened.context("counting the open connections")?.1;
        counts.entry((opened.remote, opened.netns, opened.trunk)).or_insert((opened, 0)).1 += 1;
    }
    let mut senders: Vec<_> = counts.into_values().collect();
    senders.sort_by_key(|(_, count)| Reverse(*count));
    Ok(senders)
}
