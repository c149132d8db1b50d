//! Who is it: the rule of the host, then those of its prefixes, the longest first. A block stops every protocol of its source, so
//! this room comes before the ports.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie};
use sipguard_common::Reason;
use sipguard_common::abi::{
    CLASS_DEVICES, CLASS_TRUNKS, Denied, MODE_MONITOR, Outcome, PERMANENT, Rule, TCP, TLS, TRUNK_ENFORCES,
    TRUNK_ENTRIES, TRUNK_INHERITS, TRUNK_MONITORS, Trunk, UDP, is_transport, rule_flags, rules_in_use,
};

use sipguard_common::framer::Limits;

use super::{ban, open, rate};
use crate::cpu::ending::Ending;
use crate::cpu::scratch::{self, Packet, Who};
use crate::cpu::{atomic, settings};
use crate::message::{fragment, screen};
use crate::observe::{count, tap};
use crate::packet::ip::{Address, Ip};
use crate::packet::tcp::{ACK, SYN};
use crate::verdict;

#[map]
static HOSTS: HashMap<Address, Rule> = HashMap::with_max_entries(1 << 20, BPF_F_NO_PREALLOC);

#[map]
static PREFIXES: LpmTrie<Address, Rule> = LpmTrie::with_max_entries(1 << 18, 0);

/// `DeviceKey` in words: the address, then the port as it stands in the header and zero.
type Device = [u32; 5];

#[map]
static DEVICES: HashMap<Device, Rule> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

#[map]
static TRUNKS: Array<Trunk> = Array::with_max_entries(TRUNK_ENTRIES, 0);

/// Prefixes within each other that are looked at. Userspace sweeps out those that have ended with every change.
const NESTED: usize = 6;

/// Finds out who it is. The longest prefix that blocks or allows decides; the longest that is a trunk's peer says
/// whose.
#[inline(always)]
pub fn admit(ip: &Ip, who: &mut Who) -> Result<(), Reason> {
    let mut decided = match HOSTS.get_ptr_mut(&ip.remote) {
        Some(rule) => decides(rule, who, Reason::BlockedHost)?,
        None => false,
    };
    let mut key = Key::new(128, ip.remote);
    for _ in 0..NESTED {
        let Some(rule) = PREFIXES.get(&key) else { return Ok(()) };
        let rule = core::ptr::from_ref(rule).cast_mut();
        // SAFETY: a live map value.
        let (bits, trunk) = unsafe { ((*rule).bits, (*rule).trunk) };
        if bits < 96 && !ip.v6 {
            // An IPv6 prefix around the mapped addresses says nothing about IPv4.
            return Ok(());
        }
        if !decided {
            decided = decides(rule, who, Reason::BlockedPrefix)?;
        } else if who.trunk == 0 {
            who.trunk = u32::from(trunk);
        }
        if bits == 0 || decided && who.trunk != 0 {
            return Ok(());
        }
        key.prefix_len = u32::from(bits) - 1;
    }
    Ok(())
}

/// Index of the trunk whose peer an address is, or 0, as [`admit`] finds it.
#[inline(always)]
pub fn trunk_of(address: &Address, v6: bool) -> u32 {
    // SAFETY: a live map value; the index is one word.
    let of_host = unsafe { HOSTS.get(address) }.map_or(0, |rule| rule.trunk);
    if of_host != 0 {
        return u32::from(of_host);
    }
    let mut key = Key::new(128, *address);
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

/// Whether who it is may send this CPU's packet at all. For packets of a guarded port.
#[inline(always)]
pub fn permit() -> Result<(), Reason> {
    Ending::of(policy_permit()).go_on()
}

/// A global function: the verifier looks at it once, for any packet. Returns an [`Ending`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn policy_permit() -> u32 {
    let Ok(scratch) = scratch::get() else { return Ending::INTERNAL.scalar() };
    // SAFETY: this CPU's map value, of which these are two parts.
    let (packet, who) = unsafe { (&(*scratch).packet, &mut (*scratch).who) };
    Ending::from(permitted(packet, who)).scalar()
}

