//! Per-CPU memory. The parsed packet is stored here and not on the stack, for two reasons: the global functions of [`crate::stream`] and
//! [`crate::message::sip`] are verified separately and can share only map values, and the stack has 512 bytes.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sipguard_common::Reason;
use sipguard_common::abi::{Ban, CheckSwitches, Datagram, Flow, Offender, SegmentRecord};
use sipguard_common::framer::{CHUNK, Cursor, Limits, Stream, Stun, WINDOW};

use super::asm;
use super::stage_result::StageResult;
use crate::admit::port::{L4, Transport};
use crate::message::match_headers::MatchKeyBuffer;
use crate::packet::ip::Ip;

/// [`sipguard_common::abi::FlowKey`] as words in network order: remote address, local address, remote and local port.
pub type FlowWords = [u32; 9];

/// [`sipguard_common::abi::DeviceKey`] as words in network order: the address, then the port and zero.
pub type DeviceWords = [u32; 5];

/// The segment or datagram that is processed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    pub key: FlowWords,
    /// Offsets in the frame of the IP and the transport header and of the payload.
    pub ip_at: u32,
    pub l4_at: u32,
    pub data_at: u32,
    /// Length of the payload.
    pub data_len: u32,
    /// Sequence number of a TCP segment.
    pub seq: u32,
    /// The sequence number that the receiver expects next, as far as it is known.
    pub expected: u32,
    /// TCP flags.
    pub flags: u32,
    /// 1 for IPv6.
    pub v6: u32,
    /// One of the transports below.
    pub transport: u32,
    /// One of the constants of [`crate::message::fragment`].
    pub fragment: u32,
    /// Offset in the frame and length of the part of the payload that is to be validated.
    pub new_at: u32,
    pub new_len: u32,
    /// How many of the first bytes of the payload are old and may come again.
    pub same: u32,
    /// 1 when this packet is to be counted as a violation of its sender.
    pub violations: u32,
    /// [`crate::admit::port::OWN`], [`crate::admit::port::PEER`] or [`crate::admit::port::NEITHER`].
    pub side: u32,
    /// Acknowledgement number of a TCP segment.
    pub acknowledged: u32,
    /// The sender's timestamp (RFC 7323), where `timed` is 1.
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

/// State of the loops over the payload.
#[repr(C)]
pub struct PayloadCursor {
    /// Offset in the frame and length of the part that is not loaded yet.
    pub at: u32,
    pub left: u32,
    /// The reason, if the loop has stopped early.
    pub result: StageResult,
    /// 1 once every byte was processed.
    pub done: u32,
    pub cursor: Cursor,
    /// Position in the attributes of a STUN message.
    pub stun: Stun,
    /// Checksum so far.
    pub sum: u32,
    /// What the framer last stopped for, until it is taken for the packet's offender. Other loops leave it.
    pub fault: StageResult,
    /// Offset in the frame of the line at which it stopped.
    pub fault_at: u32,
}

impl PayloadCursor {
    /// Starts at the beginning of a payload.
    #[inline(always)]
    pub fn begin(&mut self, at: u32, len: u32) {
        self.at = at;
        self.left = len;
        self.result = StageResult::CONTINUE;
        self.done = 0;
        self.cursor.end = 0;
        self.cursor.hash = 0;
        self.cursor.hashed = 0;
        self.cursor.hash_next = 0;
        self.cursor.gap = 0;
        self.cursor.match_due = 0;
    }

    /// Length of the next chunk.
    #[inline(always)]
    pub fn chunk(&self) -> u32 {
        if self.left < CHUNK { self.left } else { CHUNK }
    }

    /// How many bytes are behind the point where the framer stopped.
    #[inline(always)]
    pub fn left_behind(&self) -> u32 {
        self.left + self.cursor.end - self.cursor.pos
    }

    /// Stops the loop with a reason; returns what the callback of `bpf_loop` returns.
    #[inline(always)]
    pub fn fail(&mut self, reason: Reason) -> i64 {
        self.result = StageResult::stop(reason);
        1
    }

    /// The same where the framer stops at a line.
    #[inline(always)]
    pub fn fail_at_line(&mut self, reason: Reason) -> i64 {
        self.fault = StageResult::stop(reason);
        self.fault_at = self.at.wrapping_sub(self.cursor.end).wrapping_add(self.cursor.line);
        self.fail(reason)
    }

