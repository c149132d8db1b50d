//! Whether the last packets of each device are kept.

use anyhow::{Context, Result};
use aya::maps::Array;
use sipguard_common::abi::{ObserveSettings, names};
use sipguard_core::maps::{self, Plain};
use sipguard_core::pins::Pins;

/// Says whether the last packets of each device are kept, and gives whether that is another answer than before. The rest of the entry
/// is a capture's.
///
/// # Errors
/// When the guard is not attached, or its map can't be changed.
pub(crate) fn set_records(pins: &Pins, records: bool) -> Result<bool> {
    pins.attached_or_fail()?;
    let desired = u8::from(records);
    if taps(pins)?.1.records == desired {
        return Ok(false);
    }
    pins.check()?;
    let _edit = pins.edit()?;
    let (mut map, old) = taps(pins)?;
    map.set(0, Plain(ObserveSettings { records: desired, ..old }), 0).context("writing what is recorded")?;
    Ok(true)
}

/// Whether the last packets of each device are kept.
///
/// # Errors
/// When the map can't be read.
pub(crate) fn is_recording(pins: &Pins) -> Result<bool> {
    Ok(taps(pins)?.1.records != 0)
}

type Entry = Array<aya::maps::MapData, Plain<ObserveSettings>>;

fn taps(pins: &Pins) -> Result<(Entry, ObserveSettings)> {
    let map: Entry = maps::open(pins, names::TAPS)?;
    let taps = map.get(&0, 0).context("reading what is recorded")?.0;
    Ok((map, taps))
}
