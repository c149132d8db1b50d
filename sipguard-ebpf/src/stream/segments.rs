//! Records of the segments that passed, which copies of them are compared with: the last ones in their flow, and those that left it before the
//! receiver had acknowledged them in a map that all flows share.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use sipguard_common::abi::{FLOW_SEGMENTS, Flow, SegmentRecord, SpilledRecord};

use super::payload::Hash;
use crate::cpu::asm;
use crate::cpu::scratch::Packet;

/// [`sipguard_common::abi::SpillKey`] as words: the flow's key in network order, and the first sequence number.
type SpillWords = [u32; 10];

#[map]
static SPILLED: LruHashMap<SpillWords, SpilledRecord> = LruHashMap::with_max_entries(1 << 13, 0);

#[inline(always)]
fn key(packet: &Packet, seq: u32) -> SpillWords {
    let [a, b, c, d, e, f, g, h, ports] = packet.key;
    [a, b, c, d, e, f, g, h, ports, seq]
}

/// Records validated bytes, of which `before` is the framer's place before them.
#[inline(always)]
pub fn advance(packet: &Packet, flow: &mut Flow, hash: Hash, before: u32) {
    let len = packet.new_len;
    if hash.bytes == 0 && extends_body(flow, len) {
        flow.next = flow.next.wrapping_add(len);
        flow.conflicts = 0;
        return;
    }
    make_room(packet, flow);
    let at = next_place(flow);
    if at >= FLOW_SEGMENTS {
        return;
    }
    flow.segments[at] = SegmentRecord {
        seq: flow.next,
        len: packet.new_len as u16,
        hashed: hash.bytes as u16,
        before,
        behind: flow.stream.place(),
        hash: hash.hash,
    };
    flow.segment_at = flow.segment_at.wrapping_add(1);
    flow.next = flow.next.wrapping_add(packet.new_len);
    flow.conflicts = 0;
}

/// Index in `segments` of the next record, bounded so that every verifier sees it.
#[inline(always)]
fn next_place(flow: &Flow) -> usize {
    asm::mask::<{ FLOW_SEGMENTS as u32 - 1 }>(usize::from(flow.segment_at))
}

/// Adds bytes of a body to the newest record, if that has nothing else. Nobody looks at them, so they need no record of each segment.
// own frame: 8 bytes
#[inline(never)]
fn extends_body(flow: &mut Flow, len: u32) -> bool {
    let behind = flow.stream.place();
    let next = flow.next;
    let newest = asm::mask::<{ FLOW_SEGMENTS as u32 - 1 }>(usize::from(flow.segment_at.wrapping_sub(1)));
    let Some(newest) = flow.segments.get_mut(newest) else { return false };
    let sum = u32::from(newest.len) + len;
    let fits = newest.len != 0 && newest.hashed == 0 && sum <= u32::from(u16::MAX);
    if !fits || newest.seq.wrapping_add(u32::from(newest.len)) != next {
        return false;
    }
    newest.len = sum as u16;
    newest.behind = behind;
    true
}

/// Keeps the oldest record of a flow if the receiver has not acknowledged its segment.
// own frame: 8 bytes
#[inline(never)]
fn make_room(packet: &Packet, flow: &Flow) {
    let Some(oldest) = flow.segments.get(next_place(flow)) else { return };
    let end = oldest.seq.wrapping_add(u32::from(oldest.len));
    if oldest.len != 0 && flow.egress_known != 0 && end.wrapping_sub(flow.acked).cast_signed() > 0 {
        spill(packet, flow, oldest);
    }
}

/// Keeps a record that leaves the flow. A full map evicts the oldest.
// own frame: 88 bytes
#[inline(never)]
fn spill(packet: &Packet, flow: &Flow, record: &SegmentRecord) {
    let spilled = SpilledRecord { record: *record, first_ns: flow.first_ns, first: flow.first, pad: 0 };
    let _evicted = SPILLED.insert(&key(packet, record.seq), &spilled, 0);
}

/// Replaces the record of a segment.
#[inline(always)]
pub fn renew(packet: &Packet, flow: &mut Flow, record: &SegmentRecord) {
    for old in &mut flow.segments {
        if old.seq == record.seq && old.len == record.len {
            old.hash = record.hash;
            old.hashed = record.hashed;
            return;
        }
    }
    spill(packet, flow, record);
}

/// The record of a segment that starts at `seq` and is no longer than `most`, or of a body that has the byte at `seq`.
#[inline(always)]
pub fn record_at(packet: &Packet, flow: &Flow, seq: u32, most: u32) -> Option<SegmentRecord> {
    let fits = |record: &SegmentRecord| {
        let len = u32::from(record.len);
        let whole = record.seq == seq && len <= most;
        len != 0 && (whole || record.hashed == 0 && seq.wrapping_sub(record.seq) < len)
    };
    if let Some(record) = flow.segments.iter().copied().find(fits) {
        return Some(record);
    }
    // SAFETY: a live map value, which is never changed in place.
    let spilled = unsafe { SPILLED.get(&key(packet, seq)) }?;
    let is_of_flow = spilled.first_ns == flow.first_ns && spilled.first == flow.first;
    (is_of_flow && fits(&spilled.record)).then_some(spilled.record)
}
