//! A core on its way to another place, a piece at a time: nobody waits for gigabytes.

use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek};

use super::file::Core;

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;
/// Pieces of one step.
const PIECES: usize = 16;

/// A copy under way.
#[derive(Debug)]
pub(super) struct CopyJob {
    /// The core.
    pub core: Core,
    /// Where it goes.
    pub to: PathBuf,
    part: PathBuf,
    file: File,
    at: u64,
    len: u64,
}

impl CopyJob {
    /// Begins to copy a core into a directory, under its name and when it was written.
    pub(super) fn begin(core: Core, directory: &Path) -> Result<CopyJob> {
        let name = core.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = directory.join(&name);
        if to.symlink_metadata().is_ok() {
            return Err(Error::other(format!("there is a {} already", to.display())));
        }
        let part = directory.join(format!(".{name}.part"));
        // What an earlier process has left behind.
        let _none = std::fs::remove_file(&part);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&part)?;
        let len = core.file.metadata()?.len();
        Ok(CopyJob { core, to, part, file, at: 0, len })
    }

    /// Copies some of it. True when it is there, on the disk, and gone here.
    pub(super) fn step(&mut self) -> Result<bool> {
        let mut piece = vec![0; PIECE as usize];
        for _ in 0..PIECES {
            let Some(at) = self.data()? else { return self.finish().map(|()| true) };
            let want = PIECE.min(self.len - at) as usize;
            let got = self.core.file.read_at(&mut piece[..want], at)?;
            if got == 0 {
                return Err(Error::other("it became shorter"));
            }
            self.file.write_all_at(&piece[..got], at)?;
            self.at = at + got as u64;
        }
        self.file.sync_data()?;
        Ok(false)
    }

    /// Where the next data is, behind the holes.
    fn data(&self) -> Result<Option<u64>> {
        if self.at >= self.len {
            return Ok(None);
        }
        match lseek(&self.core.file, self.at as i64, Whence::SeekData) {
            Ok(at) => Ok(Some(at as u64).filter(|at| *at < self.len)),
            Err(Errno::ENXIO) => Ok(None),
            Err(Errno::EINVAL) => Ok(Some(self.at)),
            Err(error) => Err(error.into()),
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.file.set_len(self.len)?;
        self.file.set_modified(self.core.modified)?;
        self.file.sync_all()?;
        std::fs::rename(&self.part, &self.to)?;
        if let Some(directory) = self.to.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.core.unlink()
    }
}

impl Drop for CopyJob {
    fn drop(&mut self) {
        // Finished, it is there no more.
        let _none = std::fs::remove_file(&self.part);
    }
}
