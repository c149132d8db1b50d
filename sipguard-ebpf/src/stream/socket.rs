//! The kernel's socket of a connection. It is more reliable than any packet: forged segments have no socket, and `rcv_nxt` is the next byte
//! that the kernel accepts.
//!
//! `bpf_skc_lookup_tcp` is Linux 4.20, callable from XDP since 5.4 (commit edbf8c01de5a); `bpf_skc_to_tcp_sock` is 5.9
//! (commit 478cfbdf5f13).

use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::bindings::{bpf_sock_tuple, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock,
    bpf_tcp_check_syncookie,
};
use aya_ebpf::programs::XdpContext;
use sipguard_common::wire::{ipv6, tcp};

use crate::cpu::asm::field;
use crate::cpu::scratch::{FlowWords, Packet};
use crate::cpu::settings;
use crate::packet::bytes;

/// Byte offsets in the running kernel's structs, which the loader takes from its BTF; 0 where they are unknown.
#[unsafe(no_mangle)]
static TCP_RCV_NXT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TCP_RECEIVED: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REQ_RCV_NXT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REQ_SNT_ISN: Global<u32> = Global::new(0);

/// States of `include/net/tcp_states.h`.
pub const ESTABLISHED: u32 = 1;
/// CountedConnection by a SYN with a fast open cookie: a socket already.
pub const SYN_RECV: u32 = 3;
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
pub const CLOSE: u32 = 7;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const LISTEN: u32 = 10;
const CLOSING: u32 = 11;
const NEW_SYN_RECV: u32 = 12;

/// A connection in the kernel.
#[repr(C)]
pub struct Socket {
    /// Whether there is one: established, closing or in the last step of its handshake.
    pub connected: bool,
    /// Whether `rcv_nxt` and `fresh` are valid.
    pub has_position: bool,
    /// The next sequence number that the kernel accepts.
    pub rcv_nxt: u32,
    /// Whether no payload was received yet.
    pub fresh: bool,
    /// Whether the segment completes a handshake with a SYN cookie, so that its first byte is the first of the stream.
    pub cookie: bool,
}

impl Socket {
    /// There is none.
    pub const NONE: Socket =
        Socket { connected: false, has_position: false, rcv_nxt: 0, fresh: false, cookie: false };
}

/// Looks up the connection of a segment in the network namespace of the interface. `found` must be [`Socket::NONE`]. Not inlined, for the
/// size of the program.
#[inline(never)]
pub fn lookup(ctx: *mut xdp_md, packet: &Packet, found: &mut Socket) {
    if settings::is_replay() {
        return;
    }
    let ctx = &XdpContext::new(ctx);
    let key = &packet.key;
    let mut tuple = MaybeUninit::<FlowWords>::uninit();
    // SAFETY: both layouts of `bpf_sock_tuple` are source, destination, ports, as in the key, and the sizes are right. The socket is
    // released on every path, and the verifier checks reads of it against BTF.
    unsafe {
        let size = if packet.v6 != 0 {
            tuple.write(*key);
            36
        } else {
            tuple.as_mut_ptr().cast::<[u32; 3]>().write([key[3], key[7], key[8]]);
            12
        };
        let socket = bpf_skc_lookup_tcp(
            ctx.ctx.cast(),
            tuple.as_mut_ptr().cast::<bpf_sock_tuple>(),
            size,
            u64::MAX,
            0,
        );
        if socket.is_null() {
            return;
        }
        let state = (*socket).state;
        if matches!(state, ESTABLISHED | SYN_RECV | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK | CLOSING) {
            found.connected = true;
            let tcp = bpf_skc_to_tcp_sock(socket.cast());
            if !tcp.is_null() && TCP_RCV_NXT.load() != 0 && TCP_RECEIVED.load() != 0 {
                found.has_position = true;
                found.rcv_nxt = field(tcp.cast(), TCP_RCV_NXT.load());
                found.fresh = field(tcp.cast(), TCP_RECEIVED.load()) == 0
                    && field(tcp.cast(), TCP_RECEIVED.load() + 4) == 0;
            }
        } else if state == NEW_SYN_RECV {
            found.connected = true;
            let request = bpf_skc_to_tcp_request_sock(socket.cast());
            if !request.is_null() && REQ_RCV_NXT.load() != 0 && REQ_SNT_ISN.load() != 0 {
                found.has_position = true;
                found.rcv_nxt = field(request.cast(), REQ_RCV_NXT.load());
                found.fresh = true;
                // A segment that does not acknowledge the SYN-ACK is forged; the kernel refuses it.
                if packet.acknowledged != field(request.cast(), REQ_SNT_ISN.load()).wrapping_add(1) {
                    found.connected = false;
                    found.has_position = false;
                }
            }
        } else if state == LISTEN {
            let ip = bytes::pointer(ctx, packet.ip_at as usize, ipv6::LEN);
            let transport = bytes::pointer(ctx, packet.l4_at as usize, tcp::LEN);
            if let (Ok(ip), Ok(transport)) = (ip, transport) {
                found.cookie = bpf_tcp_check_syncookie(
                    socket.cast(),
                    ip.cast(),
                    ipv6::LEN as u32,
                    transport.cast(),
                    tcp::LEN as u32,
                ) == 0;
            }
        }
        bpf_sk_release(socket.cast());
    }
}
