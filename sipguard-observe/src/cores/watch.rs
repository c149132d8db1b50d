//! What happens to the cores of a directory.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::statvfs::statvfs;
use sipguard_core::service::CoreSettings;

use super::copy::CopyJob;
use super::file::Core;
use super::{CoreAction, What, matches};

/// A core of which nobody can tell whether it is written is taken for finished when it did not change for so long.
const QUIET: Duration = Duration::from_secs(2);
/// How long nothing is moved after that failed.
const PAUSE: Duration = Duration::from_secs(60);

/// Looks after one directory.
#[derive(Debug)]
pub struct CoreWatch {
    settings: CoreSettings,
    directory: PathBuf,
    seen: HashMap<(u64, u64), Seen>,
    looked: bool,
    /// Cores that were cut off, as long as somebody writes them.
    cut: Vec<Cut>,
    copy: Option<CopyJob>,
    paused: Option<Instant>,
    /// What could not be done, and when that was told.
    told: HashMap<PathBuf, Instant>,
}

#[derive(Debug)]
struct Cut {
    file: File,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    state: (u64, SystemTime),
    since: Instant,
}

impl CoreWatch {
    /// Begins to look after the directory of the settings.
    ///
    /// # Errors
    /// When one of the directories is missing, or both are one.
    pub fn new(settings: CoreSettings) -> Result<CoreWatch> {
        let directory = settings
            .directory
            .clone()
            .context("no directory of cores is named: `directory` in [cores] does it")?;
        let canonical = |path: &Path| {
            std::fs::canonicalize(path).with_context(|| {
                format!("there is no directory {}: make it, or name another one in [cores]", path.display())
            })
        };
        let directory = canonical(&directory)?;
        if let Some(to) = &settings.move_to
            && canonical(to)? == directory
        {
            anyhow::bail!(
                "cores can't be moved from {} to itself: name another place in `move-to`",
                directory.display()
            );
        }
        Ok(CoreWatch {
            settings,
            directory,
            seen: HashMap::new(),
            looked: false,
            cut: Vec::new(),
            copy: None,
            paused: None,
            told: HashMap::new(),
        })
    }

    /// Does what is to be done now, and says what it did; cheap enough for ten times a second.
    pub fn poll(&mut self) -> Result<Vec<CoreAction>> {
        let mut actions = self.act()?;
        // What fails is tried each time, and told once a minute.
        self.told.retain(|_, since| since.elapsed() < PAUSE);
        actions.retain(|action| {
            let is_new = !self.told.contains_key(&action.path);
            if action.what == What::Failed && is_new {
                self.told.insert(action.path.clone(), Instant::now());
            }
            action.what != What::Failed || is_new
        });
        Ok(actions)
    }

    fn act(&mut self) -> Result<Vec<CoreAction>> {
        let mut actions = Vec::new();
        for cut in &mut self.cut {
            if cut.file.metadata().is_ok_and(|metadata| metadata.len() > 0) && cut.file.set_len(0).is_ok() {
                cut.since = Instant::now();
            }
        }
        self.cut.retain(|cut| cut.since.elapsed() < QUIET);
        let (mut finished, mut written, grown) = self.look(&mut actions)?;
        self.moves(&mut finished, &mut actions);
        // Twice what was written since the last look may be written before the next one.
        let floor = self.settings.free.saturating_add(grown.saturating_mul(2));
        let busy: u64 = written.iter().map(|core| core.bytes).sum();
        thin(&self.directory, &self.settings, busy, floor, &mut finished, &mut actions)?;
        if free(&self.directory)? < floor && !written.is_empty() {
            written.sort_by_key(|core| core.bytes);
            for core in written.into_iter().rev() {
                self.cut_off(&core, &mut actions);
            }
        }
        Ok(actions)
    }

    /// The finished cores, those that are written, and by how much these have grown.
    fn look(&mut self, actions: &mut Vec<CoreAction>) -> Result<(Vec<Core>, Vec<Core>, u64)> {
        let (mut finished, mut written, mut grown) = (Vec::new(), Vec::new(), 0);
        let mut seen = HashMap::new();
        for mut core in cores(&self.directory, &self.settings.patterns)? {
            let state = (core.bytes, core.modified);
            let before = self.seen.get(&core.id).copied();
            let since =
                before.filter(|seen| seen.state == state).map_or_else(Instant::now, |seen| seen.since);
            seen.insert(core.id, Seen { state, since });
            let is_written = core.is_written().unwrap_or(since.elapsed() < QUIET);
            if is_written {
                // How long it took to write what is found at first nobody knows.
                let start = if self.looked { 0 } else { core.bytes };
                grown += core.bytes.saturating_sub(before.map_or(start, |seen| seen.state.0));
                written.push(core);
                continue;
            }
            if core.path.file_name().is_some_and(|name| name == "core") {
                rename(&mut core, actions);
            }
            finished.push(core);
        }
        self.seen = seen;
        self.looked = true;
        finished.sort_by_key(|core| core.modified);
        Ok((finished, written, grown))
    }

