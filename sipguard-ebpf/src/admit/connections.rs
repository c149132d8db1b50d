//! Limits of open TCP connections of a source or a trunk. Packets cannot tell how many are open, since FIN and RST can be forged. So
//! programs on the kernel's tracepoint of socket states count.
//!
//! The same programs mark the flow of a connection of this host as ended.
//!
//! A connection is counted when its handshake is complete, and remembered by its socket. One that was not counted, because it is older than
//! the guard or the map was full, is not subtracted either.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::BtfTracePointContext;
use sipguard_common::Reason;
use sipguard_common::abi::{ConnectionOwner, CountedConnection, OPEN_ENTRIES, Settings, rules_in_use};

use super::{policy, port};
use crate::cpu::asm::{field, half_field, long_field};
use crate::cpu::scratch::{FlowWords, Packet, Sender};
use crate::cpu::{atomic, settings};
use crate::packet::ip;
use crate::stream;
use crate::stream::egress;
use crate::stream::socket::{CLOSE, ESTABLISHED, SYN_RECV};

/// Byte offsets in the running kernel's structs, as in [`crate::stream::socket`]. The programs are not loaded if one of them is unknown.
#[unsafe(no_mangle)]
static SOCK_FAMILY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_NET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_V6_DADDR: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_V6_RCV_SADDR: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static INET_SPORT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NET_COOKIE: Global<u32> = Global::new(0);
/// Cookie of the network namespace of the interface, or 0 where it is unknown. Connections in other namespaces are not counted.
#[unsafe(no_mangle)]
static NETNS: Global<u64> = Global::new(0);

#[map]
static OPEN: Array<u64> = Array::with_max_entries(OPEN_ENTRIES, 0);

#[map]
static SOCKETS: HashMap<u64, CountedConnection> = HashMap::with_max_entries(1 << 17, BPF_F_NO_PREALLOC);

/// Attempts to change a word that other CPUs change too.
const ATTEMPTS: usize = 8;

/// Refuses the first segment of a connection while its sender has as many open as it may.
#[inline(always)]
pub fn admit(packet: &Packet, sender: &Sender, settings: &Settings) -> Result<(), Reason> {
    if settings.rules & rules_in_use::OPEN == 0 || sender.allowed != 0 {
        return Ok(());
    }
    if is_below_limit(packet, sender, settings) { Ok(()) } else { policy::over(Reason::OpenConnections) }
}

#[inline(never)]
fn is_below_limit(packet: &Packet, sender: &Sender, settings: &Settings) -> bool {
    // Connections to a port that is not guarded are not counted.
    if !port::is_guarded(u16::from_be((packet.key[8] >> 16) as u16)) {
        return true;
    }
    let most = policy::trunk(sender.trunk).map_or(settings.open, |trunk| trunk.open);
    if most == 0 {
        return true;
    }
    let [r0, r1, r2, r3, ..] = packet.key;
    let owner = owner([r0, r1, r2, r3], packet.v6 != 0, sender.trunk, NETNS.load(), settings).1;
    let mut open = 0;
    for slot in owner.slots() {
        if let Some(word) = OPEN.get_ptr(slot) {
            // SAFETY: a live map value.
            open += owner.count(unsafe { word.read_volatile() });
        }
    }
    open < u64::from(most)
}

/// Handles a change of a socket's state. Not inlined: two programs share it.
#[inline(never)]
pub fn on_state_change(ctx: &BtfTracePointContext) -> i32 {
    let socket: *const u8 = ctx.arg(0);
    let (old, new): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    match new {
        ESTABLISHED if old == SYN_RECV => opened(socket),
        CLOSE => {
            closed(socket);
            end_flow(socket);
        }
        _ => {}
    }
    0
}

