//! UDP in IP fragments: a header section that continues behind the first fragment is validated across the later ones, in order.
//!
//! The rule: of a datagram whose headers do not end in its first fragment, every byte that reaches the kernel was validated at its position,
//! once. So its fragments must come in order; duplicates, overlaps and gaps are dropped. A fragment that came before the first one has
//! passed unvalidated, because most such fragments belong to other services. Then the first one is dropped, and the datagram never
//! completes. No sender can evict this state: [`DATAGRAMS`] evicts nothing, and [`EARLY`] can only report fragments that did not come, never
//! miss one that did.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, xdp_md};
use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{DATAGRAM_JUDGED, DATAGRAM_OPEN, DATAGRAM_REFUSED, Datagram, EARLY_SLOTS};
use sipguard_common::framer::is_keep_alive_len;
use sipguard_common::wire::{self, ipv4, ipv6};

use super::sip;
use crate::cpu::scratch::{self, FlowWords, Scratch};
use crate::cpu::stage_result::StageResult;
use crate::cpu::{atomic, settings};
use crate::packet::{bytes, udp};
use crate::stream::copy_framer;

/// [`scratch::Packet::fragment`]: no fragment.
pub const WHOLE: u32 = 0;
/// [`scratch::Packet::fragment`]: the first one of a datagram for a guarded port.
pub const FIRST: u32 = 1;
/// [`scratch::Packet::fragment`]: the first one of a datagram for another port.
pub const FOREIGN: u32 = 2;
/// [`scratch::Packet::fragment`]: a later one.
pub const LATER: u32 = 3;
/// [`scratch::Packet::fragment`]: a later one of a datagram that was refused and counted already.
pub const REFUSED: u32 = 4;

/// Datagrams whose headers did not end in their first fragment. When it is full of datagrams that the kernel may still hold, more are
/// refused; by then the kernel has run out of memory for fragments (`ipfrag_high_thresh`).
#[map(name = "FRAGMENTS")]
static DATAGRAMS: HashMap<FlowWords, Datagram> = HashMap::with_max_entries(1 << 14, BPF_F_NO_PREALLOC);

/// When later fragments of unknown datagrams came: a Bloom filter of times. A map that evicts could be made to forget.
#[map(name = "EARLY_FRAGMENTS")]
static EARLY: Array<[u32; EARLY_SLOTS]> = Array::with_max_entries(BLOCKS, 0);

const BLOCKS: u32 = 1 << 14;

/// How long the kernel keeps the fragments of an incomplete datagram, in units of 2^[`UNIT_SHIFT`] ns: a little more than 30 s and 60 s
/// (`ipfrag_time`, `ip6frag_time`).
const LIFE_V4: u32 = 32;
const LIFE_V6: u32 = 62;
/// A unit is 2^30 ns, 1.07 s.
const UNIT_SHIFT: u32 = 30;
/// Added to times in [`EARLY`], so that an empty slot never looks recent, not even right after boot.
const EPOCH: u32 = 2 * LIFE_V6;

/// Decides about the fragment in [`scratch::packet`].
#[inline(always)]
pub fn decide(ctx: &XdpContext) -> Result<Reason, Reason> {
    Ok(StageResult::from_scalar(fragment_decide(ctx.ctx)).final_reason())
}

/// A global function: verified once, for any packet. Returns a [`StageResult`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment_decide(ctx: *mut xdp_md) -> u32 {
    StageResult::from(fragment(&XdpContext::new(ctx))).scalar()
}

#[inline(always)]
fn fragment(ctx: &XdpContext) -> Result<Reason, Reason> {
    let pointer = scratch::get()?;
    // SAFETY: this CPU's map value. Functions that run the framer take the pointer, because the framer changes the value behind it.
    let scratch = unsafe { &mut *pointer };
    let ip = &scratch.ip;
    if ip.fragment_headers > 1 {
        // RFC 8200 section 4.1 allows one. The kernel would reassemble by the inner one as well.
        return Err(Reason::BadIpHeader);
    }
    let id = if ip.v6 {
        bytes::word(ctx, ip.fragment_at - (ipv6::EXTENSION_LEN - ipv6::FRAGMENT_ID))?
    } else {
        u32::from(bytes::half(ctx, ip.at + ipv4::ID)?)
    };
    for k in 0..4 {
        scratch.fragment_key[k] = ip.remote[k];
        scratch.fragment_key[4 + k] = ip.local[k];
    }
    scratch.fragment_key[8] = id;
    if scratch.packet.fragment == LATER { later(ctx, pointer) } else { first(ctx, pointer) }
}

