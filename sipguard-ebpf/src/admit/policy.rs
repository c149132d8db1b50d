//! Rules about senders: the rule of the host, then those of its prefixes, the longest first. A block stops every protocol of its source,
//! so this stage comes before the ports.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key as PrefixKey;
use aya_ebpf::maps::{Array, HashMap, LpmTrie};
use sipguard_common::Reason;
use sipguard_common::abi::{
    CLASS_DEVICES, CLASS_TRUNKS, DEVICE_ENTRIES, Denied, HOST_ENTRIES, MODE_MONITOR, Outcome, PERMANENT,
    PREFIX_ENTRIES, Rule, TCP, TLS, TRUNK_ENFORCES, TRUNK_ENTRIES, TRUNK_INHERITS, TRUNK_MONITORS, Trunk,
    UDP, is_transport, rule_flags, rules_in_use,
};

use sipguard_common::framer::Limits;
use sipguard_common::wire::tcp::{ACK, SYN};

use super::{ban, connections, rate, unfinished};
use crate::cpu::scratch::{self, CLIENT, DEVICE, DeviceWords, Packet, Sender};
use crate::cpu::stage_result::StageResult;
use crate::cpu::{asm, atomic, settings};
use crate::message::{fragment, match_headers};
use crate::observe::{count, points};
use crate::packet::ip::{self, Address, Ip};
use crate::verdict;

#[map]
static HOSTS: HashMap<Address, Rule> = HashMap::with_max_entries(HOST_ENTRIES, BPF_F_NO_PREALLOC);

#[map]
static PREFIXES: LpmTrie<Address, Rule> = LpmTrie::with_max_entries(PREFIX_ENTRIES, 0);

#[map]
static DEVICES: HashMap<DeviceWords, Rule> = HashMap::with_max_entries(DEVICE_ENTRIES, BPF_F_NO_PREALLOC);

#[map]
static TRUNKS: Array<Trunk> = Array::with_max_entries(TRUNK_ENTRIES, 0);

/// Nested prefixes that are looked up. Userspace removes expired ones with every change.
const NESTED: u32 = 6;

/// Applies the rules of the source address. The longest prefix that blocks or allows decides; the longest one that belongs to a trunk
/// names the trunk.
#[inline(always)]
pub fn admit(ip: &Ip, sender: &mut Sender) -> Result<(), Reason> {
    admit_address(&ip.remote, ip.v6, sender)
}

#[inline(always)]
fn admit_address(address: &Address, v6: bool, sender: &mut Sender) -> Result<(), Reason> {
    let mut decided = match HOSTS.get_ptr_mut(address) {
        Some(rule) => decides(rule, sender, Reason::BlockedHost)?,
        None => false,
    };
    let mut key = PrefixKey::new(128, *address);
    for _ in 0..asm::rolled::<NESTED>() {
        let Some(rule) = PREFIXES.get(&key) else { return Ok(()) };
        let rule = core::ptr::from_ref(rule).cast_mut();
        // SAFETY: a live map value.
        let (bits, trunk) = unsafe { ((*rule).bits, (*rule).trunk) };
        if bits < 96 && !v6 {
            // An IPv6 prefix that contains the IPv4-mapped range does not apply to IPv4.
            return Ok(());
        }
        if !decided {
            decided = decides(rule, sender, Reason::BlockedPrefix)?;
        } else if sender.trunk == 0 {
            sender.trunk = u32::from(trunk);
        }
        if bits == 0 || decided && sender.trunk != 0 {
            return Ok(());
        }
        key.prefix_len = u32::from(bits) - 1;
    }
    Ok(())
}

/// Index of the trunk that an address belongs to, or 0; the same as [`admit`] finds.
#[inline(always)]
pub fn trunk_of(address: &Address, v6: bool) -> u32 {
    // SAFETY: a live map value; the index is one word.
    let of_host = unsafe { HOSTS.get(address) }.map_or(0, |rule| rule.trunk);
    if of_host != 0 {
        return u32::from(of_host);
    }
    let mut key = PrefixKey::new(128, *address);
    for _ in 0..NESTED {
        let Some(rule) = PREFIXES.get(&key) else { return 0 };
        if rule.bits < 96 && !v6 {
            return 0;
        }
        if rule.trunk != 0 || rule.bits == 0 {
            return u32::from(rule.trunk);
        }
        key.prefix_len = u32::from(rule.bits) - 1;
    }
    0
}