#[inline(always)]
fn permitted(packet: &Packet, who: &mut Who) -> Result<(), Reason> {
    who.taps = tap::asked();
    let settings = settings::get()?;
    if settings.rules & rules_in_use::DEVICES != 0 {
        let [r0, r1, r2, r3, ..] = packet.key;
        let device: Device = [r0, r1, r2, r3, packet.key[8] & 0xffff];
        if let Some(rule) = DEVICES.get_ptr_mut(&device) {
            decides(rule, who, Reason::BlockedDevice)?;
        }
    }
    let mut denied = by_transport(&settings.denied[CLASS_DEVICES], packet);
    if let Some(trunk) = trunk(who.trunk) {
        denied = by_transport(&settings.denied[CLASS_TRUNKS], packet) | by_transport(&trunk.denied, packet);
    }
    who.denied = denied;
    who.screens = screen::of(settings, who);
    if packet.fragment > fragment::FIRST {
        // Whose port it is for is not known, or not guarded; its first fragment was charged.
        (who.budget, who.home) = (rate::NONE, rate::NONE);
        return Ok(());
    }
    rate::find(packet, who, settings);
    if packet.transport != scratch::UDP {
        ban::check(packet, who)?;
    }
    if is_transport(denied) {
        return Err(Reason::TransportDenied);
    }
    if packet.transport == scratch::UDP {
        return rate::packet(who, settings);
    }
    // The answer to a connection that the PBX opens begins nothing.
    if packet.has(SYN) && !packet.has(ACK) {
        open::admit(packet, who, settings)?;
    }
    Ok(())
}

/// What becomes of a packet that is over a limit: `Err` when that is enforced, else it is counted and goes on.
#[inline(always)]
pub fn over(reason: Reason) -> Result<(), Reason> {
    if !is_monitored() {
        return Err(reason);
    }
    count::packet(scratch::get()?, reason, Outcome::WouldDrop);
    Ok(())
}

/// Whether the packet is only counted: by its trunk's mode, or else by the guard's.
#[inline(always)]
pub fn is_monitored() -> bool {
    let (Ok(index), Ok(settings)) = (scratch::trunk(), settings::get()) else { return true };
    match trunk(index).map_or(TRUNK_INHERITS, |trunk| trunk.mode) {
        TRUNK_ENFORCES => false,
        TRUNK_MONITORS => true,
        _ => settings.mode == MODE_MONITOR,
    }
}

/// The policy of a sender's trunk; `index` is 0 for who is none of any.
#[inline(always)]
pub fn trunk(index: u32) -> Option<&'static Trunk> {
    if index == 0 { None } else { TRUNKS.get(index) }
}

/// The limits that the packet's message is judged by.
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

/// Whether a rule decides; `Err` when it stops the packet.
#[inline(always)]
pub fn decides(rule: *mut Rule, who: &mut Who, reason: Reason) -> Result<bool, Reason> {
    // SAFETY: a live map value.
    let (flags, trunk, expires_ns) = unsafe { ((*rule).flags, (*rule).trunk, (*rule).expires_ns) };
    if who.trunk == 0 {
        who.trunk = u32::from(trunk);
    }
    if flags == 0 || expires_ns != PERMANENT && settings::now_ns() >= expires_ns {
        return Ok(false);
    }
    if flags & rule_flags::BLOCK == 0 {
        who.allowed = 1;
        return Ok(true);
    }
    // SAFETY: the pointer is a live map value. Two CPUs may count at once, hence the atomic additions.
    unsafe {
        atomic::add(&raw mut (*rule).packets, 1);
        atomic::add(&raw mut (*rule).bytes, scratch::frame_len());
    }
    if flags & rule_flags::MONITOR == 0 {
        return Err(reason);
    }
    let scratch = scratch::get()?;
    let resets = verdict::resets(scratch, settings::get()?, reason);
    count::packet(scratch, reason, Outcome::new(resets, true));
    Ok(true)
}