/// The first fragment. While the kernel may hold another first fragment of the same datagram it takes no second one, so neither does the
/// guard: the rest would be validated behind one and read behind the other.
#[inline(always)]
fn first(ctx: &XdpContext, pointer: *mut Scratch) -> Result<Reason, Reason> {
    // SAFETY: as in `fragment`.
    let scratch = unsafe { &mut *pointer };
    if let Some(datagram) = lookup(&scratch.fragment_key) {
        if is_live(datagram, settings::now_ns()) {
            return Err(Reason::FragmentOrder);
        }
        let _ = DATAGRAMS.remove(&scratch.fragment_key);
    }
    let packet = &mut scratch.packet;
    if packet.fragment == FOREIGN {
        return Err(Reason::NotGuarded);
    }
    let length = u32::from(u16::from_be(bytes::half(ctx, packet.l4_at as usize + wire::udp::TOTAL_LEN)?));
    let beyond = length - udp::HEADER - packet.data_len;
    if beyond == 0 && is_keep_alive_len(packet.data_len) {
        return Ok(Reason::NatPing);
    }
    let left = sip::frame(ctx, pointer)? + beyond;
    let ended = scratch.stream.is_at_end() || beyond == 0;
    if !ended {
        remember(scratch, length)?;
    }
    sip::finished(left, ended)
}

/// Remembers a datagram whose headers continue in later fragments. `Err` refuses it.
// own frame: 16 bytes
#[inline(never)]
fn remember(scratch: &mut Scratch, length: u32) -> Result<(), Reason> {
    let ip = &scratch.ip;
    let header_at = (ip.l4_at - ip.fragment_at) as u32;
    let next = header_at + ip.l4_len;
    if !next.is_multiple_of(8) {
        // The kernel would cut off the rest.
        return Err(Reason::FragmentOrder);
    }
    let now_ns = settings::now_ns();
    let datagram = &mut scratch.datagram;
    copy_framer(&scratch.stream, &mut datagram.stream);
    datagram.until_ns = now_ns + life_ns(ip.v6);
    datagram.busy = 0;
    datagram.next = next;
    datagram.end = header_at + length;
    datagram.state = DATAGRAM_OPEN;
    datagram.reason = 0;
    datagram.ports = scratch.packet.key[8].to_ne_bytes();
    datagram.pad = 0;
    if insert(scratch).is_err() {
        sweep(scratch, now_ns);
        if insert(scratch).is_err() {
            return Err(Reason::FragmentOrder);
        }
    }
    // Write the datagram, then read `EARLY`. `came_early` writes `EARLY`, then reads the datagram. So of two CPUs at least one sees the other.
    fence(scratch);
    if !came_before(scratch, now_ns) {
        return Ok(());
    }
    let Some(datagram) = lookup(&scratch.fragment_key) else { return Ok(()) };
    // SAFETY: a live map value.
    unsafe {
        (*datagram).reason = u32::from(Reason::FragmentOrder.number());
        (*datagram).state = DATAGRAM_REFUSED;
    }
    Err(Reason::FragmentOrder)
}

#[inline(always)]
fn insert(scratch: &Scratch) -> Result<(), i32> {
    DATAGRAMS.insert(&scratch.fragment_key, &scratch.datagram, u64::from(BPF_NOEXIST))
}

