//! Room on file systems: what is kept of packets must not fill the disk of a PBX.

use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use nix::libc::O_NOFOLLOW;
use nix::sys::statvfs::fstatvfs;

/// Most that is left free where nothing else is said.
const MOST_FLOOR: u64 = 1 << 30;

/// Bytes that stay free on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Floor {
    /// 1 GiB or a twentieth of the file system, whichever is less.
    #[default]
    Usual,
    /// So many.
    Bytes(u64),
}

impl Floor {
    /// How many bytes are lacking where `file` is, for `bytes` more to leave as much free as has to be; 0 when there is room.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn lacking(self, file: impl AsFd, bytes: u64) -> Result<u64> {
        let about = fstatvfs(file).context("asking how much room there is on the disk")?;
        let unit = about.fragment_size();
        let floor = match self {
            Floor::Usual => (about.blocks() * unit / 20).min(MOST_FLOOR),
            Floor::Bytes(bytes) => bytes,
        };
        Ok((floor + bytes).saturating_sub(about.blocks_available() * unit))
    }
}

/// How files with packets are made: for their owner and group, and never by following a link.
#[must_use]
pub fn private() -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o640).custom_flags(O_NOFOLLOW);
    options
}

/// Whether two files are one, or `false` when one can't be asked.
#[must_use]
pub fn is_at(file: &std::fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Reads a size: bytes, or with `K`, `M` or `G` behind it so many times 1024 of the one before.
///
/// # Errors
/// What is wrong, for people.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write bytes, or such as 500K, 64M or 2G");
    let upper = text.trim_end_matches(['b', 'B']).trim_end_matches(['i', 'I']).to_ascii_uppercase();
    let (digits, shift) = match upper.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if upper.ends_with('K') => (digits, 10),
        Some(digits) if upper.ends_with('M') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (upper.as_str(), 0),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1", 1), ("500K", 512_000), ("64m", 64 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "M", "-1", "1.5G", "1T", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
