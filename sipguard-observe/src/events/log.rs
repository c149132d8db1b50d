//! Events as lines of JSON in a file, which logrotate may rename away.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sipguard_core::disk::{self, Floor};

/// A file of events. At its limit it becomes `FILE.1`, in place of the one before.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    most_bytes: u64,
    floor: Floor,
    stopped: bool,
}

impl Log {
    /// Appends to a file of at most `most_bytes`, as long as the disk keeps what `floor` says.
    pub fn open(path: &Path, most_bytes: u64, floor: Floor) -> Result<Log> {
        let mut log = Log { path: path.to_owned(), file: None, most_bytes, floor, stopped: false };
        log.file = Some(log.begin()?);
        Ok(log)
    }

    /// Appends an event; false when the disk has no room for it.
    ///
    /// # Errors
    /// Once when the disk has no room any more; and when the file can't be written.
    pub fn write(&mut self, event: &impl Serialize) -> Result<bool> {
        let line = serde_json::to_string(event).context("an event as JSON")? + "\n";
        let bytes = line.len() as u64;
        let mut file = match self.file.take() {
            Some(file) if disk::is_at(&file, &self.path) => file,
            // Renamed away, or removed.
            _ => self.begin()?,
        };
        let mut len = file.metadata().with_context(|| self.about("looking at"))?.len();
        if len > 0 && len + bytes > self.most_bytes {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old).with_context(|| self.about("renaming"))?;
            file = self.begin()?;
            len = 0;
        }
        if self.floor.lacking(&file, bytes)? > 0 {
            return self.stop("the disk is nearly full");
        }
        if let Err(error) = file.write_all(line.as_bytes()) {
            // No half lines.
            let _shorter = file.set_len(len);
            if error.kind() == std::io::ErrorKind::StorageFull {
                return self.stop("the disk is full");
            }
            return Err(error).with_context(|| self.about("writing"));
        }
        self.file = Some(file);
        self.stopped = false;
        Ok(true)
    }

    fn stop(&mut self, why: &str) -> Result<bool> {
        if !std::mem::replace(&mut self.stopped, true) {
            bail!("no events are written to {}: {why}; it goes on when there is room", self.path.display());
        }
        Ok(false)
    }

    fn begin(&self) -> Result<File> {
        disk::private().append(true).create(true).open(&self.path).with_context(|| self.about("opening"))
    }

    fn about(&self, what: &str) -> String {
        format!("{what} the log of events {}", self.path.display())
    }
}