/// Applies the rules about the sender that need the ports. For packets of a guarded port.
#[inline(always)]
pub fn permit() -> Result<(), Reason> {
    StageResult::from_scalar(policy_permit(ITSELF)).proceed()
}

/// Argument of [`policy_permit`]: the sender is the one in the headers.
const ITSELF: u32 = 0;
/// Argument of [`policy_permit`]: the sender is set.
const NAMED: u32 = 1;

/// A global function: verified once, for any packet. Returns a [`StageResult`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn policy_permit(source: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::INTERNAL.scalar() };
    // SAFETY: two fields of this CPU's map value.
    let (packet, sender) = unsafe { (&(*scratch).packet, &mut (*scratch).sender) };
    if source == ITSELF {
        let [r0, r1, r2, r3, ..] = packet.key;
        sender.source = [r0, r1, r2, r3, packet.key[8] & 0xffff];
    }
    StageResult::from(permitted(packet, sender)).scalar()
}

#[inline(always)]
fn permitted(packet: &Packet, sender: &mut Sender) -> Result<(), Reason> {
    sender.observe = points::requested();
    let settings = settings::get()?;
    if settings.rules & rules_in_use::DEVICES != 0
        && let Some(rule) = DEVICES.get_ptr_mut(&sender.source)
    {
        decides(rule, sender, Reason::BlockedDevice)?;
    }
    let mut denied = by_transport(&settings.denied[CLASS_DEVICES], packet);
    sender.checks = settings.checks;
    if let Some(trunk) = trunk(sender.trunk) {
        if trunk.proxy_protocol == 0 {
            denied = by_transport(&settings.denied[CLASS_TRUNKS], packet);
        }
        denied |= by_transport(&trunk.denied, packet);
        sender.checks = trunk.checks;
    }
    sender.denied = denied;
    sender.matched_headers = match_headers::of(settings, sender);
    if packet.fragment > fragment::FIRST {
        // Its port is not known, or not guarded. The first fragment was counted against the limits.
        (sender.bucket, sender.primary_bucket) = (rate::NONE, rate::NONE);
        return Ok(());
    }
    rate::find(packet, sender, settings);
    if packet.transport != scratch::UDP {
        ban::check(sender)?;
    }
    if is_transport(denied) {
        return Err(Reason::TransportDenied);
    }
    if packet.transport == scratch::UDP {
        return rate::packet(sender, settings);
    }
    // A SYN-ACK answers the PBX: it opens no connection to it.
    if packet.has(SYN) && !packet.has(ACK) {
        connections::admit(packet, sender, settings)?;
        unfinished::admit(sender, settings)?;
    }
    Ok(())
}

/// Makes a client behind a balancer the sender, and applies the rules about it: [`admit`], then [`permit`].
#[inline(always)]
pub fn permit_client(client: &Address, port: u32) -> Result<(), Reason> {
    let sender = scratch::sender()?;
    // SAFETY: this CPU's map value.
    unsafe {
        let [c0, c1, c2, c3] = *client;
        (*sender).source = [c0, c1, c2, c3, port];
    }
    StageResult::from_scalar(policy_client()).proceed()?;
    StageResult::from_scalar(policy_permit(NAMED)).proceed()
}

/// A global function like [`policy_permit`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn policy_client() -> u32 {
    let Ok(sender) = scratch::sender() else { return StageResult::INTERNAL.scalar() };
    // SAFETY: this CPU's map value.
    let sender = unsafe { &mut *sender };
    let [c0, c1, c2, c3, _] = sender.source;
    let address = [c0, c1, c2, c3];
    let balancers = sender.trunk;
    (sender.trunk, sender.allowed) = (0, 0);
    let admitted = admit_address(&address, ip::is_v6(&address), sender);
    sender.client = CLIENT;
    if sender.trunk == 0 {
        sender.trunk = balancers;
        sender.client = CLIENT | DEVICE;
    }
    StageResult::from(admitted).scalar()
}

/// Handles a packet that is over a limit: `Err` when the limit is enforced, else the packet is counted and continues. Not inlined: there are
/// several callers, and few packets are.
#[inline(never)]
pub fn over(reason: Reason) -> Result<(), Reason> {
    if !is_monitored() && !only_counts(reason) {
        return Err(reason);
    }
    would_stop(reason);
    Ok(())
}

