//! A small file system that lives as long as its guard.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, scratch::Scratch};

/// A tmpfs on a directory of this process; it is unmounted and removed on drop.
#[derive(Debug)]
pub struct Tmpfs(Scratch);

impl Tmpfs {
    /// Makes one of `mib` MiB whose name contains `purpose`.
    pub fn new(purpose: &str, mib: u32) -> Result<Self> {
        let scratch = Scratch::new(purpose)?;
        let size = format!("size={mib}m");
        process::output(
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(scratch.path()),
        )?;
        Ok(Self(scratch))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` inside it; nothing is created.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is in it, in order.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries =
            std::fs::read_dir(self.path()).with_context(|| format!("listing {}", self.path().display()))?;
        let mut names = vec![];
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that ends may have its directory there still.
        if let Err(error) = process::output(Command::new("umount").arg("--lazy").arg(self.path())) {
            eprintln!("lab: {error:#}");
        }
    }
}
