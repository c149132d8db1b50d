//! A ring of files: the newest packets, within a size, and never at the price of a full disk.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_DIRECTORY, O_NOFOLLOW};
use sipguard_common::abi::RECORD_BYTES;
use sipguard_core::disk;
use sipguard_core::service::EvidenceLimits;

use super::pcapng::{COMMENT_BYTES, PcapWriter};
use crate::redact::RedactedPacket;

/// More bytes than a packet and the description of its interface take.
const PACKET_BYTES: u64 = (RECORD_BYTES + COMMENT_BYTES + 512) as u64;
/// After the disk was full, how long until it is tried again.
const PAUSE: Duration = Duration::from_secs(10);
/// Files at most, as many times the number that [`EvidenceLimits`] has: a process that starts again and again begins a file each time.
const SHORT_FILES: usize = 8;

/// Bytes of a file that is full.
fn file_bytes(limits: &EvidenceLimits) -> u64 {
    (limits.bytes / u64::from(limits.files.max(1))).max(PACKET_BYTES * 2)
}

/// The files of one directory. Others' files in it are never touched.
pub struct EvidenceRing {
    dir: PathBuf,
    /// The directory, locked: one process at a time keeps evidence there.
    handle: Flock<File>,
    limits: EvidenceLimits,
    /// Number of the next file.
    next: u64,
    current: Option<Current>,
    /// Since when nothing is kept.
    stopped: Option<Instant>,
}

/// The file that is written.
struct Current {
    name: String,
    file: Arc<File>,
    writer: PcapWriter<RingShared>,
    bytes: u64,
}

/// The file, shared with the writer above it.
struct RingShared(Arc<File>);

impl Write for RingShared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        (&*self.0).flush()
    }
}

