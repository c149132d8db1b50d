//! The maps between two builds: how a build tells what its maps are, and those of an upgrade until they are in force.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use sipguard_common::abi::names;

use super::{MAPS, MAPS_NEW, MAPS_NEXT, Pins, remove_dir, remove_file};
use crate::error::{Failure, FailureKind};

impl Pins {
    fn layout_path(&self, name: &str) -> PathBuf {
        self.map(&format!("{name}-layout"))
    }

    /// What the layout of a map is; `None` for pins of a build that did not tell.
    pub(crate) fn layout(&self, name: &str) -> Option<String> {
        std::fs::read_link(self.layout_path(name)).ok()?.to_str().map(String::from)
    }

    /// Says what the layout of a map is.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn set_layout(&self, name: &str, number: &str) -> Result<()> {
        if self.layout(name).is_some_and(|said| said == number) {
            return Ok(());
        }
        let path = self.layout_path(name);
        remove_file(&path)?;
        symlink(number, &path).with_context(|| format!("making {}", path.display()))
    }

    /// The same programs and links with maps of their own, which are those in force but for some. The caller has the lock.
    ///
    /// # Errors
    /// When they can't be pinned.
    pub(crate) fn begin_maps(&self, without: &[&str]) -> Result<Pins> {
        let new = Pins { dir: self.dir.clone(), maps: MAPS_NEW };
        // Of an upgrade that was killed.
        self.remove_other_maps()?;
        let dir = new.dir.join(MAPS_NEW);
        DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("making {}", dir.display()))?;
        for name in names::pinned().filter(|name| !without.contains(name)) {
            std::fs::hard_link(self.map(name), new.map(name)).with_context(|| format!("pinning {name}"))?;
        }
        Ok(new)
    }

    /// Says that programs get the maps of [`Pins::begin_maps`] from now on.
    ///
    /// # Errors
    /// When they can't be renamed.
    pub(crate) fn commit_maps(&self) -> Result<()> {
        let [new, next] = [MAPS_NEW, MAPS_NEXT].map(|name| self.dir.join(name));
        std::fs::rename(&new, &next).with_context(|| format!("renaming {}", new.display()))
    }

    /// Puts the maps of [`Pins::begin_maps`] in force, all at once (`RENAME_EXCHANGE`, on a bpffs since Linux 5.16).
    ///
    /// # Errors
    /// When they can't be renamed.
    pub(crate) fn finish_maps(&self) -> Result<()> {
        let [next, old] = [MAPS_NEXT, MAPS].map(|name| self.dir.join(name));
        renameat2(AT_FDCWD, &next, AT_FDCWD, &old, RenameFlags::RENAME_EXCHANGE)
            .with_context(|| format!("putting {} in the place of {}", next.display(), old.display()))
    }

    /// Whether an upgrade replaces programs, or was killed when it did.
    #[must_use]
    pub(crate) fn are_between(&self) -> bool {
        self.dir.join(MAPS_NEXT).exists()
    }

    /// Removes all maps that are not in force.
    ///
    /// # Errors
    /// When they can't be removed.
    pub(crate) fn remove_other_maps(&self) -> Result<()> {
        [MAPS_NEW, MAPS_NEXT].iter().try_for_each(|name| remove_dir(&self.dir.join(name)))
    }

    /// That no upgrade was killed when some programs had other maps already: what is read and changed here would not be all that filters.
    pub(super) fn check_upgrade(&self) -> Result<()> {
        let is_interrupted = self.are_between()
            && self.wait(&self.dir, Instant::now()).is_ok_and(|lock| lock.is_some())
            && self.are_between();
        if is_interrupted {
            return Err(Failure::with(
                FailureKind::Failed,
                "an upgrade was interrupted, and some of the filter is of one build and some of the other: `sipguard upgrade` ends it",
            ));
        }
        Ok(())
    }
}
