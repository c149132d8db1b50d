//! Counters by interface and reason.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sipguard_common::Reason;
use sipguard_common::abi::{COUNTER_ENTRIES, Counter, counter_index};

use crate::{scratch, settings};

#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTER_ENTRIES, 0);

#[inline(always)]
pub fn packet(reason: Reason, let_pass: bool) {
    let index = counter_index(settings::slot(), let_pass, reason.number());
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a live map value that only this CPU writes.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += scratch::frame_len();
        }
    }
}
