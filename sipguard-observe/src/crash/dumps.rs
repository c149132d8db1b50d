//! Cores that begin to be written in a directory: a dump takes seconds, and what matters is what came before it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sipguard_core::clock::Clock;
use sipguard_core::service::DEFAULT_PATTERNS;

use crate::cores::matches;

/// How long after its last byte a core still speaks of a death.
const RECENT: Duration = Duration::from_secs(2);
/// How late the time of a file may be: file systems use the clock of the last tick, and milliseconds are cut off.
const COARSE_NS: u64 = 12_000_000;

/// A core that has begun.
#[derive(Clone, Debug)]
pub(super) struct Dump {
    /// Its path.
    pub path: PathBuf,
    /// When it began (`CLOCK_BOOTTIME`, nanoseconds).
    pub at_ns: u64,
}

/// A watch on a directory.
#[derive(Debug)]
pub(super) struct Dumps {
    directory: PathBuf,
    inotify: Inotify,
    /// Those under way.
    open: HashMap<String, Instant>,
    last: Option<Instant>,
}

impl Dumps {
    /// Begins to watch a directory.
    ///
    /// # Errors
    /// When there is no such directory, or it can't be watched.
    pub(super) fn new(directory: &Path) -> Result<Dumps> {
        let named = || format!("watching the directory of cores {}", directory.display());
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).with_context(named)?;
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(directory, flags | AddWatchFlags::IN_ONLYDIR).with_context(named)?;
        Ok(Dumps { directory: directory.to_owned(), inotify, open: HashMap::new(), last: None })
    }

    /// What has begun since the last time.
    pub(super) fn begun(&mut self, clock: &Clock) -> Vec<Dump> {
        let mut begun = Vec::new();
        let events = match self.inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return begun,
            // Never for what can be asked for here; the processes are watched as well.
            Err(_) => return begun,
        };
        for event in events {
            let Some(name) = event.name.and_then(|name| name.into_string().ok()) else { continue };
            if !DEFAULT_PATTERNS.iter().any(|pattern| matches(pattern, &name)) {
                continue;
            }
            let path = self.directory.join(&name);
            if event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
                self.open.remove(&name);
                continue;
            }
            self.last = Some(Instant::now());
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let is_new = event.mask.contains(AddWatchFlags::IN_CREATE);
            if !metadata.is_file() || !is_new && metadata.blocks() == 0 || self.open.contains_key(&name) {
                continue;
            }
            self.open.insert(name, Instant::now());
            // A core that overwrites an older one is as old as that.
            let created =
                metadata.created().ok().filter(|_| is_new).and_then(|time| Timestamp::try_from(time).ok());
            let created = created.map(|time| clock.boot(Some(time.as_millisecond())) + COARSE_NS);
            begun.push(Dump { path, at_ns: created.map_or(clock.boot_ns, |at_ns| at_ns.min(clock.boot_ns)) });
        }
        begun
    }

    /// Whether one was written just now.
    #[must_use]
    pub(super) fn recent(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < RECENT)
    }
}