/// Whether the limit with this reason only counts: as it is set for whose limits apply to the sender, the trunk or its source.
#[inline(always)]
fn only_counts(reason: Reason) -> bool {
    let (Ok(sender), Ok(settings)) = (scratch::sender(), settings::get()) else { return true };
    // SAFETY: this CPU's map value, which nothing changes once the packet is permitted.
    let index = rate::limited_trunk(unsafe { &*sender });
    let monitored = trunk(index).map_or(settings.monitored_limits, |trunk| trunk.monitored_limits);
    monitored & reason.limit_bit() != 0
}

/// Whether monitor mode applies: the mode of the sender's trunk, or else the guard's. Not inlined: only what is stopped asks, in many places.
// own frame: 0 bytes
#[inline(never)]
pub fn is_monitored() -> bool {
    let (Ok(index), Ok(settings)) = (scratch::trunk(), settings::get()) else { return true };
    match trunk(index).map_or(TRUNK_INHERITS, |trunk| trunk.mode) {
        TRUNK_ENFORCES => false,
        TRUNK_MONITORS => true,
        _ => settings.mode == MODE_MONITOR,
    }
}

/// The policy of a trunk; `None` for index 0, which stands for no trunk.
#[inline(always)]
pub fn trunk(index: u32) -> Option<&'static Trunk> {
    if index == 0 { None } else { TRUNKS.get(index) }
}

/// The limits that apply to the packet's message.
#[inline(always)]
pub fn limits() -> Result<&'static Limits, Reason> {
    match trunk(scratch::trunk()?) {
        Some(trunk) if trunk.own_limits != 0 => Ok(&trunk.limits),
        _ => Ok(&settings::get()?.limits),
    }
}

#[inline(always)]
fn by_transport(denied: &Denied, packet: &Packet) -> u32 {
    match packet.transport {
        scratch::TLS => denied[TLS],
        scratch::UDP => denied[UDP],
        _ => denied[TCP],
    }
}

/// Applies a rule. `Ok` is whether the rule decides about the packet; `Err` stops it.
#[inline(always)]
pub fn decides(rule: *mut Rule, sender: &mut Sender, reason: Reason) -> Result<bool, Reason> {
    // SAFETY: a live map value.
    let (flags, trunk, expires_ns) = unsafe { ((*rule).flags, (*rule).trunk, (*rule).expires_ns) };
    if sender.trunk == 0 {
        sender.trunk = u32::from(trunk);
    }
    if flags == 0 || expires_ns != PERMANENT && settings::now_ns() >= expires_ns {
        return Ok(false);
    }
    if flags & rule_flags::BLOCK == 0 {
        sender.allowed = 1;
        return Ok(true);
    }
    if stops(rule, sender, flags, reason) { Err(reason) } else { Ok(true) }
}

/// Counts a packet for the rule that blocks it, but for one that was counted before the framer began once more. Whether the rule stops it, and
/// does not only count. Not inlined: it is rare, and has several callers.
// own frame: 0 bytes
#[inline(never)]
fn stops(rule: *mut Rule, sender: &mut Sender, flags: u16, reason: Reason) -> bool {
    let only_counts = flags & rule_flags::MONITOR != 0;
    if only_counts {
        if sender.counted_before != 0 {
            sender.counted_before -= 1;
            return false;
        }
        sender.counted += 1;
    }
    // SAFETY: a live map value. Other CPUs count too, hence the atomic additions.
    unsafe {
        atomic::add(&raw mut (*rule).packets, 1);
        atomic::add(&raw mut (*rule).bytes, scratch::frame_len());
    }
    if only_counts {
        count_let_pass(reason);
    }
    !only_counts
}

/// Counts a packet that would be stopped. Not inlined: it is rare, and has several callers.
// own frame: 0 bytes
#[inline(never)]
fn would_stop(reason: Reason) {
    count_let_pass(reason);
}

#[inline(always)]
fn count_let_pass(reason: Reason) {
    if let (Ok(scratch), Ok(settings)) = (scratch::get(), settings::get()) {
        count::packet(scratch, reason, Outcome::new(verdict::resets(scratch, settings, reason), true));
    }
}
