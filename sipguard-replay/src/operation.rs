//! `replay`: what would be stopped of a capture. Touches no interface and no pin.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use sipguard_core::config::{self, Config};
use sipguard_core::ops::Context;
use sipguard_core::settings::{EffectiveSettings, SettingsRequest};
use sipguard_core::store::dry_run;

use crate::ReplayRequest;
use crate::report::ReplayReport;
use crate::run::Replayer;

/// With what captures are replayed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Addresses of the PBX; none are those that the capture names, or a guess.
    pub pbx: Vec<IpAddr>,
    /// This configuration file; `None` is the built-in defaults.
    pub config: Option<PathBuf>,
    /// The rules of the store as well.
    pub with_store: bool,
    /// Whether the line at fault of each malformed message is told.
    pub explain: bool,
    /// Ports, profile, limits and checks, before those of the file.
    pub settings: SettingsRequest,
    /// Most connections that are followed.
    pub flows: u32,
}

/// Captures that are judged at once: each has tables of its own in the kernel, and threads on every CPU.
const AT_ONCE: usize = 2;

/// What hears how many bytes of a capture are read.
pub type Progress = Box<dyn Fn(u64)>;

/// Replays captures with the programs of an object, an ELF file; each is judged by itself. The reports are in the order of the captures.
/// `progress` is asked for each as it begins.
///
/// # Errors
/// When the configuration is invalid, the store can't be read, or the kernel refuses the program or can't run it.
pub fn run(
    host: &Context,
    object: &[u8],
    request: Request,
    files: &[PathBuf],
    progress: &(dyn Fn(&Path) -> Progress + Sync),
) -> Result<Vec<ReplayReport>> {
    let config = match &request.config {
        Some(file) => sipguard_core::ops::config::read(Some(file), "nothing was replayed")?.config,
        None => Config::default(),
    };
    let settings = request.settings.or(&config.settings).of(&EffectiveSettings::default());
    let store = request.with_store.then_some(host.store.as_path());
    let rules = dry_run(store, |change| config::apply(change, &config, None).map(drop))?;
    let Request { pbx, flows, explain, .. } = request;
    let request = ReplayRequest { pbx, flows, settings, rules, explain };
    let at_once = files.len().min(AT_ONCE);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let one_thread = || -> Result<()> {
        let mut replayer = Replayer::load(object, request.clone())?;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index) else { return Ok(()) };
            let report = replayer.replay(file, &*progress(file))?;
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, report);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one_thread)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread that replays panicked"))?
        })
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}
