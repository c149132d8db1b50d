//! A file that may be a core.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc;

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;
/// `e_type` of a core, in the ELF header (elf.h).
const ET_CORE: u16 = 4;

/// A core.
#[derive(Debug)]
pub(super) struct Core {
    /// Its path.
    pub path: PathBuf,
    /// Which file it is: device and inode.
    pub id: (u64, u64),
    /// Bytes that it occupies.
    pub bytes: u64,
    /// When it was written last.
    pub modified: SystemTime,
    /// Names of the file.
    pub links: u64,
    /// Open to be read.
    pub file: File,
}

impl Core {
    /// The core at a path; `None` when there is something else, a link included.
    pub(super) fn open(path: &Path) -> Option<Core> {
        let file = options().read(true).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        let mut head = [0; 18];
        if !metadata.is_file() || file.read_exact_at(&mut head, 0).is_err() || !is_core(&head) {
            return None;
        }
        Some(Core {
            path: path.to_owned(),
            id: (metadata.dev(), metadata.ino()),
            bytes: metadata.blocks() * BLOCK,
            modified: metadata.modified().ok()?,
            links: metadata.nlink(),
            file,
        })
    }

    /// Whether somebody has it open to write; `None` when this can't be told.
    pub(super) fn is_written(&self) -> Option<bool> {
        is_written(&self.file)
    }

    /// The same file, to be written.
    pub(super) fn for_writing(&self) -> Result<File> {
        let file = options().write(true).open(&self.path)?;
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) == self.id {
            Ok(file)
        } else {
            Err(Error::other("it is another file by now"))
        }
    }

    /// Removes its name, if that is still its.
    pub(super) fn unlink(&self) -> Result<()> {
        let metadata = std::fs::symlink_metadata(&self.path)?;
        if (metadata.dev(), metadata.ino()) != self.id {
            return Err(Error::other("it is another file by now"));
        }
        std::fs::remove_file(&self.path)
    }
}

fn options() -> std::fs::OpenOptions {
    let mut options = File::options();
    // A pipe of that name must not stall us.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Whether somebody has a file open to write: then there is no read lease of it.
pub(super) fn is_written(file: &File) -> Option<bool> {
    // SAFETY: a descriptor of ours and plain numbers.
    let leased = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if leased == 0 {
        // SAFETY: as above.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        return Some(false);
    }
    (Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)).then_some(true)
}

/// Whether a file begins as a core does.
fn is_core(head: &[u8; 18]) -> bool {
    let kind = [head[16], head[17]];
    let kind = if head[5] == 2 { u16::from_be_bytes(kind) } else { u16::from_le_bytes(kind) };
    head.starts_with(b"\x7fELF") && kind == ET_CORE
}
