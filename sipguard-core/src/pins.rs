//! Where the guard's state is pinned, and the order in which it is touched.
//!
//! ```text
//! DIR/maps/NAME      every map of `abi::names::pinned`
//! DIR/maps/NAME-layout  a symbolic link to the number of its layout; see `layouts.rs`
//! DIR/maps-new       the maps of another build while an upgrade loads its programs
//! DIR/maps-next      the same while it replaces programs; afterwards those that were in force, until the store is compared
//! DIR/programs/SLOT  the program of an interface
//! DIR/links/SLOT     its link: while this stands, packets are filtered
//! DIR/programs/SLOT-out  the program that sees what the PBX sends
//! DIR/links/SLOT-out     its link, where the kernel has one for it
//! DIR/programs/NAME  a program of `abi::names::CONNECTION_PROGRAMS`, for all interfaces
//! DIR/links/NAME     its link
//! ```
//!
//! Pins are named by slot because bpffs takes no dots in names, and `eth0.100` has one. A first `attach` builds all maps in `DIR%new%PID` and
//! renames that to `DIR`, so whoever finds maps finds all of them.
//!
//! Two locks, and none for readers: `attach` and `detach` lock `DIR`, for as long as they take; who reads, changes and writes back one of the small
//! entries that several verbs share (settings, captures) locks `DIR/maps`, for microseconds. Rules have locks of their own (`store/lock.rs`).

mod between;

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::maps::{Array, Map, MapData, MapInfo};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use sipguard_common::abi::{ABI_VERSION, names};

use crate::container;
use crate::error::{Failure, FailureKind};
use crate::ssh::ancestors;

/// Default place of the pins.
pub const DEFAULT_DIR: &str = "/sys/fs/bpf/sipguard";
/// How long `attach` or `detach` waits for another one: on a slow machine the kernel looks at a program for some seconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a lock.
const LOCK_POLL: Duration = Duration::from_millis(2);

/// The directory of the pins.
#[derive(Clone, Debug)]
pub struct Pins {
    dir: PathBuf,
    /// Name of the directory of the maps: those of an upgrade that is under way are in another one.
    maps: &'static str,
}

/// Directory of the maps in force.
const MAPS: &str = "maps";
/// Directory of the maps that an upgrade makes.
const MAPS_NEW: &str = "maps-new";
/// Directory of maps that some programs have already, or had until a moment ago: an upgrade is at its end, or was killed there.
const MAPS_NEXT: &str = "maps-next";

/// A lock of a directory, until it is dropped.
pub struct Lock {
    file: Flock<File>,
}

impl Pins {
    /// Pins in `dir`, which lies on a bpffs.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Pins {
        Pins { dir: dir.into(), maps: MAPS }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir.join(self.maps).join(name)
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

    /// Paths of the program that sees what the PBX sends by the interface of a slot, and of its link.
    #[must_use]
    pub fn second_eye(&self, slot: u32) -> [PathBuf; 2] {
        ["programs", "links"].map(|kind| self.dir.join(kind).join(format!("{slot}-out")))
    }

    /// Paths of a program that counts open connections, and of its link.
    #[must_use]
    pub fn counting(&self, name: &str) -> [PathBuf; 2] {
        ["programs", "links"].map(|kind| self.dir.join(kind).join(name))
    }

