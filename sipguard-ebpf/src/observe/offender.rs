//! Senders of malformed traffic, with a sample of its first bytes.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{NO_FAULT, Offender, SAMPLE_BEHIND, SAMPLE_BYTES, Tally};

use crate::cpu::scratch::{self, Scratch};
use crate::cpu::settings;
use crate::cpu::stage_result::StageResult;
use crate::message::fragment;
use crate::packet::bytes;

/// [`sipguard_common::abi::OffenderKey`] as words in network order: remote address, then port, reason and zero.
type OffenderWords = [u32; 5];

#[map]
static OFFENDERS: LruHashMap<OffenderWords, Offender> = LruHashMap::with_max_entries(1 << 13, 0);

/// Counts a malformed packet, or one that is over a limit, and keeps a sample of the first one of its sender and reason: of its port, and of its
/// address. A limit is a whole address's: then there is no port. `passes` says that monitor mode lets it pass.
#[inline(always)]
pub fn record(ctx: &XdpContext, reason: Reason, limited: bool, passes: bool) {
    let Ok(scratch) = scratch::get() else { return };
    // SAFETY: this CPU's map value.
    let (packet, sender) = unsafe { (&(*scratch).packet, &(*scratch).sender) };
    if packet.fragment == fragment::REFUSED {
        return;
    }
    let (port, word) = (sender.source[4], u32::from(reason.number()) << 16);
    locate(scratch, reason);
    if !limited && port != 0 {
        offender_entry(ctx.ctx, port | word, u64::from(passes));
    }
    offender_entry(ctx.ctx, word, u64::from(passes));
}

/// Finds the line at fault, where the framer stopped in this packet for this reason.
#[inline(always)]
fn locate(scratch: *mut Scratch, reason: Reason) {
    // SAFETY: this CPU's map value.
    let Scratch { packet, payload, offender, .. } = unsafe { &mut *scratch };
    (offender.fault_at, offender.sample_at) = (NO_FAULT, 0);
    if payload.fault == StageResult::stop(reason) {
        let at = payload.fault_at.wrapping_sub(packet.data_at);
        offender.fault_at = at;
        let before = SAMPLE_BYTES as u32 - SAMPLE_BEHIND;
        if at < packet.data_len && at > before {
            offender.sample_at = at - before;
        }
        // What is stopped next may be stopped without the framer.
        payload.fault = StageResult::CONTINUE;
    }
}

/// A global function: verified once, for either entry of a packet. `word` is the last one of the key: port and reason;
/// `passed` is how many packets pass, 0 or 1. Returns 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn offender_entry(ctx: *mut xdp_md, word: u32, passed: u64) -> u32 {
    let Ok(scratch) = scratch::get() else { return 0 };
    // SAFETY: this CPU's map value.
    let [r0, r1, r2, r3, _] = unsafe { (*scratch).sender.source };
    let key: OffenderWords = [r0, r1, r2, r3, word];
    let now_ns = settings::now_ns();
    let window = Tally::window(now_ns);
    if let Some(offender) = OFFENDERS.get_ptr_mut(&key) {
        // SAFETY: a live map value. A lost increment between two CPUs is accepted.
        unsafe {
            (*offender).packets += 1;
            (*offender).last_ns = now_ns;
            (*offender).tally = Tally((*offender).tally).more(window, 1).0;
            (*offender).passed += passed;
        }
        return 0;
    }
    // SAFETY: this CPU's map value; the sample's size is bounded by its array.
    unsafe {
        let packet = &(*scratch).packet;
        let record = &raw mut (*scratch).offender;
        (*record).packets = 1;
        (*record).first_ns = now_ns;
        (*record).last_ns = now_ns;
        (*record).tally = Tally(0).more(window, 1).0;
        (*record).passed = passed;
        (*record).slot = settings::slot();
        (*record).sample_len = 0;
        let (at, left) = (packet.data_at + (*record).sample_at, packet.data_len - (*record).sample_at);
        let size = if left < SAMPLE_BYTES as u32 { left } else { SAMPLE_BYTES as u32 };
        let sample = (&raw mut (*record).sample).cast();
        if size > 0 && bytes::copy::<{ SAMPLE_BYTES as u32 - 1 }>(&XdpContext::new(ctx), at, size, sample) {
            (*record).sample_len = size;
        }
        let _ = OFFENDERS.insert(&key, &*record, 0);
    }
    0
}
