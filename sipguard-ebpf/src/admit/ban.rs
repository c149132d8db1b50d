//! Offenders: a device that keeps sending malformed streams is banned for a time that doubles, and an address from which nothing
//! else comes. Only what the kernel's own connections brought counts: the sender of a datagram, or of a stray segment, may be forged. A ban
//! holds for TCP, for it is TCP that proved it: the phone that sends datagrams from the same port is another one.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{BAN_ENTRIES, BUDGET_TIME, Ban, Settings};

use super::{port, rate};
use crate::cpu::scratch::{self, Packet, Who};
use crate::cpu::{atomic, settings};
use crate::stream::socket::{self, Socket};

/// `DeviceKey` in words; port 0 is the address.
type Key = [u32; 5];

#[map]
static BANS: LruHashMap<Key, Ban> = LruHashMap::with_max_entries(BAN_ENTRIES, 0);

/// Stops what comes from who is banned. Looks only where somebody is whose budget has the same first place.
#[inline(always)]
pub fn check(packet: &Packet, who: &Who) -> Result<(), Reason> {
    let Some(home) = rate::home(who) else { return Ok(()) };
    // SAFETY: a live map value.
    let banned = unsafe { (*home).banned };
    if banned == 0 {
        return Ok(());
    }
    match stopped(packet, banned) {
        DEVICE => Err(Reason::BannedDevice),
        ADDRESS => Err(Reason::BannedAddress),
        _ => Ok(()),
    }
}

const NOBODY: u32 = 0;
const DEVICE: u32 = 1;
const ADDRESS: u32 = 2;

/// Who is banned of the device and its address. A function of its own for the stack's sake.
#[inline(never)]
fn stopped(packet: &Packet, banned: u32) -> u32 {
    let now_ns = settings::now_ns();
    if now_ns >> BUDGET_TIME > u64::from(banned) {
        return NOBODY;
    }
    if is_active(&device(packet), now_ns) {
        return DEVICE;
    }
    if is_active(&address(packet), now_ns) { ADDRESS } else { NOBODY }
}

/// Whether a ban is in force; counts what it stops.
#[inline(always)]
fn is_active(key: &Key, now_ns: u64) -> bool {
    let Some(ban) = BANS.get_ptr_mut(key) else { return false };
    // SAFETY: a live map value.
    unsafe {
        if !(*ban).is_active(now_ns) {
            return false;
        }
        atomic::add(&raw mut (*ban).packets, 1);
        atomic::add(&raw mut (*ban).bytes, scratch::frame_len());
    }
    true
}

/// Counts a stream that was malformed against its sender, when the kernel has the connection and nothing speaks for the sender: the
/// device, and its address where nothing well-formed came from for long.
#[inline(always)]
pub fn note(ctx: &XdpContext, settings: &Settings, reason: Reason) {
    let (Ok(packet), Ok(who)) = (scratch::packet(), scratch::who()) else { return };
    // SAFETY: two parts of this CPU's map value, which nothing changes once the verdict is spoken.
    let (packet, who) = unsafe { (&*packet, &*who) };
    if packet.strikes == 0 || settings.bans.after == 0 || packet.transport == scratch::UDP {
        return;
    }
    let Some(home) = rate::home(who) else { return };
    // Whom the PBX calls itself, it was told to call.
    if !port::is_guarded(u16::from_be((packet.key[8] >> 16) as u16)) {
        return;
    }
    let mut socket = Socket::NONE;
    socket::ask(ctx.ctx, packet, &mut socket);
    if !socket.connected || !socket.known {
        return;
    }
    let now_ns = settings::now_ns();
    let mut until_ns = strike(&device(packet), settings, settings.bans.after, reason, now_ns);
    let coarse_ns = rate::coarse_ns();
    // SAFETY: a live map value.
    let quiet_ns = coarse_ns.wrapping_sub(u64::from(unsafe { (*home).good }) << BUDGET_TIME);
    if coarse_ns >= settings.bans.addresses_from_ns && quiet_ns > settings.bans.quiet_ns {
        let address_after = settings.bans.address_after;
        let until = strike(&address(packet), settings, address_after, reason, now_ns);
        until_ns = if until > until_ns { until } else { until_ns };
    }
    let until = (until_ns >> BUDGET_TIME) as u32;
    // SAFETY: as above. Of two CPUs at once one may be lost, a ban that nobody looks for.
    unsafe {
        if until != 0 && (*home).banned <= until {
            (*home).banned = until + 1;
        }
    }
}

/// Takes a malformed stream into account. Gives the end of the ban that it made, or 0.
#[inline(never)]
fn strike(key: &Key, settings: &Settings, after: u32, reason: Reason, now_ns: u64) -> u64 {
    if BANS.get_ptr(key).is_none() {
        let Ok(scratch) = scratch::get() else { return 0 };
        // SAFETY: `new_ban` is never written, so it is all zeros: nothing known.
        let _full = unsafe { BANS.insert(key, &(*scratch).new_ban, 0) };
    }
    let Some(ban) = BANS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a live map value. Two CPUs that count at once may lose one of the two.
    unsafe {
        (*ban).reason = reason.number();
        if (*ban).strike(&settings.bans, after, now_ns) { (*ban).until_ns } else { 0 }
    }
}

#[inline(always)]
fn device(packet: &Packet) -> Key {
    let [r0, r1, r2, r3, ..] = packet.key;
    [r0, r1, r2, r3, packet.key[8] & 0xffff]
}

/// IPv6 sources are one by /64, as with budgets.
#[inline(always)]
fn address(packet: &Packet) -> Key {
    let [r0, r1, r2, r3, ..] = packet.key;
    if packet.v6 != 0 { [r0, r1, 0, 0, 0] } else { [r0, r1, r2, r3, 0] }
}
