//! Asks the kernel side for packets, as long as this process lives.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::Array;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sipguard_common::abi::{CAPTURE_DROPPED, CAPTURE_PASSED, ObserveSettings, names};
use sipguard_core::clock::Clock;
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::maps::{self, Plain};
use sipguard_core::pins::Pins;

use crate::events::SenderFilter;

/// How far ahead the end of a capture is put: so long the kernel goes on after its process was killed.
const AHEAD: Duration = Duration::from_secs(3);
/// How often it is put off.
const RENEWED: Duration = Duration::from_secs(1);

/// What is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaptureRequest {
    /// From whom; everybody without.
    pub source: Option<SenderFilter>,
    /// What was stopped, or would be in `monitor` mode.
    pub dropped: bool,
    /// What passed, of guarded ports.
    pub passed: bool,
}

/// A capture under way. Drop ends it.
pub(crate) struct Capture<'p> {
    pins: &'p Pins,
    request: CaptureRequest,
    renewed: Instant,
    /// The right to capture: one at a time, and gone with the process.
    _only: Flock<File>,
}

impl<'p> Capture<'p> {
    /// Begins.
    ///
    /// # Errors
    /// When another process captures already, whose pid is named, or the map can't be written.
    pub(crate) fn begin(pins: &'p Pins, request: CaptureRequest) -> Result<Capture<'p>> {
        let only = only(pins)?;
        ask(pins, &request, AHEAD)?;
        Ok(Capture { pins, request, renewed: Instant::now(), _only: only })
    }

    /// Puts the end off, when it is time to.
    ///
    /// # Errors
    /// When the map can't be written, as after `detach`.
    pub(crate) fn renew(&mut self) -> Result<()> {
        if self.renewed.elapsed() >= RENEWED {
            ask(self.pins, &self.request, AHEAD)?;
            self.renewed = Instant::now();
        }
        Ok(())
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // What can't be cleared ends by itself.
        let _ended = change(self.pins, |taps| {
            *taps = ObserveSettings { records: taps.records, ..bytemuck::Zeroable::zeroed() };
            Ok(())
        });
    }
}

/// Asks the kernel for packets.
fn ask(pins: &Pins, request: &CaptureRequest, ahead: Duration) -> Result<()> {
    let until_ns = Clock::now()?.after(Some(ahead));
    change(pins, |taps| {
        let (source, mask) = request.source.map_or(([0; 16], [0; 16]), |source| {
            let mask = u128::MAX.checked_shl(128 - source.net.bits()).unwrap_or(0);
            (source.net.bytes(), mask.to_be_bytes())
        });
        *taps = ObserveSettings {
            capture_until_ns: until_ns,
            source,
            mask,
            port: request.source.and_then(|source| source.port).unwrap_or(0).to_be_bytes(),
            verdicts: if request.dropped { CAPTURE_DROPPED } else { 0 }
                | if request.passed { CAPTURE_PASSED } else { 0 },
            records: taps.records,
            pad: 0,
        };
        Ok(())
    })
}

fn change(pins: &Pins, how: impl FnOnce(&mut ObserveSettings) -> Result<()>) -> Result<()> {
    let _edit = pins.edit()?;
    let mut map: Array<_, Plain<ObserveSettings>> = maps::open(pins, names::TAPS)?;
    let mut taps = map.get(&0, 0).context("reading what is captured")?.0;
    how(&mut taps)?;
    map.set(0, Plain(taps), 0).context("setting what is captured")
}

/// The right to capture.
fn only(pins: &Pins) -> Result<Flock<File>> {
    // A directory that nothing else locks.
    let dir = &pins.dir().join("programs");
    let file = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    let inode = file.metadata().with_context(|| format!("looking at {}", dir.display()))?.ino();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => {
            let who = holder(inode).map_or(String::new(), |pid| format!(" (pid {pid})"));
            let text = format!(
                "another `sipguard capture`{who} is at work, and there is only one at a time: end it, or wait"
            );
            Failure::with(FailureKind::Failed, text)
        }
        error => anyhow::Error::new(error).context(format!("locking {}", dir.display())),
    })
}

/// The process that holds the lock on an inode, as the kernel lists it: `1: FLOCK  ADVISORY  WRITE 4711 00:20:123 0 EOF`.
fn holder(inode: u64) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let end = format!(":{inode}");
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { return None };
        place.ends_with(&end).then(|| pid.parse().ok())?
    })
}
