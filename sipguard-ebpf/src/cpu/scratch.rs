//! Work space of one CPU. What a packet is, once it is known, lives here and not on the stack: the global functions of
//! [`crate::stream`] and [`crate::message::sip`] are verified by themselves and share nothing else, and the stack has 512 bytes.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sipguard_common::Reason;
use sipguard_common::abi::{Ban, Datagram, Flow, Offender};
use sipguard_common::framer::{CHUNK, Cursor, Limits, Stream, Stun, WINDOW};

use super::asm;
use super::ending::Ending;
use crate::admit::port::{L4, Transport};
use crate::message::screen::Screen;
use crate::packet::ip::Ip;

/// `FlowKey` in words: remote address, local address, both ports as they stand in the header.
pub type Key = [u32; 9];

/// The segment or datagram under judgement.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    pub key: Key,
    /// Offsets of the IP and the transport header and of the payload.
    pub ip_at: u32,
    pub l4_at: u32,
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
    /// One of the transports below.
    pub transport: u32,
    /// One of the constants of [`crate::message::fragment`].
    pub fragment: u32,
    /// The part of the payload that is to be validated.
    pub new_at: u32,
    pub new_len: u32,
    /// 1 when it made its stream malformed.
    pub strikes: u32,
    /// [`crate::admit::port::OWN`], [`crate::admit::port::PEER`] or [`crate::admit::port::NEITHER`].
    pub side: u32,
    /// What a TCP segment acknowledges.
    pub acknowledged: u32,
    /// Its sender's clock, where `timed` is 1 (RFC 7323).
    pub timestamp: u32,
    pub timed: u32,
}

pub const TCP: u32 = Transport::Tcp as u32;
pub const TLS: u32 = Transport::Tls as u32;
pub const UDP: u32 = Transport::Udp as u32;

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
    /// How it has ended, if it has before its end.
    pub ending: Ending,
    /// 1 once every byte was looked at.
    pub done: u32,
    pub cursor: Cursor,
    /// Where a walk over STUN is.
    pub stun: Stun,
    /// What a checksum has come to.
    pub sum: u32,
}

impl Walk {
    /// Starts over a payload.
    #[inline(always)]
    pub fn begin(&mut self, at: u32, len: u32) {
        self.at = at;
        self.left = len;
        self.ending = Ending::ON;
        self.done = 0;
        self.cursor.end = 0;
        self.cursor.hash = 0;
        self.cursor.hashed = 0;
        self.cursor.hash_next = 0;
        self.cursor.gap = 0;
        self.cursor.asks = 0;
    }

    /// Length of the next chunk.
    #[inline(always)]
    pub fn chunk(&self) -> u32 {
        if self.left < CHUNK { self.left } else { CHUNK }
    }

    /// How many bytes stand behind the point where the framer stopped looking.
    #[inline(always)]
    pub fn left_behind(&self) -> u32 {
        self.left + self.cursor.end - self.cursor.pos
    }

    /// Ends the loop.
    #[inline(always)]
    pub fn fail(&mut self, reason: Reason) -> i64 {
        self.ending = Ending::with(reason);
        1
    }

    /// How it has ended. What ran out of turns is not through, and is refused: nothing of ours failed, so it is too long for what it is.
    #[inline(always)]
    pub fn ending(&self, too_long: Reason) -> Ending {
        if self.ending == Ending::ON && self.done == 0 { Ending::with(too_long) } else { self.ending }
    }
}

/// Who sent the packet at hand.
#[repr(C)]
pub struct Who {
    /// Index of its trunk, or 0.
    pub trunk: u32,
    /// Methods that it may not send by this transport.
    pub denied: u32,
    /// Place of its budget plus one, or 0 for a sender without limits.
    pub budget: u32,
    /// Which of its budgets: [`sipguard_common::abi::UNVERIFIED`] or [`sipguard_common::abi::VERIFIED`].
    pub class: u32,
    /// 1 when it is allowed by a rule.
    pub allowed: u32,
    /// The first place of its budget plus one, whoever has it; 0 for a sender that is never banned.
    pub home: u32,
    /// Which lines of its requests rules are looked up for.
    pub screens: u32,
    /// Once its packet is known, with its port: [`crate::observe::tap::asked`]. Before, 0.
    pub taps: u32,
}