/// A later fragment.
#[inline(always)]
fn later(ctx: &XdpContext, pointer: *mut Scratch) -> Result<Reason, Reason> {
    // SAFETY: as in `fragment`.
    let scratch = unsafe { &mut *pointer };
    let now_ns = settings::now_ns();
    let datagram = match lookup(&scratch.fragment_key) {
        Some(datagram) if is_live(datagram, now_ns) => datagram,
        _ => return Err(came_early(scratch, now_ns)),
    };
    // SAFETY: a live map value.
    let busy = unsafe { &raw mut (*datagram).busy };
    // SAFETY: a live map value.
    if unsafe { atomic::exchange(busy, 1) } != 0 {
        // Another CPU processes one of its fragments at the same time, so there is no order.
        return Err(Reason::FragmentOrder);
    }
    // SAFETY: a live map value, which the exchange above locked for this CPU.
    let judged = follow(ctx, pointer, unsafe { &mut *datagram }, now_ns);
    // SAFETY: as above.
    unsafe { atomic::exchange(busy, 0) };
    judged
}

#[inline(always)]
fn follow(
    ctx: &XdpContext,
    pointer: *mut Scratch,
    datagram: &mut Datagram,
    now_ns: u64,
) -> Result<Reason, Reason> {
    // SAFETY: as in `fragment`.
    let scratch = unsafe { &mut *pointer };
    let (packet, ip) = (&mut scratch.packet, &scratch.ip);
    packet.key[8] = u32::from_ne_bytes(datagram.ports);
    scratch.sender.source[4] = packet.key[8] & 0xffff;
    if datagram.state == DATAGRAM_REFUSED {
        packet.fragment = REFUSED;
        return Err(Reason::from_number(datagram.reason as u8).unwrap_or(Reason::Internal));
    }
    let open = datagram.state == DATAGRAM_OPEN;
    let at = u32::from(ip.fragment_offset) * 8;
    let behind = at + packet.data_len;
    let cut = packet.data_len == 0 || ip.more_fragments && !packet.data_len.is_multiple_of(8);
    if at < datagram.next || open && (at > datagram.next || at >= datagram.end) || cut {
        return Err(Reason::FragmentOrder);
    }
    let mut passed = Reason::Valid;
    if open {
        let result = if behind < datagram.end && !ip.more_fragments {
            // Shorter than its UDP header says.
            Err(Reason::BadUdpHeader)
        } else {
            continue_headers(ctx, pointer, datagram, at)
        };
        match result {
            Ok(reason) => passed = reason,
            Err(reason) => {
                datagram.reason = u32::from(reason.number());
                datagram.state = DATAGRAM_REFUSED;
                return Err(reason);
            }
        }
        datagram.next = behind;
    }
    datagram.until_ns = now_ns + life_ns(scratch.ip.v6);
    Ok(passed)
}

/// Runs the framer over a fragment at offset `at` of the datagram.
#[inline(always)]
fn continue_headers(
    ctx: &XdpContext,
    pointer: *mut Scratch,
    datagram: &mut Datagram,
    at: u32,
) -> Result<Reason, Reason> {
    // SAFETY: as in `fragment`.
    let scratch = unsafe { &mut *pointer };
    let packet = &mut scratch.packet;
    let until_end = datagram.end - at;
    let here = if packet.data_len < until_end { packet.data_len } else { until_end };
    let beyond = until_end - here;
    packet.new_at = packet.data_at;
    packet.new_len = here;
    copy_framer(&datagram.stream, &mut scratch.stream);
    sip::validate(ctx)?;
    let ended = scratch.stream.is_at_end() || beyond == 0;
    if ended {
        datagram.state = DATAGRAM_JUDGED;
    } else {
        copy_framer(&scratch.stream, &mut datagram.stream);
    }
    sip::finished(scratch.payload.left_behind() + beyond, ended)
}

/// A later fragment of an unknown datagram: one of another service, or one that came before its first fragment.
// own frame: 4 bytes
#[inline(never)]
fn came_early(scratch: &mut Scratch, now_ns: u64) -> Reason {
    if let Some([a, b]) = slots(scratch) {
        let now = time(now_ns);
        // SAFETY: two slots of a live map value. All CPUs write the current time.
        unsafe {
            a.write_volatile(now);
            b.write_volatile(now);
        }
    }
    fence(scratch);
    match lookup(&scratch.fragment_key) {
        Some(datagram) if is_live(datagram, now_ns) => Reason::FragmentOrder,
        _ => Reason::NotGuarded,
    }
}