    /// The result of the loop. A loop that ran out of iterations is an error of the payload, `too_long`, and not an internal one.
    #[inline(always)]
    pub fn result(&self, too_long: Reason) -> StageResult {
        if self.result == StageResult::CONTINUE && self.done == 0 {
            StageResult::stop(too_long)
        } else {
            self.result
        }
    }
}

/// The sender of the packet.
#[repr(C)]
pub struct Sender {
    /// Index of its trunk, or 0.
    pub trunk: u32,
    /// Methods that it may not send over this transport.
    pub denied: u32,
    /// Index of its rate bucket plus one, or 0 for a sender without limits.
    pub bucket: u32,
    /// Which of its buckets: [`sipguard_common::abi::UNVERIFIED`] or [`sipguard_common::abi::VERIFIED`].
    pub class: u32,
    /// 1 when it is allowed by a rule.
    pub allowed: u32,
    /// Index of its primary bucket plus one, whether or not another sender occupies it; 0 for a sender that is never banned.
    pub primary_bucket: u32,
    /// Header lines of its requests that are matched against rules.
    pub matched_headers: u32,
    /// [`crate::observe::points::requested`] once the packet is parsed up to its ports, else 0.
    pub observe: u32,
    /// Its address and port, where `observe` is not 0.
    pub source: DeviceWords,
    /// 0 when it sent the packet itself, else [`CLIENT`] with [`DEVICE`] and [`CUT`].
    pub client: u32,
    /// Which checks are not enforced on it. What is monitored and noted is off for the rest of the packet.
    pub checks: CheckSwitches,
    /// Number of the reason that was noted: what the packet would be stopped for if its check were not monitored; 0 for none.
    pub noted: u32,
    /// Packets that were counted for rules of header lines that only count.
    pub counted: u32,
    /// How many of them were counted before the framer began once more.
    pub counted_before: u32,
}

/// Bit of [`Sender::client`]: it sent the packet by a balancer.
pub const CLIENT: u32 = 1;
/// Bit of [`Sender::client`]: whatever the reason for this packet is, it ends the connection. The balancer's others go on.
pub const CUT: u32 = 2;
/// Bit of [`Sender::client`]: it is of no trunk. It has rules, bans and limits of its own, and mode, counters and checks of the balancer's trunk,
/// which [`Sender::trunk`] is.
pub const DEVICE: u32 = 4;

