//! How many at once: the TCP connections that a source, or a trunk, has open, by the kernel's own word. What stands on the wire says
//! nothing about that, for FIN and RST can be forged; so programs on the kernel's tracepoint of socket states count.
//!
//! The same programs tell the flow of a connection of this host that it has ended.
//!
//! A connection is counted when its handshake has ended, and remembered by its socket. What was not counted, because it is older
//! than the guard or there was no room, is not discounted.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::BtfTracePointContext;
use sipguard_common::Reason;
use sipguard_common::abi::{OPEN_ENTRIES, Opened, Opener, Settings, rules_in_use};

use super::{policy, port};
use crate::cpu::asm::{field, half_field, long_field};
use crate::cpu::scratch::{Key, Packet, Who};
use crate::cpu::{atomic, settings};
use crate::packet::ip;
use crate::stream;
use crate::stream::out;
use crate::stream::socket::{CLOSE, ESTABLISHED, SYN_RECV};

/// Byte offsets in the running kernel's structs, as in [`crate::stream::socket`]. The programs are not loaded where one is unknown.
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
/// Cookie of the network namespace of the interface, or 0 where it is unknown. What other namespaces have open is not counted.
#[unsafe(no_mangle)]
static NETNS: Global<u64> = Global::new(0);

#[map]
static OPEN: Array<u64> = Array::with_max_entries(OPEN_ENTRIES, 0);

#[map]
static SOCKETS: HashMap<u64, Opened> = HashMap::with_max_entries(1 << 17, BPF_F_NO_PREALLOC);

/// Attempts to change a word that other CPUs change as well.
const ATTEMPTS: usize = 8;

/// Refuses the first segment of a connection while its sender has as many open as it may.
#[inline(always)]
pub fn admit(packet: &Packet, who: &Who, settings: &Settings) -> Result<(), Reason> {
    if settings.rules & rules_in_use::OPEN == 0 || who.allowed != 0 {
        return Ok(());
    }
    if has_room(packet, who, settings) { Ok(()) } else { policy::over(Reason::OpenConnections) }
}

#[inline(never)]
fn has_room(packet: &Packet, who: &Who, settings: &Settings) -> bool {
    // What comes from a guarded port to another one is not counted.
    if !port::is_guarded(u16::from_be((packet.key[8] >> 16) as u16)) {
        return true;
    }
    let most = policy::trunk(who.trunk).map_or(settings.open, |trunk| trunk.open);
    if most == 0 {
        return true;
    }
    let [r0, r1, r2, r3, ..] = packet.key;
    let opener = opener([r0, r1, r2, r3], packet.v6 != 0, who.trunk, NETNS.load(), settings).1;
    let mut open = 0;
    for place in opener.places() {
        if let Some(word) = OPEN.get_ptr(place) {
            // SAFETY: a live map value.
            open += opener.count(unsafe { word.read_volatile() });
        }
    }
    open < u64::from(most)
}

/// Takes note of a socket's new state. A function of its own for the size of the object.
#[inline(never)]
pub fn note(ctx: &BtfTracePointContext) -> i32 {
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

/// A handshake that somebody else began has ended.
#[inline(always)]
fn opened(socket: *const u8) {
    let Ok(settings) = settings::get() else { return };
    // SAFETY: the tracepoint's argument is a socket, whose offsets the loader has from the kernel's BTF. The port stands before the
    // family since Linux 3.13.
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
    let (remote, opener) = opener(remote, v6, trunk, netns, settings);
    let Some(place) = take(opener) else { return };
    let opened = Opened { remote, netns, trunk, place };
    if SOCKETS.insert(&key, &opened, u64::from(BPF_NOEXIST)).is_err() {
        // There is no room.
        give_back(place);
    }
}

/// The connection has ended, whichever way.
#[inline(always)]
fn closed(socket: *const u8) {
    let key = socket as u64;
    // SAFETY: a live map value. The kernel tells of one change of a socket at a time.
    let Some(place) = (unsafe { SOCKETS.get(&key) }).map(|opened| opened.place) else { return };
    if SOCKETS.remove(&key).is_ok() {
        give_back(place);
    }
}

/// Tells the flow of a socket's connection that it has ended: its ports may come again.
#[inline(always)]
fn end_flow(socket: *const u8) {
    // SAFETY: as in `opened`. The kernel has given the port back by now; the socket still says which it was.
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
    let guarded = port::is_guarded(local) || port::is_guarded(remote) || out::is_spoken(local);
    if netns != NETNS.load() || !guarded {
        return;
    }
    // SAFETY: as in `opened`.
    let word = |from: u32, index: u32| unsafe { field(socket, from + 4 * index) };
    let (far, near) = (SOCK_V6_DADDR.load(), SOCK_V6_RCV_SADDR.load());
    let key: Key = [
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

/// For whom a connection is counted: the address that says it, and the hash.
#[inline(always)]
fn opener(remote: [u32; 4], v6: bool, trunk: u32, netns: u64, settings: &Settings) -> ([u32; 4], Opener) {
    let [r0, r1, r2, r3] = remote;
    let remote = match (trunk, v6) {
        (0, true) => [r0, r1, 0, 0],
        (0, false) => [r0, r1, r2, r3],
        _ => [0; 4],
    };
    (remote, Opener::new(remote, trunk, netns, &settings.hash_keys))
}

/// Counts one more, and says where.
#[inline(always)]
fn take(opener: Opener) -> Option<u32> {
    for free in [false, true] {
        for place in opener.places() {
            let word = OPEN.get_ptr_mut(place)?;
            for _ in 0..ATTEMPTS {
                // SAFETY: a live map value.
                let old = unsafe { word.read_volatile() };
                let Some(new) = opener.one_more(old, free) else { break };
                // SAFETY: the same.
                if unsafe { atomic::replace(word, old, new) } {
                    return Some(place);
                }
            }
        }
    }
    None
}

/// Counts one less, at once: a place that counts is its sender's until then.
#[inline(always)]
fn give_back(place: u32) {
    if let Some(word) = OPEN.get_ptr_mut(place) {
        // SAFETY: a live map value, which counts at least what is given back.
        unsafe { atomic::add(word, u64::MAX) };
    }
}