/// Whether a later fragment of the datagram came before this first one; also true for another datagram in the same slots.
#[inline(always)]
fn came_before(scratch: &Scratch, now_ns: u64) -> bool {
    let Some([a, b]) = slots(scratch) else { return false };
    let (now, life) = (time(now_ns), if scratch.ip.v6 { LIFE_V6 } else { LIFE_V4 });
    // SAFETY: two slots of a live map value.
    unsafe { now.wrapping_sub(a.read_volatile()) <= life && now.wrapping_sub(b.read_volatile()) <= life }
}

/// The two slots of a datagram in [`EARLY`].
#[inline(always)]
fn slots(scratch: &Scratch) -> Option<[*mut u32; 2]> {
    let hash = hash(scratch);
    let block = EARLY.get_ptr_mut((hash >> 8) as u32 & (BLOCKS - 1))?.cast::<u32>();
    let first = hash as usize & (EARLY_SLOTS - 1);
    let second = (first + 1 + (hash as usize >> 4 & 7)) & (EARLY_SLOTS - 1);
    // SAFETY: both offsets lie within the value.
    Some(unsafe { [block.add(first), block.add(second)] })
}

/// A keyed hash of the datagram, so that no sender can choose the slots of another datagram.
// own frame: 4 bytes
#[inline(never)]
fn hash(scratch: &Scratch) -> u64 {
    let Ok(settings) = settings::get() else { return 0 };
    let keys = &settings.hash_keys;
    let mut hash = keys[0];
    for k in 0..9 {
        hash = (hash ^ u64::from(scratch.fragment_key[k])).wrapping_mul(keys[k & 7] | 1);
        hash ^= hash >> 32;
    }
    hash
}

/// Removes datagrams of which the kernel holds no fragment any more; at most once a second on each CPU.
#[inline(always)]
fn sweep(scratch: &mut Scratch, now_ns: u64) {
    if now_ns.wrapping_sub(scratch.swept_ns) < 1 << UNIT_SHIFT {
        return;
    }
    scratch.swept_ns = now_ns;
    let mut stale_ns = now_ns - (1 << UNIT_SHIFT);
    // SAFETY: the map is this program's, and the callback gets a pointer that lives as long as this call.
    unsafe {
        bpf_for_each_map_elem(
            (&raw const DATAGRAMS).cast_mut().cast(),
            remove_stale as *mut c_void,
            (&raw mut stale_ns).cast(),
            0,
        );
    }
}

/// Removes one entry if it is stale. Returns 0 to continue.
#[inline(never)]
extern "C" fn remove_stale(
    _: *mut c_void,
    key: *const FlowWords,
    datagram: *const Datagram,
    stale_ns: *const u64,
) -> i64 {
    // SAFETY: the pointers are those of `bpf_for_each_map_elem`.
    unsafe {
        if (*datagram).until_ns < *stale_ns {
            let _ = DATAGRAMS.remove(&*key);
        }
    }
    0
}

#[inline(always)]
fn lookup(key: &FlowWords) -> Option<*mut Datagram> {
    DATAGRAMS.get_ptr_mut(key)
}

#[inline(always)]
fn is_live(datagram: *const Datagram, now_ns: u64) -> bool {
    // SAFETY: a live map value.
    unsafe { now_ns < (*datagram).until_ns }
}

#[inline(always)]
fn life_ns(v6: bool) -> u64 {
    u64::from(if v6 { LIFE_V6 } else { LIFE_V4 }) << UNIT_SHIFT
}

#[inline(always)]
fn time(now_ns: u64) -> u32 {
    (now_ns >> UNIT_SHIFT) as u32 + EPOCH
}

/// A full memory barrier.
#[inline(always)]
fn fence(scratch: &mut Scratch) {
    // SAFETY: this CPU's map value.
    unsafe { atomic::exchange(&raw mut scratch.fence, 0) };
}
