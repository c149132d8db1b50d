//! Senders of malformed traffic, with a sample of its first bytes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{Offender, SAMPLE_BYTES};

use crate::cpu::{scratch, settings};
use crate::message::fragment;
use crate::packet::bytes;

/// [`sipguard_common::abi::OffenderKey`] as words in network order: remote address, then port, reason and zero.
type OffenderWords = [u32; 5];

#[map]
static OFFENDERS: LruHashMap<OffenderWords, Offender> = LruHashMap::with_max_entries(1 << 13, 0);

/// Counts a malformed packet, or one that is over a limit, and keeps a sample of the first one of its sender and reason. A limit is a
/// whole address's: then there is no port.
#[inline(always)]
pub fn record(ctx: &XdpContext, reason: Reason, limited: bool) {
    let Ok(scratch) = scratch::get() else { return };
    // SAFETY: this CPU's map value.
    let (packet, sender) = unsafe { (&(*scratch).packet, &(*scratch).sender) };
    if packet.fragment == fragment::REFUSED {
        return;
    }
    let [r0, r1, r2, r3, port] = sender.source;
    let port = if limited { 0 } else { port };
    let key: OffenderWords = [r0, r1, r2, r3, port | u32::from(reason.number()) << 16];
    let now_ns = settings::now_ns();
    if let Some(offender) = OFFENDERS.get_ptr_mut(&key) {
        // SAFETY: a live map value. A lost increment between two CPUs is accepted.
        unsafe {
            (*offender).packets += 1;
            (*offender).last_ns = now_ns;
        }
        return;
    }
    // SAFETY: this CPU's map value; the sample's size is bounded by its array.
    unsafe {
        let record = &raw mut (*scratch).offender;
        (*record).packets = 1;
        (*record).first_ns = now_ns;
        (*record).last_ns = now_ns;
        (*record).slot = settings::slot();
        (*record).sample_len = 0;
        let size = if packet.data_len < SAMPLE_BYTES as u32 { packet.data_len } else { SAMPLE_BYTES as u32 };
        let sample = (&raw mut (*record).sample).cast();
        if size > 0 && bytes::copy::<{ SAMPLE_BYTES as u32 - 1 }>(ctx, packet.data_at, size, sample) {
            (*record).sample_len = size;
        }
        let _ = OFFENDERS.insert(&key, &*record, 0);
    }
}
