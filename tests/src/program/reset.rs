//! The maps of a loaded program as bytes, whatever their layout: emptied between two cases, filled and looked at by the test of that.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapType;
use aya_obj::generated::BPF_F_MMAPABLE;
use aya_obj::generated::bpf_cmd::{
    self, BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY, BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_ELEM,
    BPF_MAP_UPDATE_BATCH, BPF_MAP_UPDATE_ELEM,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use sipguard_common::abi::names;

use super::{Program, descriptor};
use crate::bench::kernel::{blank, bpf};

/// Bytes of values that one call writes at the most.
const BATCH_BYTES: usize = 1 << 20;

/// One map.
pub(super) struct Contents {
    map: OwnedFd,
    kind: MapType,
    key_bytes: usize,
    /// Bytes of a value; of a per-CPU map those of all processors.
    value_bytes: usize,
    entries: u32,
    /// Whether the kernel maps it into the memory of a process.
    is_mappable: bool,
}

impl Program {
    /// Makes it what [`Program::new`] returns: no map keeps anything of what was run before.
    ///
    /// # Errors
    /// When there is a map of a kind that this does not know, or the kernel refuses a change.
    pub fn reset(&mut self) -> Result<()> {
        for (name, contents) in self.contents()? {
            contents.clear().with_context(|| format!("emptying {name}"))?;
        }
        self.begin()
    }

    /// Names of the maps in which anything is: an entry of a hash map or trie, a byte other than zero of an array.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn used_maps(&mut self) -> Result<Vec<String>> {
        let mut used = Vec::new();
        for (name, contents) in self.contents()? {
            if !contents.is_clear().with_context(|| format!("reading {name}"))? {
                used.push(name);
            }
        }
        used.sort();
        Ok(used)
    }

    /// Puts something into every map, what makes no sense to the program: only for a program that is [`Program::reset`] next.
    ///
    /// # Errors
    /// When a map refuses it.
    pub fn scribble(&mut self) -> Result<()> {
        for (name, contents) in self.contents()? {
            contents.scribble().with_context(|| format!("writing {name}"))?;
        }
        Ok(())
    }

    /// Bytes of kernel memory of all maps together, as the kernel accounts for it.
    ///
    /// # Errors
    /// When the kernel does not tell that of a map.
    pub fn map_bytes(&mut self) -> Result<u64> {
        let mut all = BTreeMap::new();
        for (name, contents) in self.contents()? {
            let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", contents.map.as_raw_fd()))?;
            let bytes = facts
                .lines()
                .find_map(|line| line.strip_prefix("memlock:"))
                .context("the kernel tells a map's memory")?;
            all.insert(name, bytes.trim().parse::<u64>()?);
        }
        println!("map memory: {all:?}");
        ensure!(all.len() >= names::MAPS.len(), "every map was looked at");
        Ok(all.values().sum())
    }

    /// The map of a name.
    pub(super) fn contents_of(&mut self, name: &str) -> Result<Contents> {
        let mut maps = self.loaded.ebpf().maps();
        let (_, map) = maps.find(|(other, _)| *other == name).with_context(|| format!("no map {name}"))?;
        Contents::of(map)
    }

    /// Every map but the sections of the object's own data, which the loader writes.
    fn contents(&mut self) -> Result<Vec<(String, Contents)>> {
        let maps = self.loaded.ebpf().maps().filter(|(name, _)| !name.starts_with('.'));
        maps.map(|(name, map)| Ok((name.to_owned(), Contents::of(map).with_context(|| name.to_owned())?)))
            .collect()
    }
}

impl Contents {
    fn of(map: &aya::maps::Map) -> Result<Self> {
        let data = descriptor(map).context("a map of a kind that sipguard does not have")?;
        let info = data.info()?;
        let kind = info.map_type()?;
        let (key_bytes, mut value_bytes) = (info.key_size() as usize, info.value_size() as usize);
        if kind == MapType::PerCpuArray {
            let processors =
                aya::util::nr_cpus().map_err(|(_, error)| error).context("counting processors")?;
            value_bytes = value_bytes.next_multiple_of(8) * processors;
        }
        let map = data.fd().as_fd().try_clone_to_owned()?;
        let is_mappable = info.map_flags() & BPF_F_MMAPABLE != 0;
        Ok(Self { map, kind, key_bytes, value_bytes, entries: info.max_entries(), is_mappable })
    }

    /// Whether every index has a value, which can be zero and can't be deleted.
    fn is_array(&self) -> bool {
        matches!(self.kind, MapType::Array | MapType::PerCpuArray)
    }