#[repr(C)]
pub struct Scratch {
    /// The framer's window.
    pub window: [u8; WINDOW + 8],
    pub walk: Walk,
    /// State of the framer while it works: a flow's, or a datagram's own.
    pub stream: Stream,
    pub packet: Packet,
    pub ip: Ip,
    pub who: Who,
    /// What the framer judges by: the limits of whoever sent the packet, and the methods that it may not send.
    pub limits: Limits,
    /// Where keys of identities and user agents are made.
    pub screen: Screen,
    /// Length of the frame as it came.
    pub frame_len: u64,
    /// A header that lies beyond the linear part of the frame.
    pub header: [u64; 8],
    /// Where an offender's record is put together.
    pub offender: Offender,
    /// Always zero: what a new flow starts from.
    pub new_flow: Flow,
    /// Always zero: what is known of a new offender.
    pub new_ban: Ban,
    /// `FragmentKey` in words, and where the record of a datagram in fragments is put together.
    pub fragment_key: Key,
    /// What a replay is told of the packet: [`sipguard_common::abi::Told`].
    pub told: u32,
    pub datagram: Datagram,
    /// When stale ones were looked for last (`CLOCK_BOOTTIME`, nanoseconds).
    pub swept_ns: u64,
    /// In a replay, the time of the packet.
    pub now_ns: u64,
    /// Exchanged for the order of memory that it gives.
    pub fence: u64,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn get() -> Result<*mut Scratch, Reason> {
    match SCRATCH.get_ptr_mut(0) {
        Some(scratch) => Ok(scratch),
        None => Err(Reason::Internal),
    }
}

/// This CPU's packet. A program is not preempted by another packet's run on its CPU; whoever makes a reference of the pointer says that nobody
/// else has one meanwhile.
#[inline(always)]
pub fn packet() -> Result<*mut Packet, Reason> {
    // SAFETY: a place in this CPU's map value; nothing is read.
    get().map(|scratch| unsafe { &raw mut (*scratch).packet })
}

/// Transport of this CPU's packet: [`TCP`], [`TLS`] or [`UDP`].
#[inline(always)]
pub fn transport() -> Result<u32, Reason> {
    // SAFETY: this CPU's map value; one word.
    get().map(|scratch| unsafe { (*scratch).packet.transport })
}

/// What no other CPU has at the moment: its number and one.
#[inline(always)]
pub fn token() -> u64 {
    // SAFETY: a helper without arguments.
    1 + u64::from(unsafe { bpf_get_smp_processor_id() })
}

/// Who sent this CPU's packet, as [`packet`].
#[inline(always)]
pub fn who() -> Result<*mut Who, Reason> {
    // SAFETY: as in `packet`.
    get().map(|scratch| unsafe { &raw mut (*scratch).who })
}

/// Index of the trunk of whoever sent this CPU's packet, or 0.
#[inline(always)]
pub fn trunk() -> Result<u32, Reason> {
    // SAFETY: this CPU's map value; one word.
    get().map(|scratch| unsafe { (*scratch).who.trunk })
}

/// Writes down the findings of the IP header, and reads them again: the verifier, which knows nothing of what stands in a map,
/// thus follows the many ways through the header to this point and no farther.
#[inline(always)]
pub fn note_ip(scratch: *mut Scratch, ip: Ip) -> &'static Ip {
    // SAFETY: this CPU's map value.
    unsafe {
        (*scratch).ip = ip;
        asm::forget_memory();
        &(*scratch).ip
    }
}

/// A word that was written before: read from the map, of which the verifier knows nothing, see [`note_ip`].
#[inline(always)]
pub fn again(word: &u32) -> u32 {
    asm::forget_memory();
    *word
}

/// Length of the frame as it came, in bytes.
#[inline(always)]
pub fn frame_len() -> u64 {
    // SAFETY: this CPU's map value.
    get().map_or(0, |scratch| unsafe { (*scratch).frame_len })
}

/// See [`crate::cpu::settings::now_ns`].
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: this CPU's map value.
    get().map_or(0, |scratch| unsafe { (*scratch).now_ns })
}

/// What was judged, above XDP's action. Only in a replay.
#[inline(always)]
pub fn told() -> u32 {
    // SAFETY: this CPU's map value.
    get().map_or(0, |scratch| unsafe { (*scratch).told })
}

/// A new packet, of which nothing is known but its length.
#[inline(always)]
pub fn begin(frame_len: u64) -> Result<*mut Scratch, Reason> {
    let scratch = get()?;
    // SAFETY: this CPU's map value.
    unsafe {
        (*scratch).frame_len = frame_len;
        (*scratch).who.trunk = 0;
        (*scratch).who.allowed = 0;
        (*scratch).who.taps = 0;
    }
    Ok(scratch)
}

/// See [`frame_len`].
#[inline(always)]
pub fn set_frame_len(len: u64) -> Result<(), Reason> {
    // SAFETY: this CPU's map value.
    get().map(|scratch| unsafe { (*scratch).frame_len = len })
}

/// Writes down the packet once it is known to be one for a guarded port.
#[inline(always)]
pub fn note(scratch: *mut Scratch, ip: &Ip, l4: &L4) {
    let [r0, r1, r2, r3] = ip.remote;
    let [l0, l1, l2, l3] = ip.local;
    // SAFETY: this CPU's map value, of which `ip` is another part.
    let packet = unsafe { &mut (*scratch).packet };
    *packet = Packet {
        key: [r0, r1, r2, r3, l0, l1, l2, l3, l4.ports],
        ip_at: ip.at as u32,
        l4_at: ip.l4_at as u32,
        data_at: l4.data_at,
        data_len: l4.data_len,
        seq: l4.seq,
        expected: l4.seq,
        flags: u32::from(l4.flags),
        v6: u32::from(ip.v6),
        transport: l4.transport as u32,
        fragment: l4.fragment,
        new_at: l4.data_at,
        new_len: l4.data_len,
        strikes: 0,
        side: l4.side,
        acknowledged: l4.acknowledged,
        timestamp: 0,
        timed: 0,
    };
}
