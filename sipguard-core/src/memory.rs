//! A map of the kernel in this process' memory, to be read only.

use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use anyhow::{Context, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use sipguard_common::abi::{PacketRecord, RECORD_BYTES, RateBucket};

use crate::maps::MapDir;

/// A map of `T`, an array whose entries lie one behind the other.
#[derive(Debug)]
pub struct Memory<T> {
    first: NonNull<T>,
    bytes: usize,
}

// SAFETY: the memory is the map's, whichever thread looks at it, and is only read.
unsafe impl<T> Send for Memory<T> {}

impl<T> Memory<T> {
    /// Maps `entries` entries of a map into memory.
    ///
    /// # Errors
    /// When the map is not there, or can't be mapped.
    pub fn of(dir: &dyn MapDir, name: &str, entries: u32) -> Result<Memory<T>> {
        let data = dir.data(name)?;
        let bytes = entries as usize * size_of::<T>();
        let len = NonZeroUsize::new(bytes).context("a map of nothing")?;
        // SAFETY: the kernel chooses where; nothing else is there.
        let first =
            unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, data.fd().as_fd(), 0) };
        let first = first.with_context(|| format!("mapping {name} into memory"))?;
        Ok(Memory { first: first.cast(), bytes })
    }

    fn at(&self, index: u32) -> *const T {
        let entries = self.bytes / size_of::<T>();
        assert!((index as usize) < entries, "entry {index} of {entries}");
        // SAFETY: within the mapping, as asserted.
        unsafe { self.first.as_ptr().add(index as usize) }
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `of`, to which no reference is ever given out.
        let _ = unsafe { munmap(self.first.cast(), self.bytes) };
    }
}

impl Memory<u64> {
    /// An entry as it is now.
    pub fn load(&self, index: u32) -> u64 {
        // SAFETY: a live, aligned word, which others change atomically.
        unsafe { AtomicU64::from_ptr(self.at(index).cast_mut()) }.load(Ordering::Acquire)
    }
}

impl Memory<RateBucket> {
    /// A copy of the bucket at an index. Its numbers may be of moments that lie nanoseconds apart.
    pub fn bucket(&self, index: u32) -> RateBucket {
        // SAFETY: live memory of the type, of which any bytes are a value.
        unsafe { self.at(index).read_volatile() }
    }
}

impl Memory<PacketRecord> {
    /// The number of the record at an index as it is now; 0 while it is being written.
    pub fn number(&self, index: u32) -> u64 {
        // SAFETY: a live, aligned word, which others change atomically.
        unsafe { AtomicU64::from_ptr((&raw const (*self.at(index)).number).cast_mut()) }
            .load(Ordering::Acquire)
    }

    /// A copy of the record at an index; `None` when it is being written, or was while it was copied.
    pub fn record(&self, index: u32) -> Option<PacketRecord> {
        let before = self.number(index);
        // SAFETY: live memory of the type. What changes meanwhile makes a wrong value, never an invalid one, and is thrown away.
        let mut copy = unsafe { self.at(index).read_volatile() };
        fence(Ordering::Acquire);
        if before == 0 || self.number(index) != before {
            return None;
        }
        copy.number = before;
        copy.captured = copy.captured.min(RECORD_BYTES as u32);
        Some(copy)
    }
}