/// Per-CPU memory: the only value of `SCRATCH`.
#[repr(C)]
pub struct Scratch {
    /// The framer's window.
    pub window: [u8; WINDOW + 8],
    pub payload: PayloadCursor,
    /// State of the framer while it runs: a copy of the flow's, or a datagram's.
    pub stream: Stream,
    pub packet: Packet,
    pub ip: Ip,
    pub sender: Sender,
    /// The limits that apply to the sender, with the methods that it may not send, and without the checks that are off.
    pub limits: Limits,
    /// State of the framer before the packet, for when it begins once more.
    pub before: Stream,
    /// Buffer for the keys of identities and user agents.
    pub match_key: MatchKeyBuffer,
    /// Length of the received frame in bytes.
    pub frame_len: u64,
    /// A header that lies behind the linear part of the frame.
    pub header: [u64; 8],
    /// Buffer for the record of an offender.
    pub offender: Offender,
    /// Always zero: the initial value of a flow.
    pub new_flow: Flow,
    /// Always zero: the initial value of a ban.
    pub new_ban: Ban,
    /// The record that the bytes of a copy differ from.
    pub record: SegmentRecord,
    /// [`sipguard_common::abi::FragmentKey`] as words in network order.
    pub fragment_key: FlowWords,
    /// The [`sipguard_common::abi::ReplayVerdict`] of the packet. Only in a replay.
    pub reported: u32,
    /// Buffer for the record of a fragmented datagram.
    pub datagram: Datagram,
    /// When stale datagrams were last removed (`CLOCK_BOOTTIME`, nanoseconds).
    pub swept_ns: u64,
    /// In a replay, the time of the packet in nanoseconds.
    pub now_ns: u64,
    /// Target of an atomic exchange that serves as a memory barrier.
    pub fence: u64,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's memory.
#[inline(always)]
pub fn get() -> Result<*mut Scratch, Reason> {
    match SCRATCH.get_ptr_mut(0) {
        Some(scratch) => Ok(scratch),
        None => Err(Reason::Internal),
    }
}

/// This CPU's packet. A run of the program is not interrupted by another run on the same CPU. Whoever makes a reference of the pointer
/// guarantees that there is no other one.
#[inline(always)]
pub fn packet() -> Result<*mut Packet, Reason> {
    // SAFETY: the address of a field of this CPU's map value; nothing is read.
    get().map(|scratch| unsafe { &raw mut (*scratch).packet })
}

/// Transport of this CPU's packet: [`TCP`], [`TLS`] or [`UDP`].
#[inline(always)]
pub fn transport() -> Result<u32, Reason> {
    // SAFETY: this CPU's map value; one word.
    get().map(|scratch| unsafe { (*scratch).packet.transport })
}

/// A lock token that no other CPU uses: the CPU's number plus one.
#[inline(always)]
pub fn token() -> u64 {
    // SAFETY: a helper without arguments.
    1 + u64::from(unsafe { bpf_get_smp_processor_id() })
}

/// The sender of this CPU's packet; see [`packet`].
#[inline(always)]
pub fn sender() -> Result<*mut Sender, Reason> {
    // SAFETY: as in `packet`.
    get().map(|scratch| unsafe { &raw mut (*scratch).sender })
}

/// Index of the trunk of the sender of this CPU's packet, or 0.
#[inline(always)]
pub fn trunk() -> Result<u32, Reason> {
    // SAFETY: this CPU's map value; one word.
    get().map(|scratch| unsafe { (*scratch).sender.trunk })
}

/// Stores the parsed IP header and reads it back. The verifier tracks nothing about map values, so the many paths through the header
/// end here for it instead of multiplying with all that follows.
#[inline(always)]
pub fn record_ip(scratch: *mut Scratch, ip: Ip) -> &'static Ip {
    // SAFETY: this CPU's map value.
    unsafe {
        (*scratch).ip = ip;
        asm::compiler_barrier();
        &(*scratch).ip
    }
}

/// Reads a word back from the map, so that the verifier forgets what it knew about it; see [`record_ip`].
#[inline(always)]
pub fn reload(word: &u32) -> u32 {
    asm::compiler_barrier();
    *word
}

/// Length of the received frame in bytes.
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

/// The verdict in the bits above the XDP action. Only in a replay.
#[inline(always)]
pub fn reported() -> u32 {
    // SAFETY: this CPU's map value.
    get().map_or(0, |scratch| unsafe { (*scratch).reported })
}

/// Starts a new packet; only the length of its frame is known.
#[inline(always)]
pub fn begin(frame_len: u64) -> Result<*mut Scratch, Reason> {
    let scratch = get()?;
    // SAFETY: this CPU's map value.
    unsafe {
        (*scratch).frame_len = frame_len;
        (*scratch).sender.trunk = 0;
        (*scratch).sender.allowed = 0;
        (*scratch).sender.observe = 0;
        (*scratch).sender.client = 0;
        (*scratch).sender.noted = 0;
        (*scratch).sender.counted = 0;
        (*scratch).sender.counted_before = 0;
    }
    Ok(scratch)
}

/// See [`frame_len`].
#[inline(always)]
pub fn set_frame_len(len: u64) -> Result<(), Reason> {
    // SAFETY: this CPU's map value.
    get().map(|scratch| unsafe { (*scratch).frame_len = len })
}

/// Stores the packet once it is known to be for a guarded port.
#[inline(always)]
pub fn record_packet(scratch: *mut Scratch, ip: &Ip, l4: &L4) {
    let [r0, r1, r2, r3] = ip.remote;
    let [l0, l1, l2, l3] = ip.local;
    // SAFETY: this CPU's map value; `ip` is another field of it.
    let Scratch { packet, payload, .. } = unsafe { &mut *scratch };
    // What the framer stopped for in another packet.
    payload.fault = StageResult::CONTINUE;
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
        same: 0,
        violations: 0,
        side: l4.side,
        acknowledged: l4.acknowledged,
        timestamp: 0,
        timed: 0,
    };
}
