//! Counters by interface and reason.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sipguard_common::Reason;
use sipguard_common::abi::{Counter, IFACE_SLOTS, REASON_SLOTS, counter_index};

use crate::settings;

#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(IFACE_SLOTS * REASON_SLOTS, 0);

#[inline(always)]
pub fn packet(reason: Reason, frame_bytes: u64) {
    let index = counter_index(settings::slot(), reason.number());
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a live map value that only this CPU writes.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += frame_bytes;
        }
    }
}
