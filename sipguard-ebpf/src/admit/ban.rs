//! Bans. A device that keeps sending malformed streams is banned for a time that doubles, and so is an address from which nothing else
//! comes. Only connections that the kernel has are counted: the sender of a datagram or of a stray segment may be forged. A ban applies to
//! TCP only, since only a TCP handshake proved the address; datagrams from the same port may come from another phone.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{BAN_ENTRIES, Ban, COARSE_SHIFT, Settings};

use super::{port, rate};
use crate::cpu::scratch::{self, DeviceWords, Sender};
use crate::cpu::{atomic, settings};
use crate::packet::ip;
use crate::stream::socket::{self, Socket};

/// Port 0 stands for the whole address.
#[map]
static BANS: LruHashMap<DeviceWords, Ban> = LruHashMap::with_max_entries(BAN_ENTRIES, 0);

/// Stops packets of banned senders. Only looked up where the primary bucket says that a sender of it is banned.
#[inline(always)]
pub fn check(sender: &Sender) -> Result<(), Reason> {
    let Some(primary_bucket) = rate::primary_bucket(sender) else { return Ok(()) };
    // SAFETY: a live map value.
    let banned = unsafe { (*primary_bucket).banned };
    if banned == 0 {
        return Ok(());
    }
    match stopped(sender, banned) {
        DEVICE => Err(Reason::BannedDevice),
        ADDRESS => Err(Reason::BannedAddress),
        _ => Ok(()),
    }
}

const NOBODY: u32 = 0;
const DEVICE: u32 = 1;
const ADDRESS: u32 = 2;

/// Which ban stops the packet: that of the device, of its address, or none.
// own frame: 40 bytes
#[inline(never)]
fn stopped(sender: &Sender, banned: u32) -> u32 {
    let now_ns = settings::now_ns();
    if now_ns >> COARSE_SHIFT > u64::from(banned) {
        return NOBODY;
    }
    if is_active(&sender.source, now_ns) {
        return DEVICE;
    }
    if is_active(&address(sender), now_ns) { ADDRESS } else { NOBODY }
}

/// Whether a ban is active; if so, counts the packet that it stops.
#[inline(always)]
fn is_active(key: &DeviceWords, now_ns: u64) -> bool {
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

/// Counts a malformed stream as a violation of its sender, if the kernel has the connection: of the device, and of its address if nothing
/// well-formed has come from that for a while.
#[inline(always)]
pub fn record(ctx: &XdpContext, settings: &Settings, reason: Reason) {
    let (Ok(packet), Ok(sender)) = (scratch::packet(), scratch::sender()) else { return };
    // SAFETY: two fields of this CPU's map value, which nothing changes once the verdict is decided.
    let (packet, sender) = unsafe { (&*packet, &*sender) };
    if packet.violations == 0 || settings.bans.after == 0 || packet.transport == scratch::UDP {
        return;
    }
    let Some(primary_bucket) = rate::primary_bucket(sender) else { return };
    // Peers of connections that the PBX opened itself are not banned: it was configured to use them.
    if !port::is_guarded(u16::from_be((packet.key[8] >> 16) as u16)) {
        return;
    }
    let mut socket = Socket::NONE;
    socket::lookup(ctx.ctx, packet, &mut socket);
    if !socket.connected || !socket.has_position {
        return;
    }
    let now_ns = settings::now_ns();
    let mut until_ns = count_violation(&sender.source, settings, settings.bans.after, reason, now_ns);
    let coarse_ns = rate::coarse_ns();
    // SAFETY: a live map value.
    let quiet_ns =
        coarse_ns.wrapping_sub(u64::from(unsafe { (*primary_bucket).last_well_formed }) << COARSE_SHIFT);
    if coarse_ns >= settings.bans.addresses_from_ns && quiet_ns > settings.bans.quiet_ns {
        let address_after = settings.bans.address_after;
        let until = count_violation(&address(sender), settings, address_after, reason, now_ns);
        until_ns = if until > until_ns { until } else { until_ns };
    }
    let until = (until_ns >> COARSE_SHIFT) as u32;
    // SAFETY: as above. If two CPUs write at once one ban may be lost.
    unsafe {
        if until != 0 && (*primary_bucket).banned <= until {
            (*primary_bucket).banned = until + 1;
        }
    }
}

/// Counts a violation. Returns the end of the ban that it caused (`CLOCK_BOOTTIME`, nanoseconds), or 0.
#[inline(never)]
fn count_violation(key: &DeviceWords, settings: &Settings, after: u32, reason: Reason, now_ns: u64) -> u64 {
    if BANS.get_ptr(key).is_none() {
        let Ok(scratch) = scratch::get() else { return 0 };
        // SAFETY: `new_ban` is never written, so it is all zeros.
        let _full = unsafe { BANS.insert(key, &(*scratch).new_ban, 0) };
    }
    let Some(ban) = BANS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a live map value. If two CPUs count at once, one violation may be lost.
    unsafe {
        (*ban).reason = reason.number();
        if (*ban).add_violation(&settings.bans, after, now_ns) { (*ban).until_ns } else { 0 }
    }
}

/// All addresses of an IPv6 /64 share one entry, as with rate buckets.
#[inline(always)]
fn address(sender: &Sender) -> DeviceWords {
    let [r0, r1, r2, r3, _] = sender.source;
    if ip::is_v6(&[r0, r1, r2, r3]) { [r0, r1, 0, 0, 0] } else { [r0, r1, r2, r3, 0] }
}
