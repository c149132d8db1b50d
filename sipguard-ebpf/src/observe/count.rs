//! Counters by interface, trunk, outcome and reason.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sipguard_common::Reason;
use sipguard_common::abi::{
    COUNTER_ENTRIES, Counter, Outcome, ReplayVerdict, TRUNK_COUNTER_ENTRIES, counter_index,
    trunk_counter_index,
};

use crate::cpu::scratch::Scratch;
use crate::cpu::settings;

#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTER_ENTRIES, 0);

#[map]
static TRUNK_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(TRUNK_COUNTER_ENTRIES, 0);

/// Counts the packet for its interface and its trunk.
#[inline(always)]
pub fn packet(scratch: *mut Scratch, reason: Reason, outcome: Outcome) {
    // SAFETY: this CPU's map value.
    let (trunk, bytes) = unsafe { ((*scratch).sender.trunk, (*scratch).frame_len) };
    if settings::is_replay() {
        // SAFETY: as above.
        unsafe { (*scratch).reported = ReplayVerdict::new(reason.number(), trunk, outcome).0 };
    }
    add(COUNTERS.get_ptr_mut(counter_index(settings::slot(), outcome, reason.number())), bytes);
    if trunk != 0 {
        add(TRUNK_COUNTERS.get_ptr_mut(trunk_counter_index(trunk, outcome, reason.number())), bytes);
    }
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, bytes: u64) {
    if let Some(counter) = counter {
        // SAFETY: a live map value that only this CPU writes.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}
