//! Where the guard's state is pinned, and the order in which it is touched.
//!
//! ```text
//! DIR/maps/NAME      every map of `abi::names::MAPS`
//! DIR/programs/SLOT  the program of an interface
//! DIR/links/SLOT     its link: while this stands, packets are filtered
//! DIR/programs/NAME  a program of `abi::names::COUNTING`, for all interfaces
//! DIR/links/NAME     its link
//! ```
//!
//! Pins are named by slot because bpffs takes no dots in names, and `eth0.100` has one.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::maps::{Array, Map, MapData};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use sipguard_common::abi::{ABI_VERSION, names};

use crate::error::{Failure, Status};

/// Default place of the pins.
pub const DEFAULT_DIR: &str = "/sys/fs/bpf/sipguard";
/// How long a verb waits for another one's lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The directory of the pins.
#[derive(Clone, Debug)]
pub struct Pins {
    dir: PathBuf,
}

/// Held while the pins are read (shared) or changed (exclusive).
pub struct Lock {
    _file: Flock<File>,
}

impl Pins {
    /// Pins in `dir`, which lies on a bpffs.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Pins {
        Pins { dir: dir.into() }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir.join("maps").join(name)
    }

    /// Path of the program of a slot.
    #[must_use]
    pub fn program(&self, slot: u32) -> PathBuf {
        self.dir.join("programs").join(slot.to_string())
    }

    /// Path of the link of a slot.
    #[must_use]
    pub fn link(&self, slot: u32) -> PathBuf {
        self.dir.join("links").join(slot.to_string())
    }

    /// Paths of a program that counts open connections, and of its link.
    #[must_use]
    pub fn counting(&self, name: &str) -> [PathBuf; 2] {
        ["programs", "links"].map(|kind| self.dir.join(kind).join(name))
    }

    /// Whether there are pins.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.map(names::ABI).exists()
    }

    /// Slots that have a link.
    #[must_use]
    pub fn slots(&self) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir(self.dir.join("links")) else { return Vec::new() };
        let mut slots: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        slots.sort_unstable();
        slots
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn create(&self) -> Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for name in ["maps", "programs", "links"] {
            let path = self.dir.join(name);
            builder.create(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }

    fn parent(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new("/"))
    }

    /// Makes sure that the directory above the pins is a bpffs, where locks are taken.
    ///
    /// # Errors
    /// When it is none and none can be mounted.
    pub fn create_parent(&self) -> Result<()> {
        self.mount()
    }

    fn mount(&self) -> Result<()> {
        let parent = self.parent();
        let found = statfs(parent).with_context(|| format!("{} can't hold pins", parent.display()))?;
        if found.filesystem_type() == BPF_FS_MAGIC {
            return Ok(());
        }
        if parent != Path::new("/sys/fs/bpf") {
            bail!("{} is not on a bpffs: choose a directory below /sys/fs/bpf", self.dir.display());
        }
        mount(Some("bpf"), parent, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .context("mounting a bpffs on /sys/fs/bpf")
    }

    /// Waits for the right to read the pins, or with `change` to change them.
    ///
    /// # Errors
    /// When another process holds it for more than ten seconds.
    pub fn lock(&self, change: bool) -> Result<Lock> {
        let parent = self.parent();
        let arg = if change { FlockArg::LockExclusiveNonblock } else { FlockArg::LockSharedNonblock };
        let mut file = File::open(parent).with_context(|| format!("opening {}", parent.display()))?;
        let start = Instant::now();
        loop {
            match Flock::lock(file, arg) {
                Ok(held) => return Ok(Lock { _file: held }),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) if start.elapsed() < LOCK_PATIENCE => file = back,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
                    "another process has held the lock on {} for {} s: `fuser {}` names it",
                    parent.display(),
                    LOCK_PATIENCE.as_secs(),
                    parent.display()
                ),
                Err((_, error)) => {
                    return Err(error).with_context(|| format!("locking {}", parent.display()));
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The right to change the pins, when nobody else has one now.
    ///
    /// # Errors
    /// When the lock can't be asked for.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let parent = self.parent();
        let file = File::open(parent).with_context(|| format!("opening {}", parent.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(Lock { _file: held })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("locking {}", parent.display())),
        }
    }

    /// Says so when there are no pins, without waiting for a lock.
    ///
    /// # Errors
    /// [`Status::NotAttached`]
    pub fn exist_or_fail(&self) -> Result<()> {
        if self.exist() {
            return Ok(());
        }
        Err(Failure::with(Status::NotAttached, "sipguard is not attached: `sipguard attach IFACE` does it"))
    }

    /// Checks that the pins exist and were made by this ABI version. Every verb does this first, under the lock.
    ///
    /// # Errors
    /// [`Status::NotAttached`] without pins; a failure with the remedy for another version.
    pub fn check(&self) -> Result<()> {
        self.exist_or_fail()?;
        let path = self.map(names::ABI);
        let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        let map: Array<_, u32> =
            Map::Array(data).try_into().context("reading the ABI version of the pins")?;
        let found = map.get(&0, 0).context("reading the ABI version of the pins")?;
        if found != ABI_VERSION {
            return Err(Failure::with(
                Status::Failed,
                format!(
                    "the pins under {} have ABI version {found}, this sipguard speaks {ABI_VERSION}; the filter goes on as it is. \
                     Use the sipguard that attached it, or replace it: `sipguard detach --all`, then `sipguard attach`",
                    self.dir.display()
                ),
            ));
        }
        Ok(())
    }

    /// Removes the pins of a slot: its link (which takes the program off the interface) and its program.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn remove_slot(&self, slot: u32) -> Result<()> {
        for path in [self.link(slot), self.program(slot)] {
            remove_file(&path)?;
        }
        Ok(())
    }

    /// Removes every pin. Knows nothing of the ABI, so that it works for pins of any version.
    ///
    /// # Errors
    /// When a pin or directory can't be removed.
    pub fn remove_all(&self) -> Result<()> {
        for name in ["links", "programs", "maps"] {
            let dir = self.dir.join(name);
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries {
                remove_file(&entry?.path())?;
            }
            std::fs::remove_dir(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        match std::fs::remove_dir(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