impl EvidenceRing {
    /// Goes on with the files that are in a directory, which is made where it is missing (mode 0750). The newest is repaired, should its
    /// writer have been killed within a packet.
    ///
    /// # Errors
    /// When the directory can't be made or read, is a link, or another process keeps evidence there.
    pub fn open(dir: &Path, limits: EvidenceLimits) -> Result<EvidenceRing> {
        let shown = dir.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .with_context(|| format!("making {shown}"))?;
        let handle = File::options().read(true).custom_flags(O_NOFOLLOW | O_DIRECTORY).open(dir);
        let handle =
            handle.with_context(|| format!("opening {shown}, which must be a directory and no link"))?;
        let handle = match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(handle) => handle,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!(
                    "another process keeps evidence in {shown}: `fuser {shown}` names it; choose another directory"
                )
            }
            Err((_, error)) => return Err(error).with_context(|| format!("locking {shown}")),
        };
        let mut ring =
            EvidenceRing { dir: dir.to_owned(), handle, limits, next: 0, current: None, stopped: None };
        let files = ring.files()?;
        if let Some(newest) = files.last() {
            ring.next = newest.number + 1;
            repair(&dir.join(&newest.name))?;
        }
        Ok(ring)
    }

    /// Keeps a packet, and gives the name of its file. `None` while the disk has no room.
    ///
    /// # Errors
    /// Once when the disk has no room any more, after that `None` until it has; and when the directory can't be written.
    pub fn write(&mut self, packet: &RedactedPacket, comment: &str) -> Result<Option<String>> {
        if self.stopped.is_some_and(|since| since.elapsed() < PAUSE) {
            return Ok(None);
        }
        match self.keep(packet, comment) {
            Ok(Some(name)) => {
                self.stopped = None;
                Ok(Some(name))
            }
            Ok(None) => self.stop("the disk is nearly full".to_owned()),
            Err(error) => self.stop(format!("{error:#}")),
        }
    }

    /// Whether nothing is kept now, for the disk has no room.
    #[must_use]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Looks whether the file is still there; somebody may have removed it.
    pub fn tick(&mut self) {
        let gone = |current: &Current| !disk::is_at(&current.file, &self.dir.join(&current.name));
        if self.current.as_ref().is_some_and(gone) {
            self.current = None;
        }
    }

    fn stop(&mut self, why: String) -> Result<Option<String>> {
        self.current = None;
        let first = self.stopped.replace(Instant::now()).is_none();
        if first {
            bail!("no evidence is kept in {}: {why}; it goes on when there is room", self.dir.display());
        }
        Ok(None)
    }

    fn keep(&mut self, packet: &RedactedPacket, comment: &str) -> Result<Option<String>> {
        loop {
            let lacking = self.limits.floor.lacking(&*self.handle, PACKET_BYTES)?;
            if lacking > 0 {
                // Where all of it would not be enough, nothing is thrown away.
                let own: u64 = self.files()?.iter().map(|file| file.bytes).sum();
                if lacking > own || !self.remove_oldest()? {
                    return Ok(None);
                }
                continue;
            }
            if self.current.as_ref().is_some_and(|one| one.bytes + PACKET_BYTES > file_bytes(&self.limits)) {
                self.current = None;
            }
            let Some(current) = &mut self.current else {
                match self.begin() {
                    Err(error) if is_full(&error) => {
                        if self.remove_oldest()? {
                            continue;
                        } else {
                            return Ok(None);
                        }
                    }
                    begun => begun?,
                }
                continue;
            };
            match current.writer.write(packet, comment) {
                Ok(()) => {
                    current.bytes = current.file.metadata().context("asking for the size of evidence")?.len();
                    return Ok(Some(current.name.clone()));
                }
                Err(error) => {
                    // What is written of the packet goes, and the rest of it into another file.
                    let _shorter = current.file.set_len(current.bytes);
                    self.current = None;
                    if !is_full(&error) {
                        return Err(error);
                    }
                    if !self.remove_oldest()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Begins a file, for which the oldest ones make room.
    fn begin(&mut self) -> Result<()> {
        let most = self.limits.files.max(1) as usize * SHORT_FILES;
        loop {
            let files = self.files()?;
            let bytes: u64 = files.iter().map(|file| file.bytes).sum();
            if files.len() < most
                && bytes + file_bytes(&self.limits) <= self.limits.bytes.max(file_bytes(&self.limits))
            {
                break;
            }
            if !self.remove_oldest()? {
                break;
            }
        }
        let name =
            format!("evidence-{}-{:06}.pcapng", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), self.next);
        let path = self.dir.join(&name);
        let file = disk::private().create_new(true).open(&path);
        let file = Arc::new(file.with_context(|| format!("making {}", path.display()))?);
        self.next += 1;
        // Whatever the umask is: a group may be meant to read it.
        file.set_permissions(PermissionsExt::from_mode(0o640)).context("setting the mode of evidence")?;
        match PcapWriter::new(RingShared(file.clone())) {
            Ok(writer) => {
                let bytes = file.metadata().context("asking for the size of evidence")?.len();
                self.current = Some(Current { name, file, writer, bytes });
                Ok(())
            }
            Err(error) => {
                let _gone = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Removes the oldest file but the one that is written; false when there is none.
    fn remove_oldest(&mut self) -> Result<bool> {
        let current = self.current.as_ref().map(|current| current.name.as_str());
        let Some(oldest) = self.files()?.into_iter().find(|file| Some(file.name.as_str()) != current) else {
            // Its own bytes are what is in the way.
            return match self.current.take() {
                Some(current) if current.bytes > PACKET_BYTES => {
                    std::fs::remove_file(self.dir.join(&current.name))
                        .context("removing the oldest evidence")?;
                    Ok(true)
                }
                _ => Ok(false),
            };
        };
        let path = self.dir.join(&oldest.name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(true),
        }
    }

    /// The ring's files, the oldest first.
    fn files(&self) -> Result<Vec<RingFile>> {
        let dir = || format!("reading {}", self.dir.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir).with_context(dir)? {
            let entry = entry.with_context(dir)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let Some(number) = number(&name) else { continue };
            // Not followed: what is a link is not ours.
            let Ok(about) = entry.metadata() else { continue };
            if about.is_file() {
                files.push(RingFile { number, name, bytes: about.len() });
            }
        }
        files.sort_by(|one, other| (one.number, &one.name).cmp(&(other.number, &other.name)));
        Ok(files)
    }
}

/// A file of the ring.
struct RingFile {
    number: u64,
    name: String,
    bytes: u64,
}

/// The number in the name of a file of the ring, `evidence-20261123T042225Z-000001.pcapng`.
fn number(name: &str) -> Option<u64> {
    let (time, number) = name.strip_prefix("evidence-")?.strip_suffix(".pcapng")?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let is_ours = date.len() == 8 && clock.len() == 6 && digits(date) && digits(clock);
    (is_ours && number.len() >= 6 && digits(number)).then(|| number.parse().ok())?
}

/// Cuts a file behind its last whole block.
fn repair(path: &Path) -> Result<()> {
    let mut file =
        disk::private().read(true).open(path).with_context(|| format!("opening {}", path.display()))?;
    let len = file.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
    let mut whole = 0;
    let mut head = [0; 8];
    while whole + 12 <= len {
        file.seek(SeekFrom::Start(whole)).context("looking for the end of evidence")?;
        file.read_exact(&mut head).context("looking for the end of evidence")?;
        let block = u64::from(u32::from_ne_bytes([head[4], head[5], head[6], head[7]]));
        if block < 12 || block % 4 != 0 || whole + block > len {
            break;
        }
        whole += block;
    }
    if whole < len {
        file.set_len(whole).with_context(|| format!("mending {}", path.display()))?;
    }
    Ok(())
}

fn is_full(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.into_iter().any(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_own() {
        assert_eq!(number("evidence-20261123T042225Z-000001.pcapng"), Some(1));
        assert_eq!(number("evidence-20261123T042225Z-1000001.pcapng"), Some(1_000_001));
        for name in [
            "evidence.pcapng",
            "evidence-20261123T042225Z-1.pcapng",
            "evidence-20261123T042225Z-000001.pcapng.gz",
            "evidence-case4711-000001.pcapng",
            "evidence-20261123T042225Z-00000a.pcapng",
            "my-evidence-20261123T042225Z-000001.pcapng",
        ] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
