//! Flows, the state of guarded TCP connections: the map, the lock of each flow, and updates.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use sipguard_common::Reason;
use sipguard_common::abi::{FLOW_ENDED, Flow, flow_flags};
use sipguard_common::framer::Stream;
use sipguard_common::wire::tcp::FIN;

use crate::admit::{checks, policy, unfinished};
use crate::cpu::scratch::{self, FlowWords, Packet};
use crate::cpu::{atomic, settings};

#[map]
static FLOWS: LruHashMap<FlowWords, Flow> = LruHashMap::with_max_entries(1 << 16, 0);

/// Attempts to lock a flow. The other CPU processes one segment, which takes some microseconds at most.
const ATTEMPTS: u32 = 1 << 14;

/// The flow of a key.
#[inline(always)]
pub fn lookup(key: &FlowWords) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(key)
}

/// The flow of the packet's connection; a new one if there is none.
#[inline(always)]
pub fn insert(packet: &Packet) -> Result<*mut Flow, Reason> {
    insert_key(&packet.key)
}

/// The flow of a key; a new one if there is none.
#[inline(always)]
pub fn insert_key(key: &FlowWords) -> Result<*mut Flow, Reason> {
    // SAFETY: `new_flow` is never written, so it is all zeros: a stream before its first byte.
    let _there = unsafe { FLOWS.insert(key, &(*scratch::get()?).new_flow, u64::from(BPF_NOEXIST)) };
    lookup(key).ok_or(Reason::Internal)
}

/// Removes the flow of a key.
#[inline(always)]
pub fn forget(key: &FlowWords) {
    if let Some(flow) = lookup(key) {
        unfinished::leave(flow);
    }
    let _absent = FLOWS.remove(key);
}

/// Marks the flow of a key as ended: the kernel reports that the connection is closed.
#[inline(always)]
pub fn ended(key: &FlowWords) {
    if let Some(flow) = lookup(key) {
        end(flow);
    }
}

/// Marks a flow as ended.
#[inline(always)]
pub fn end(flow: *mut Flow) {
    // SAFETY: a live map value; one word.
    unsafe { (*flow).ended = FLOW_ENDED };
    unfinished::leave(flow);
}

/// Locks a flow: two receive queues may deliver segments of one connection at the same time. `None` when another CPU holds it for too long.
#[inline(always)]
pub fn lock(flow: &mut Flow) -> Option<u64> {
    let token = scratch::token();
    if flow_lock(&raw mut flow.lock, token) == 0 { None } else { Some(token) }
}

/// Takes the lock. Returns 1 on success, else 0. Not inlined: there are several callers.
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

/// Unlocks a flow. If it was evicted meanwhile, the entry belongs to another flow with another token and stays locked.
#[inline(always)]
pub fn unlock(flow: &mut Flow, token: u64) {
    // SAFETY: a word of a live map value.
    unsafe { atomic::replace(&raw mut flow.lock, token, 0) };
}

/// Sets a flow to a sequence number; `known` when that is the first byte of the stream.
#[inline(always)]
pub fn start(flow: &mut Flow, next: u32, known: bool) {
    unfinished::leave(flow);
    flow.next = next;
    flow.first = next;
    flow.conflicts = 0;
    flow.message_segments = 0;
    for record in &mut flow.segments {
        record.len = 0;
    }
    flow.stream.begin();
    let tls = flow.flags & flow_flags::TLS != 0;
    if known && flow.flags & flow_flags::PROXY != 0 {
        flow.stream.begin_proxy(tls);
    } else if tls {
        flow.stream.begin_tls(known);
    }
}

/// Argument of the loop callback.
#[repr(C)]
struct Waiting {
    word: *mut u64,
    token: u64,
    got: u32,
}

/// Tries once more. Returns 0 to continue, 1 to stop the loop.
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

/// How many bytes of the segment are before the next byte of the flow.
#[inline(always)]
pub fn old_bytes(packet: &Packet, flow: &Flow) -> u32 {
    let distance = flow.next.wrapping_sub(packet.seq);
    if distance < packet.data_len { distance } else { packet.data_len }
}

/// Records the sender's FIN, when it follows the last validated byte.
#[inline(always)]
pub fn record_fin(packet: &Packet, flow: &mut Flow) {
    if packet.has(FIN) && packet.seq.wrapping_add(packet.data_len) == flow.next {
        flow.flags |= flow_flags::FIN_SEEN;
    }
}

/// Refuses a message that takes longer, or more segments, than the limits allow.
#[inline(always)]
pub fn check_pace(flow: &Flow) -> Result<(), Reason> {
    let limits = policy::limits()?;
    let late = limits.message_ms != 0
        && settings::now_ns().wrapping_sub(flow.message_ns) > u64::from(limits.message_ms) * 1_000_000;
    let many = limits.message_segments != 0 && flow.message_segments >= limits.message_segments;
    if late || many { checks::refuse(Reason::SlowMessage) } else { Ok(()) }
}

/// Records the time and segments of an incomplete message; `before` messages were complete before the segment.
#[inline(always)]
pub fn record_pace(flow: &mut Flow, before: u32) {
    if !flow.stream.is_within_message() {
        flow.message_segments = 0;
    } else if flow.message_segments == 0 || flow.stream.messages != before {
        flow.message_segments = 1;
        flow.message_ns = settings::now_ns();
    } else {
        flow.message_segments += 1;
    }
}

/// Copies the part of a framer's state that is in use, word by word: an assignment would go through the stack.
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