    fn clear(&self) -> Result<()> {
        match self.kind {
            MapType::Array | MapType::PerCpuArray => self.clear_array(),
            MapType::Hash | MapType::LruHash | MapType::LpmTrie => self
                .keys()?
                .into_iter()
                .try_for_each(|mut key| Ok(self.element(BPF_MAP_DELETE_ELEM, Some(&mut key), None)?)),
            kind => bail!("a map of the kind {kind:?}"),
        }
    }

    fn clear_array(&self) -> Result<()> {
        if self.is_mappable {
            return self.clear_mapped();
        }
        let most = u32::try_from((BATCH_BYTES / self.value_bytes).max(1))?.min(self.entries);
        let zeros = vec![0u8; most as usize * self.value_bytes];
        let mut first = 0;
        while first < self.entries {
            let keys: Vec<u32> = (first..self.entries.min(first + most)).collect();
            let mut attr = blank();
            attr.batch.keys = keys.as_ptr() as u64;
            attr.batch.values = zeros.as_ptr() as u64;
            attr.batch.count = keys.len() as u32;
            attr.batch.map_fd = self.map.as_raw_fd() as u32;
            bpf(BPF_MAP_UPDATE_BATCH, &mut attr)?;
            first += most;
        }
        Ok(())
    }

    /// Of the largest array, one of 65,536 buckets, the kernel copies each entry for itself; in memory it is one write.
    fn clear_mapped(&self) -> Result<()> {
        let bytes = self.value_bytes.next_multiple_of(8) * self.entries as usize;
        let len = NonZeroUsize::new(bytes).context("a map of nothing")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses where; nothing else is there.
        let first = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, self.map.as_fd(), 0) }?;
        // SAFETY: the mapping of above, of so many bytes, to which there is no reference; no program runs between two cases.
        unsafe { first.write_bytes(0, bytes) };
        // SAFETY: nothing refers to the mapping any more.
        Ok(unsafe { munmap(first, bytes) }?)
    }

    /// The first `count` values of an array, of a per-CPU one with those of all processors, read by one call.
    pub(super) fn first(&self, count: u32) -> Result<Vec<u8>> {
        let mut keys = vec![0u32; count as usize];
        let mut values = vec![0u8; count as usize * self.value_bytes];
        let mut last = 0u32;
        let mut attr = blank();
        attr.batch.out_batch = &raw mut last as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = count;
        attr.batch.map_fd = self.map.as_raw_fd() as u32;
        bpf(BPF_MAP_LOOKUP_BATCH, &mut attr)?;
        // SAFETY: the variant that the kernel filled in.
        let read = unsafe { attr.batch.count };
        ensure!(read == count, "{read} of {count} entries were read");
        Ok(values)
    }

    fn is_clear(&self) -> Result<bool> {
        if !self.is_array() {
            return Ok(self.keys()?.is_empty());
        }
        let mut value = vec![0u8; self.value_bytes];
        for index in 0..self.entries {
            self.element(BPF_MAP_LOOKUP_ELEM, Some(&mut index.to_ne_bytes()), Some(&mut value))?;
            if value.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The last entry of an array, the key of ones of another map: each of ones.
    fn scribble(&self) -> Result<()> {
        let mut key = vec![1; self.key_bytes];
        if self.is_array() {
            key = (self.entries - 1).to_ne_bytes().to_vec();
        } else if self.kind == MapType::LpmTrie {
            // The key begins with the length of the prefix in bits.
            key[..4].copy_from_slice(&8u32.to_ne_bytes());
        }
        Ok(self.element(BPF_MAP_UPDATE_ELEM, Some(&mut key), Some(&mut vec![1; self.value_bytes]))?)
    }

    fn keys(&self) -> Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let (mut last, mut next) = (keys.last().cloned(), vec![0; self.key_bytes]);
            match self.element(BPF_MAP_GET_NEXT_KEY, last.as_deref_mut(), Some(&mut next)) {
                Ok(()) => keys.push(next),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(keys),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One of the commands about one entry. `value` is the other key for [`BPF_MAP_GET_NEXT_KEY`].
    fn element(&self, command: bpf_cmd, key: Option<&mut [u8]>, value: Option<&mut [u8]>) -> io::Result<()> {
        let mut attr = blank();
        // SAFETY: every variant of the zeroed union is plain integers.
        let element = unsafe { &mut attr.__bindgen_anon_2 };
        element.map_fd = self.map.as_raw_fd() as u32;
        let address = |bytes: Option<&mut [u8]>| bytes.map_or(0, |bytes| bytes.as_mut_ptr() as u64);
        element.key = address(key);
        element.__bindgen_anon_1.value = address(value);
        bpf(command, &mut attr).map(drop)
    }
}