    /// Whether there are maps: of a guard that is attached, or of one that is just being attached.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.map(names::ABI).exists()
    }

    /// Whether the guard is attached: a link is what makes it so.
    #[must_use]
    pub fn are_attached(&self) -> bool {
        // Where that can't be seen, whoever goes on is told so.
        self.exist() && self.slots().map_or(true, |slots| !slots.is_empty())
    }

    /// Which maps they are: every first `attach` makes new ones, and no two of a boot have one number.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn identity(&self) -> Result<String> {
        let id = MapInfo::from_pin(self.map(names::ABI)).context("reading the number of a map")?.id();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("reading the kernel's boot id")?;
        Ok(format!("{} {id}", boot.trim()))
    }

    /// Slots that have a link.
    ///
    /// # Errors
    /// When that can't be seen, as without a free descriptor: nobody may take that for none.
    pub fn slots(&self) -> Result<Vec<u32>> {
        let path = self.dir.join("links");
        let entries = match std::fs::read_dir(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            entries => entries.with_context(|| format!("listing {}", path.display()))?,
        };
        let mut slots: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn create(&self) -> Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for name in [MAPS, "programs", "links"] {
            let path = self.dir.join(name);
            builder.create(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }

    fn parent(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new("/"))
    }

    /// Makes sure that the directory above the pins is a bpffs.
    ///
    /// # Errors
    /// When it is none and none can be mounted.
    pub fn mount(&self) -> Result<()> {
        let parent = self.parent();
        let found = statfs(parent).with_context(|| format!("{} can't hold pins", parent.display()))?;
        if found.filesystem_type() == BPF_FS_MAGIC {
            return if is_seen_above(parent) { Ok(()) } else { Err(short_lived(parent)) };
        }
        if parent != Path::new("/sys/fs/bpf") {
            bail!("{} is not on a bpffs: choose a directory below /sys/fs/bpf", self.dir.display());
        }
        let mounts = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = mounts(std::process::id().cast_signed());
        if ancestors().any(|pid| mounts(pid).is_some() && mounts(pid) != own) {
            return Err(short_lived(parent));
        }
        mount(Some("bpf"), parent, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .context("mounting a bpffs on /sys/fs/bpf")
    }

    /// Waits for the right to attach or detach. `None` when there are no pins, whose directory it is that is locked.
    ///
    /// # Errors
    /// When another process holds it for more than a minute.
    pub fn lock(&self) -> Result<Option<Lock>> {
        let start = Instant::now();
        loop {
            let Some(held) = self.wait(&self.dir, start + LOCK_PATIENCE)? else { return Ok(None) };
            // Whoever held it may have removed the directory, and somebody else may have made a new one.
            if held.is_of(&self.dir) {
                return Ok(Some(held));
            }
        }
    }

    /// Waits for the right to change an entry that several verbs share. It is held for microseconds.
    ///
    /// # Errors
    /// [`FailureKind::NotAttached`] without pins, and when another process holds it for more than a minute.
    pub fn edit(&self) -> Result<Lock> {
        self.wait(&self.dir.join(MAPS), Instant::now() + LOCK_PATIENCE)?
            .ok_or_else(|| not_attached(&self.dir))
    }

    /// Locks a directory; `None` when it is not there.
    fn wait(&self, path: &Path, end: Instant) -> Result<Option<Lock>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| format!("opening {}", path.display()))?,
        };
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Some(Lock { file })),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < end => file = back,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
                    "another process has held the lock on {} for {} s: `fuser {}` names it",
                    path.display(),
                    LOCK_PATIENCE.as_secs(),
                    path.display()
                ),
                Err((_, error)) => {
                    return Err(error).with_context(|| format!("locking {}", path.display()));
                }
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// Removes what a first `attach` has left that was killed while it built its maps.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(crate) fn remove_begun(&self) -> Result<()> {
        let beginning = self.beginning();
        for entry in std::fs::read_dir(self.parent()).into_iter().flatten().flatten() {
            let number =
                |name: &str| name.strip_prefix(&beginning).is_some_and(|pid| pid.parse::<u32>().is_ok());
            if !entry.file_name().to_str().is_some_and(number) {
                continue;
            }
            let left = Pins::new(entry.path());
            // A link makes a guard, whatever its name is: what is begun has none.
            if let Ok(Some(_dead)) = left.wait(left.dir(), Instant::now())
                && left.slots()?.is_empty()
            {
                left.remove_all()?;
            }
        }
        Ok(())
    }

    /// What the name of a directory begins with in which a first `attach` builds. No name of a container has `%` but before two digits.
    fn beginning(&self) -> String {
        format!("{}%new%", self.dir.file_name().unwrap_or_default().to_string_lossy())
    }

    /// An empty directory beside that of the pins, locked, where a first `attach` builds them. What others left that were killed there goes.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn begin(&self) -> Result<(Pins, Lock)> {
        self.remove_begun()?;
        let new = Pins::new(self.parent().join(format!("{}{}", self.beginning(), std::process::id())));
        // Another one may take it for a dead one's before it is locked.
        let is_gone = |error: &anyhow::Error| {
            error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
        };
        loop {
            match new.create() {
                Err(error) if is_gone(&error) && self.parent().exists() => continue,
                made => made?,
            }
            if let Some(lock) = new.lock()? {
                new.create()?;
                return Ok((new, lock));
            }
        }
    }

    /// Gives what [`Pins::begin`] began its place. `false` when somebody else was first.
    ///
    /// # Errors
    /// When it can't be renamed.
    pub fn finish(&self, new: &Pins) -> Result<bool> {
        match std::fs::rename(&new.dir, &self.dir) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("renaming {}", new.dir.display())),
        }
    }

    /// Says so when the guard is not attached, or when that can't be seen.
    ///
    /// # Errors
    /// [`FailureKind::NotAttached`], [`FailureKind::Privilege`]
    pub fn attached_or_fail(&self) -> Result<()> {
        match std::fs::read_dir(self.dir.join("links")) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Failure::with(
                FailureKind::Privilege,
                format!("the pins in {} can't be read: permission denied. Run as root", self.dir.display()),
            )),
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(error).with_context(|| format!("listing the links in {}", self.dir.display()))
            }
            Ok(_) if self.are_attached() => Ok(()),
            _ => Err(not_attached(&self.dir)),
        }
    }

    /// Checks that the guard is attached, by this ABI version. Every verb does this first.
    ///
    /// # Errors
    /// [`FailureKind::NotAttached`] without pins; a failure with the remedy for another version.
    pub fn check(&self) -> Result<()> {
        self.attached_or_fail()?;
        self.check_abi()
    }

    /// The same for maps that are there, attached or not.
    ///
    /// # Errors
    /// As [`Pins::check`].
    pub(crate) fn check_abi(&self) -> Result<()> {
        let path = self.map(names::ABI);
        let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        let map: Array<_, u32> =
            Map::Array(data).try_into().context("reading the ABI version of the pins")?;
        let found = map.get(&0, 0).context("reading the ABI version of the pins")?;
        if found != ABI_VERSION {
            return Err(Failure::with(
                FailureKind::Failed,
                format!(
                    "the pins under {} have ABI version {found}, this sipguard speaks {ABI_VERSION}; the filter goes on as it is. \
                     `sipguard upgrade` puts this build in its place and keeps what both know; `sipguard detach --all` and `attach` begin anew",
                    self.dir.display()
                ),
            ));
        }
        self.check_upgrade()
    }

    /// Removes the pins of a slot: its links (which takes the programs off the interface) and its programs.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub(crate) fn remove_slot(&self, slot: u32) -> Result<()> {
        let [eye, eye_link] = self.second_eye(slot);
        for path in [self.link(slot), self.program(slot), eye_link, eye] {
            remove_file(&path)?;
        }
        Ok(())
    }

    /// Puts another pin at the place of one: `pin` makes it at the path that it is given, and it takes the place at once.
    ///
    /// # Errors
    /// When a pin can't be made, or take the place.
    pub(crate) fn replace(&self, path: &Path, pin: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push("-new");
        let new = path.with_file_name(name);
        // Of one that was killed.
        remove_file(&new)?;
        pin(&new).with_context(|| format!("pinning {}", new.display()))?;
        std::fs::rename(&new, path).with_context(|| format!("renaming {}", new.display()))
    }

    /// Removes every pin. Knows nothing of the ABI, so that it works for pins of any version.
    ///
    /// # Errors
    /// When a pin or directory can't be removed.
    pub(crate) fn remove_all(&self) -> Result<()> {
        for name in ["links", "programs", MAPS_NEW, MAPS_NEXT, MAPS] {
            if name == MAPS {
                // Who looks at the maps looks at this one first.
                remove_file(&self.map(names::ABI))?;
            }
            remove_dir(&self.dir.join(name))?;
        }
        match std::fs::remove_dir(&self.dir) {
            // Another first `attach` may have taken the place meanwhile.
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(error).with_context(|| format!("removing {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Lock {
    /// Whether the locked directory is the one that a path names now.
    fn is_of(&self, path: &Path) -> bool {
        let inode = |found: std::io::Result<std::fs::Metadata>| found.map(|found| found.ino()).ok();
        let held = inode(self.file.metadata());
        held.is_some() && held == inode(std::fs::metadata(path))
    }
}

/// Whether a directory is the same file system for all processes above this one, as far as that can be seen: a shell that goes on, the machine's first.
fn is_seen_above(dir: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    let Ok(own) = device(dir) else { return true };
    ancestors().all(|pid| {
        let theirs =
            Path::new("/proc").join(pid.to_string()).join("root").join(dir.strip_prefix("/").unwrap_or(dir));
        match device(&theirs) {
            Ok(theirs) => theirs == own,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    })
}

fn short_lived(parent: &Path) -> anyhow::Error {
    Failure::with(
        FailureKind::Failed,
        format!(
            "the bpffs on {} would end with this command, and the filter with it: `ip netns exec` and `unshare` give a command mounts of its \
             own. Enter the network namespace alone: `nsenter --net=/run/netns/NAME sipguard attach IFACE`",
            parent.display()
        ),
    )
}

fn not_attached(dir: &Path) -> anyhow::Error {
    let text = match container::chosen() {
        Some(_) => {
            format!(
                "sipguard is not attached{}: `sipguard attach{}` does it",
                container::within(),
                container::option()
            )
        }
        None => {
            let others = match container::guarded_beside(dir).as_slice() {
                [] => String::new(),
                labels => format!("; it is in containers (`--container`): {}", labels.join(", ")),
            };
            format!("sipguard is not attached: `sipguard attach IFACE` does it{others}")
        }
    };
    Failure::with(FailureKind::NotAttached, text)
}

/// Removes a directory of pins, where there is one.
fn remove_dir(dir: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        remove_file(&entry?.path())?;
    }
    std::fs::remove_dir(dir).with_context(|| format!("removing {}", dir.display()))
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
