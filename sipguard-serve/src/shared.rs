//! What the loop of events and the answers over HTTP both know.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use sipguard_core::ops::Context;
use sipguard_core::pins::Pins;
use sipguard_core::protect::{self, Protected};
use sipguard_core::service::Options;
use sipguard_observe::metrics::{Sizes, Stored};
use sipguard_observe::ops::crash::{self, CrashReport, ReportCache};
use sipguard_observe::view::EventView;

use super::attached::AttachedGuard;

/// What takes long to count is counted anew when it is older than this, or than fifty times what it took.
const FRESH: Duration = Duration::from_secs(5);
const SHARE: u32 = 50;

/// Of both.
pub(crate) struct ServeShared {
    /// Pins of the guard.
    pub pins: Pins,
    /// File of the rules.
    pub store: PathBuf,
    /// What an operator chose.
    pub options: Options,
    state: Mutex<ServeState>,
    slow: Mutex<Option<Slow>>,
    crashes: Mutex<ReportCache>,
}

/// What the loop tells.
#[derive(Default)]
pub(crate) struct ServeState {
    /// The last events, the oldest first.
    pub recent: VecDeque<EventView>,
    /// The last notices, the oldest first: crashes and core dumps, which a flood of events does not push out.
    pub notes: VecDeque<EventView>,
    /// Events that were written over before they were read.
    pub missed: u64,
    /// How many notes there were of each kind.
    pub notices: BTreeMap<&'static str, u64>,
    /// Parts of `serve` by name, and whether they fail.
    pub parts: Vec<(&'static str, bool)>,
}

/// What takes long to read.
#[derive(Clone)]
pub(crate) struct Slow {
    guard: AttachedGuard,
    read: Instant,
    took: Duration,
    /// How full maps are.
    pub sizes: Sizes,
    /// What the store knows; `None` when it can't be read.
    pub stored: Option<Arc<Stored>>,
    /// What may not be blocked by mistake.
    pub machine: Arc<[Protected]>,
}

impl ServeShared {
    /// Of a guard, its rules and what an operator chose.
    #[must_use]
    pub(crate) fn new(pins: &Pins, store: &Path, options: &Options) -> ServeShared {
        ServeShared {
            pins: pins.clone(),
            store: store.to_owned(),
            options: options.clone(),
            state: Mutex::default(),
            slow: Mutex::default(),
            crashes: Mutex::default(),
        }
    }

    /// The guard and its rules, as operations take them.
    #[must_use]
    pub(crate) fn host(&self) -> Context {
        Context::of(&self.pins, &self.store)
    }

    /// What the loop tells. Nobody holds it for long.
    pub(crate) fn state(&self) -> MutexGuard<'_, ServeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reports of crashes, the oldest first.
    pub(crate) fn crashes(&self) -> Vec<CrashReport> {
        let mut cache = self.crashes.lock().unwrap_or_else(PoisonError::into_inner);
        crash::list_cached(&self.options.crash.directory, &mut cache)
    }

    /// What takes long to read, of the guard that is attached. Who asks at the same time waits for the one who reads.
    pub(crate) fn slow(&self, guard: &AttachedGuard) -> Result<Slow> {
        let mut kept = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slow) = kept.as_ref()
            && slow.guard == *guard
            && slow.read.elapsed() < FRESH.max(slow.took * SHARE)
        {
            return Ok(slow.clone());
        }
        let start = Instant::now();
        let sizes = Sizes::read(&self.pins, &self.store)?;
        // What the kernel counts is told also when the store can't be read; `status` and `list` say why it can't.
        let stored = Stored::read(&self.store).ok().map(Arc::new);
        let machine = protect::protected().into();
        let (guard, read, took) = (guard.clone(), Instant::now(), start.elapsed());
        Ok(kept.insert(Slow { guard, read, took, sizes, stored, machine }).clone())
    }
}
