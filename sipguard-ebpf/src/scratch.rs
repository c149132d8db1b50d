//! Work space of one CPU. What a packet is, once it is known, lives here and not on the stack: the global functions of
//! [`crate::flow`] and [`crate::sip`] are verified by themselves and share nothing else, and the stack has 512 bytes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sipguard_common::Reason;
use sipguard_common::abi::{Flow, Offender};
use sipguard_common::framer::{CHUNK, Cursor, WINDOW};

use crate::ip::Ip;
use crate::tcp::Segment;

/// `FlowKey` in words: remote address, local address, both ports as they stand in the header.
pub type Key = [u32; 9];

/// The TCP segment under judgement.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    pub key: Key,
    /// Offsets of the IP and the TCP header and of the payload.
    pub ip_at: u32,
    pub tcp_at: u32,
    pub data_at: u32,
    /// Length of the payload.
    pub data_len: u32,
    pub seq: u32,
    /// The sequence number that the kernel expects next, as far as it is known.
    pub expected: u32,
    /// TCP flags.
    pub flags: u32,
    /// 1 for IPv6.
    pub v6: u32,
    /// The part of the payload that is to be validated, found by [`crate::flow::track`].
    pub new_at: u32,
    pub new_len: u32,
}

impl Packet {
    /// Whether any of these TCP flags is set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & u32::from(flags) != 0
    }
}

/// What the loops over the payload keep from step to step.
#[repr(C)]
pub struct Walk {
    /// Offset in the frame and length of what is still to be looked at.
    pub at: u32,
    pub left: u32,
    /// Number of the reason plus one, or 0.
    pub verdict: u32,
    /// 1 once every byte was looked at.
    pub done: u32,
    pub hash: u64,
    /// Next byte to hash and end of the chunk.
    pub hash_at: u32,
    pub hash_end: u32,
    pub cursor: Cursor,
}

impl Walk {
    /// Starts over a payload.
    #[inline(always)]
    pub fn begin(&mut self, at: u32, len: u32, hash_key: u64) {
        self.at = at;
        self.left = len;
        self.verdict = 0;
        self.done = 0;
        self.hash = hash_key;
        self.cursor.pos = 0;
        self.cursor.end = 0;
    }

    /// Length of the next chunk.
    #[inline(always)]
    pub fn chunk(&self) -> u32 {
        if self.left < CHUNK { self.left } else { CHUNK }
    }

    /// Ends the loop.
    #[inline(always)]
    pub fn fail(&mut self, reason: Reason) -> i64 {
        self.verdict = u32::from(reason.number()) + 1;
        1
    }

    /// Number of the reason plus one, or 0 when all is well.
    #[inline(always)]
    pub fn outcome(&self) -> u32 {
        if self.verdict == 0 && self.done == 0 {
            u32::from(Reason::Internal.number()) + 1
        } else {
            self.verdict
        }
    }
}

#[repr(C)]
pub struct Scratch {
    /// The framer's window.
    pub window: [u8; WINDOW + 8],
    pub walk: Walk,
    pub packet: Packet,
    /// Where an offender's record is put together.
    pub offender: Offender,
    /// Always zero: what a new flow starts from.
    pub new_flow: Flow,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn get() -> Result<*mut Scratch, Reason> {
    SCRATCH.get_ptr_mut(0).ok_or(Reason::Internal)
}

/// This CPU's packet.
#[inline(always)]
pub fn packet() -> Result<&'static mut Packet, Reason> {
    // SAFETY: this CPU's map value; a program is not preempted by another packet's run on its CPU.
    get().map(|scratch| unsafe { &mut (*scratch).packet })
}

/// Writes down the packet once it is known to be a segment of a guarded port.
#[inline(always)]
pub fn note(ip: &Ip, segment: &Segment) -> Result<(), Reason> {
    let [r0, r1, r2, r3] = ip.remote;
    let [l0, l1, l2, l3] = ip.local;
    *packet()? = Packet {
        key: [r0, r1, r2, r3, l0, l1, l2, l3, segment.ports],
        ip_at: ip.at as u32,
        tcp_at: ip.l4_at as u32,
        data_at: segment.data_at,
        data_len: segment.data_len,
        seq: segment.seq,
        expected: segment.seq,
        flags: u32::from(segment.flags),
        v6: u32::from(ip.v6),
        new_at: 0,
        new_len: 0,
    };
    Ok(())
}
