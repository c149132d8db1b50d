//! The locks of the store: a file beside it, `sipguard.db.lock`, of which each byte is one (open file description locks, fcntl(2)). They go with
//! their process, however it ends.
//!
//! A long list is applied in many short changes (`bulk.rs`). Whoever wants one change in between gets its turn: it stands at [`NEXT`] while it
//! waits for [`CHANGE`], and the list's next change has to queue behind it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::diagnosis::Unwritable;

/// The place of whoever changes next.
const NEXT: i64 = 0;
/// One change of rows and maps at a time.
const CHANGE: i64 = 1;
/// One long list at a time.
const BULK: i64 = 2;
/// One comparison of all of the store with all of the maps at a time.
const SETTLE: i64 = 3;

/// How long a change waits for others. Each of them takes some ten milliseconds, so this is for machines that are stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a lock.
const POLL: Duration = Duration::from_millis(1);

/// The file of the locks.
#[derive(Clone)]
pub(super) struct Locks {
    file: Arc<File>,
    path: PathBuf,
}

/// A lock, until it is dropped.
pub(super) struct Held {
    file: Arc<File>,
    byte: i64,
}

impl Locks {
    /// Those of a store, whose directory is there.
    pub(super) fn of(store: &Path) -> Result<Locks> {
        let path = path_of(store);
        let mut open = OpenOptions::new();
        // A link there would let whoever owns the directory choose what is opened.
        open.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = open.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        Ok(Locks { file: Arc::new(file.map_err(Unwritable)?), path })
    }

    /// Whether somebody changes rows or maps. Where nobody can have, the file is not there.
    #[must_use]
    pub(super) fn are_held(store: &Path) -> bool {
        let mut open = OpenOptions::new();
        open.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let Ok(file) = open.open(path_of(store)) else { return false };
        let mut lock = libc::flock { l_len: SETTLE, ..of(CHANGE, libc::F_WRLCK) };
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
    }

    /// Waits for the turn to change rows and maps.
    ///
    /// # Errors
    /// When another process keeps it for more than a minute.
    pub(super) fn change(&self) -> Result<Held> {
        let _next = self.wait(NEXT)?;
        self.wait(CHANGE)
    }

    /// Waits for the lock of long lists.
    ///
    /// # Errors
    /// When another process keeps it for more than a minute.
    pub(super) fn bulk(&self) -> Result<Held> {
        self.wait(BULK)
    }

    /// The lock of long lists, when nobody has it.
    ///
    /// # Errors
    /// When the lock can't be asked for.
    pub(super) fn try_bulk(&self) -> Result<Option<Held>> {
        self.attempt(BULK)
    }

    /// Waits for the right to compare all.
    ///
    /// # Errors
    /// When another process keeps it for more than a minute.
    pub(super) fn settle(&self) -> Result<Held> {
        self.wait(SETTLE)
    }

    fn wait(&self, byte: i64) -> Result<Held> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(held) = self.attempt(byte)? {
                return Ok(held);
            }
            if Instant::now() > end {
                let path = self.path.display();
                bail!(
                    "another process has held {path} for {} s: `fuser {path}` names those that have it open",
                    PATIENCE.as_secs()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    fn attempt(&self, byte: i64) -> Result<Option<Held>> {
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&of(byte, libc::F_WRLCK))) {
            Ok(_) => Ok(Some(Held { file: Arc::clone(&self.file), byte })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("locking {}", self.path.display())),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The kernel lets go of what is left with the last descriptor.
        let _gone = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&of(self.byte, libc::F_UNLCK)));
    }
}

fn path_of(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn of(byte: i64, kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_a_lock_and_ends_with_its_holder() {
        let store = std::env::temp_dir().join(format!("sipguard-lock-{}", std::process::id()));
        let (one, other) = (Locks::of(&store).unwrap(), Locks::of(&store).unwrap());
        assert!(!Locks::are_held(&store));
        let held = one.change().unwrap();
        assert!(Locks::are_held(&store));
        assert!(other.attempt(CHANGE).unwrap().is_none());
        assert!(other.attempt(NEXT).unwrap().is_some(), "the place of the next is free again");
        assert!(other.try_bulk().unwrap().is_some());
        let waiting = std::thread::spawn(move || other.change().map(|_| ()));
        let next_is_taken =
            || one.clone().path.exists() && Locks::of(&store).unwrap().attempt(NEXT).unwrap().is_none();
        while !next_is_taken() {
            std::thread::yield_now();
        }
        drop(held);
        waiting.join().unwrap().unwrap();
        std::fs::remove_file(&one.path).unwrap();
    }
}