/// An incoming connection's handshake is complete.
#[inline(always)]
fn opened(socket: *const u8) {
    let Ok(settings) = settings::get() else { return };
    // SAFETY: the tracepoint's argument is a socket, and the loader takes the offsets from the kernel's BTF. The ports are right before
    // the family since Linux 3.13.
    let (port, netns, remote) = unsafe {
        let port = field(socket, SOCK_FAMILY.load() - 4) >> 16;
        let net = long_field(socket, SOCK_NET.load()) as *const u8;
        let address = SOCK_V6_DADDR.load();
        let word = |index: u32| field(socket, address + 4 * index);
        (port as u16, long_field(net, NET_COOKIE.load()), [word(0), word(1), word(2), word(3)])
    };
    let key = socket as u64;
    if netns != NETNS.load() || !port::is_guarded(port) || SOCKETS.get_ptr(&key).is_some() {
        return;
    }
    let v6 = !matches!(remote, [0, 0, ip::MAPPED, _]);
    let trunk = policy::trunk_of(&remote, v6);
    let (remote, owner) = owner(remote, v6, trunk, netns, settings);
    let Some(slot) = add(owner) else { return };
    let opened = CountedConnection { remote, netns, trunk, slot };
    if SOCKETS.insert(&key, &opened, u64::from(BPF_NOEXIST)).is_err() {
        // The map is full.
        subtract(slot);
    }
}

/// A connection has ended.
#[inline(always)]
fn closed(socket: *const u8) {
    let key = socket as u64;
    // SAFETY: a live map value. The kernel reports the state changes of one socket one after the other.
    let Some(slot) = (unsafe { SOCKETS.get(&key) }).map(|opened| opened.slot) else { return };
    if SOCKETS.remove(&key).is_ok() {
        subtract(slot);
    }
}

/// Marks the flow of a socket's connection as ended: its ports may be used again.
#[inline(always)]
fn end_flow(socket: *const u8) {
    // SAFETY: as in `opened`. The kernel has released the local port by now; the inet socket still has its number.
    let (remote, local, netns) = unsafe {
        let tcp = bpf_skc_to_tcp_sock(socket.cast_mut().cast());
        if tcp.is_null() {
            return;
        }
        (
            u16::from_be(field(socket, SOCK_FAMILY.load() - 4) as u16),
            u16::from_be(half_field(tcp.cast(), INET_SPORT.load())),
            long_field(long_field(socket, SOCK_NET.load()) as *const u8, NET_COOKIE.load()),
        )
    };
    let guarded = port::is_guarded(local) || port::is_guarded(remote) || egress::is_dialled_sip_port(local);
    if netns != NETNS.load() || !guarded {
        return;
    }
    // SAFETY: as in `opened`.
    let word = |from: u32, index: u32| unsafe { field(socket, from + 4 * index) };
    let (far, near) = (SOCK_V6_DADDR.load(), SOCK_V6_RCV_SADDR.load());
    let key: FlowWords = [
        word(far, 0),
        word(far, 1),
        word(far, 2),
        word(far, 3),
        word(near, 0),
        word(near, 1),
        word(near, 2),
        word(near, 3),
        u32::from(remote.to_be()) | u32::from(local.to_be()) << 16,
    ];
    stream::ended(&key);
}

/// The owner for whom a connection is counted, and the address that identifies it (zeros for a trunk).
#[inline(always)]
pub fn owner(
    remote: [u32; 4],
    v6: bool,
    trunk: u32,
    netns: u64,
    settings: &Settings,
) -> ([u32; 4], ConnectionOwner) {
    let [r0, r1, r2, r3] = remote;
    let remote = match (trunk, v6) {
        (0, true) => [r0, r1, 0, 0],
        (0, false) => [r0, r1, r2, r3],
        _ => [0; 4],
    };
    (remote, ConnectionOwner::new(remote, trunk, netns, &settings.hash_keys))
}

/// Adds one to the owner's count. Returns the slot in `OPEN`, or `None` where other owners occupy both.
#[inline(always)]
fn add(owner: ConnectionOwner) -> Option<u32> {
    for free in [false, true] {
        for slot in owner.slots() {
            let word = OPEN.get_ptr_mut(slot)?;
            for _ in 0..ATTEMPTS {
                // SAFETY: a live map value.
                let old = unsafe { word.read_volatile() };
                let Some(new) = owner.one_more(old, free) else { break };
                // SAFETY: the same.
                if unsafe { atomic::replace(word, old, new) } {
                    return Some(slot);
                }
            }
        }
    }
    None
}

/// Subtracts one from a slot, which belongs to its owner while the count is not 0.
#[inline(always)]
fn subtract(slot: u32) {
    if let Some(word) = OPEN.get_ptr_mut(slot) {
        // SAFETY: a live map value, whose count is at least one.
        unsafe { atomic::add(word, u64::MAX) };
    }
}
