//! The last packets of each device.

use anyhow::Result;
use sipguard_common::abi::{PacketRecord, RECORDED_ENTRIES, names};
use sipguard_core::maps::MapDir;
use sipguard_core::memory::Memory;

/// The last packets of each device that passed, the oldest first; a few devices that share a place have fewer each. Empty unless
/// `ObserveSettings::records` is set.
///
/// # Errors
/// When the map is not there, or can't be mapped.
pub fn recorded(dir: &dyn MapDir) -> Result<Vec<PacketRecord>> {
    let memory: Memory<PacketRecord> = Memory::of(dir, names::RECORDED, RECORDED_ENTRIES)?;
    let mut records: Vec<PacketRecord> =
        (0..RECORDED_ENTRIES).filter_map(|index| memory.record(index)).collect();
    records.sort_by_key(|record| record.time_ns);
    Ok(records)
}