    /// Goes on moving, or begins with the oldest core.
    fn moves(&mut self, finished: &mut Vec<Core>, actions: &mut Vec<CoreAction>) {
        let Some(to) = self.settings.move_to.clone() else { return };
        if self.copy.is_none()
            && self.paused.is_none_or(|since| since.elapsed() > PAUSE)
            && !finished.is_empty()
        {
            let core = finished.remove(0);
            let (path, bytes) = (core.path.clone(), core.bytes);
            match self.room(&to, bytes, actions).and_then(|()| Ok(CopyJob::begin(core, &to)?)) {
                Ok(copy) => self.copy = Some(copy),
                Err(error) => self.give_up(path, bytes, &error, actions),
            }
        }
        let Some(mut copy) = self.copy.take() else { return };
        finished.retain(|core| core.id != copy.core.id);
        let (path, bytes) = (copy.core.path.clone(), copy.core.bytes);
        match copy.step() {
            Ok(true) => {
                let why = format!("to {}", copy.to.display());
                actions.push(CoreAction { what: What::Moved, path, bytes, why });
            }
            Ok(false) => self.copy = Some(copy),
            Err(error) => self.give_up(path, bytes, &error.into(), actions),
        }
    }

    /// Makes room in the other place.
    fn room(&self, to: &Path, bytes: u64, actions: &mut Vec<CoreAction>) -> Result<()> {
        let mut there = cores(to, &self.settings.patterns)?;
        there.sort_by_key(|core| core.modified);
        let floor = bytes.saturating_add(self.settings.free.min(capacity(to)? / 20));
        thin(to, &self.settings, bytes, floor, &mut there, actions)?;
        anyhow::ensure!(free(to)? >= floor, "{} has no room for it", to.display());
        Ok(())
    }

    fn give_up(&mut self, path: PathBuf, bytes: u64, error: &anyhow::Error, actions: &mut Vec<CoreAction>) {
        self.paused = Some(Instant::now());
        actions.push(CoreAction {
            what: What::Failed,
            path,
            bytes,
            why: format!("moving it failed: {error:#}"),
        });
    }

    /// Throws a core away that is still written. Its blocks are free at once, and again with each poll until its writer is done.
    fn cut_off(&mut self, core: &Core, actions: &mut Vec<CoreAction>) {
        let done = core.for_writing().and_then(|file| {
            core.unlink()?;
            // A file with another name somewhere is that name's.
            if core.links == 1 {
                file.set_len(0)?;
                self.cut.push(Cut { file, since: Instant::now() });
            }
            Ok(())
        });
        let (what, why) = match done {
            Ok(()) => (What::Cut, "the disk would be full before it is written".to_owned()),
            Err(error) => (What::Failed, format!("cutting it off failed: {error}")),
        };
        actions.push(CoreAction { what, path: core.path.clone(), bytes: core.bytes, why });
    }
}

/// Deletes cores, the oldest behind the first before all others, until there are as many as are to be kept and there is room. The last one
/// goes only when the disk is too full.
fn thin(
    directory: &Path,
    settings: &CoreSettings,
    busy: u64,
    floor: u64,
    finished: &mut Vec<Core>,
    actions: &mut Vec<CoreAction>,
) -> Result<()> {
    loop {
        let used = busy + finished.iter().map(|core| core.bytes).sum::<u64>();
        let (over, full) = (used > settings.limit && finished.len() > 1, free(directory)? < floor);
        let spare = finished.len() > settings.keep + 1;
        if finished.is_empty() || !over && !full && !spare {
            return Ok(());
        }
        let core = finished.remove(if finished.len() > 1 { 1 } else { 0 });
        let why = if full {
            format!("less than {} MiB would be free", settings.free >> 20)
        } else if spare {
            format!("the first and {} others are kept", settings.keep)
        } else {
            format!("the cores occupy more than {} MiB", settings.limit >> 20)
        };
        let (what, why) = match core.unlink() {
            Ok(()) => (What::Deleted, why),
            Err(error) => (What::Failed, format!("deleting it failed: {error}")),
        };
        actions.push(CoreAction { what, path: core.path.clone(), bytes: core.bytes, why });
    }
}

/// Gives a core a name of its own: the next dump would overwrite it.
fn rename(core: &mut Core, actions: &mut Vec<CoreAction>) {
    let Ok(time) = Timestamp::try_from(core.modified) else { return };
    let to = core.path.with_file_name(format!("core.{}", time.strftime("%Y%m%dT%H%M%S.%3fZ")));
    if renameat2(AT_FDCWD, &core.path, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE).is_ok() {
        let why = format!("it is {}, the next one would overwrite it", to.display());
        actions.push(CoreAction {
            what: What::Renamed,
            path: std::mem::replace(&mut core.path, to),
            bytes: core.bytes,
            why,
        });
    }
}

fn cores(directory: &Path, patterns: &[String]) -> Result<Vec<Core>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("listing the cores in {}", directory.display()))?;
    let fits = |name: &str| patterns.iter().any(|pattern| matches(pattern, name));
    let names =
        entries.filter_map(|entry| entry.ok().filter(|entry| entry.file_name().to_str().is_some_and(fits)));
    Ok(names.filter_map(|entry| Core::open(&entry.path())).collect())
}

fn free(directory: &Path) -> Result<u64> {
    let found = statvfs(directory)
        .with_context(|| format!("asking for the free space of {}", directory.display()))?;
    Ok(found.blocks_available() * found.fragment_size())
}

fn capacity(directory: &Path) -> Result<u64> {
    let found =
        statvfs(directory).with_context(|| format!("asking for the size of {}", directory.display()))?;
    Ok(found.blocks() * found.fragment_size())
}
