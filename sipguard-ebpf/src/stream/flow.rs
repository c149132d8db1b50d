//! The guarded TCP connections: their map, whose turn it is, and what is noted of each.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use sipguard_common::Reason;
use sipguard_common::abi::{FLOW_ENDED, FLOW_SEGMENTS, Flow, Segment as Record, flow_flags};
use sipguard_common::framer::Stream;

use crate::admit::policy;
use crate::cpu::scratch::{self, Key, Packet};
use crate::cpu::{atomic, settings};
use crate::packet::tcp::FIN;

#[map]
static FLOWS: LruHashMap<Key, Flow> = LruHashMap::with_max_entries(1 << 16, 0);

/// Attempts to lock a flow. The other CPU is at work on one segment, some microseconds at the most.
const ATTEMPTS: u32 = 1 << 14;

/// The flow of a key.
#[inline(always)]
pub fn lookup(key: &Key) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(key)
}

/// A flow of the packet's connection, of which nothing is known, or the one that there is.
#[inline(always)]
pub fn insert(packet: &Packet) -> Result<*mut Flow, Reason> {
    insert_key(&packet.key)
}

/// As [`insert`].
#[inline(always)]
pub fn insert_key(key: &Key) -> Result<*mut Flow, Reason> {
    // SAFETY: `new_flow` is never written, so it is all zeros: a stream before its first byte.
    let _there = unsafe { FLOWS.insert(key, &(*scratch::get()?).new_flow, u64::from(BPF_NOEXIST)) };
    lookup(key).ok_or(Reason::Internal)
}

/// There is no such connection any more.
#[inline(always)]
pub fn forget(key: &Key) {
    let _absent = FLOWS.remove(key);
}

/// The connection of a key has ended, by the word of the kernel that had it.
#[inline(always)]
pub fn ended(key: &Key) {
    if let Some(flow) = lookup(key) {
        // SAFETY: a live map value; one word.
        unsafe { (*flow).ended = FLOW_ENDED };
    }
}

/// Locks a flow: two receive queues may bring segments of one connection at the same moment. `None` when another CPU has it for
/// too long.
#[inline(always)]
pub fn lock(flow: &mut Flow) -> Option<u64> {
    let token = scratch::token();
    if flow_lock(&raw mut flow.lock, token) == 0 { None } else { Some(token) }
}

/// Takes the lock. A function of its own, for it is called from several places. 1 when it has it, else 0.
#[inline(never)]
fn flow_lock(word: *mut u64, token: u64) -> u32 {
    // SAFETY: a word of a live map value.
    if unsafe { atomic::replace(word, 0, token) } {
        return 1;
    }
    let mut waiting = Waiting { word, token, got: 0 };
    // SAFETY: the callback gets a pointer that lives as long as this call.
    unsafe { bpf_loop(ATTEMPTS, attempt as *mut c_void, (&raw mut waiting).cast(), 0) };
    waiting.got
}

/// Unlocks a flow. One that was evicted meanwhile is another's, and has another token.
#[inline(always)]
pub fn unlock(flow: &mut Flow, token: u64) {
    // SAFETY: a word of a live map value.
    unsafe { atomic::replace(&raw mut flow.lock, token, 0) };
}

/// Sets a flow to a place in the sequence; `known` when it is the beginning of the stream.
#[inline(always)]
pub fn start(flow: &mut Flow, next: u32, known: bool) {
    flow.next = next;
    flow.first = next;
    flow.conflicts = 0;
    flow.message_segments = 0;
    for record in &mut flow.segments {
        record.len = 0;
    }
    flow.stream.begin();
    if flow.flags & flow_flags::TLS != 0 {
        flow.stream.begin_tls(known);
    }
}

/// What waits for a lock.
#[repr(C)]
struct Waiting {
    word: *mut u64,
    token: u64,
    got: u32,
}

/// Tries once more. 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn attempt(_: u32, waiting: *mut Waiting) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; the word is of a live map value.
    let waiting = unsafe { &mut *waiting };
    // SAFETY: as above.
    if unsafe { atomic::replace(waiting.word, 0, waiting.token) } {
        waiting.got = 1;
    }
    i64::from(waiting.got)
}

/// How many bytes of the segment lie before the next one of the flow.
#[inline(always)]
pub fn old_bytes(packet: &Packet, flow: &Flow) -> u32 {
    let distance = flow.next.wrapping_sub(packet.seq);
    if distance < packet.data_len { distance } else { packet.data_len }
}

/// Takes validated bytes into account, of which the hash stands for the first `hashed`.
#[inline(always)]
pub fn advance(packet: &Packet, flow: &mut Flow, hashed: u32) {
    let hash = match scratch::get() {
        // SAFETY: this CPU's map value.
        Ok(scratch) => unsafe { (*scratch).walk.cursor.hash },
        Err(_) => 0,
    };
    let record = Record { seq: flow.next, len: packet.new_len as u16, hashed: hashed as u16, hash };
    flow.segments[usize::from(flow.segment_at) % FLOW_SEGMENTS] = record;
    flow.segment_at = flow.segment_at.wrapping_add(1);
    flow.next = flow.next.wrapping_add(packet.new_len);
    flow.conflicts = 0;
}

/// Takes note of the sender's FIN, when it stands behind the last byte.
#[inline(always)]
pub fn note_fin(packet: &Packet, flow: &mut Flow) {
    if packet.has(FIN) && packet.seq.wrapping_add(packet.data_len) == flow.next {
        flow.flags |= flow_flags::FINISHED;
    }
}

/// A message that goes on for longer, or in more segments, than the limits allow.
#[inline(always)]
pub fn check_pace(flow: &Flow) -> Result<(), Reason> {
    let limits = policy::limits()?;
    let late = limits.message_ms != 0
        && settings::now_ns().wrapping_sub(flow.message_ns) > u64::from(limits.message_ms) * 1_000_000;
    let many = limits.message_segments != 0 && flow.message_segments >= limits.message_segments;
    if late || many { Err(Reason::SlowMessage) } else { Ok(()) }
}

/// Takes note of a message that is not complete yet; `before` messages were when the segment came.
#[inline(always)]
pub fn note_pace(flow: &mut Flow, before: u32) {
    if !flow.stream.is_within_message() {
        flow.message_segments = 0;
    } else if flow.message_segments == 0 || flow.stream.messages != before {
        flow.message_segments = 1;
        flow.message_ns = settings::now_ns();
    } else {
        flow.message_segments += 1;
    }
}

/// Copies what counts of a framer's state, word by word: an assignment would go over the stack.
#[inline(always)]
pub fn copy(from: &Stream, to: &mut Stream) {
    let words = from.words();
    let (from, to) = (core::ptr::from_ref(from).cast::<u64>(), core::ptr::from_mut(to).cast::<u64>());
    // SAFETY: both are streams, whose words these are.
    let word = |k: usize| unsafe { to.add(k).write_volatile(from.add(k).read()) };
    (0..Stream::FEWEST_WORDS).for_each(word);
    if words > Stream::FEWEST_WORDS {
        (Stream::FEWEST_WORDS..Stream::WORDS).for_each(word);
    }
}
