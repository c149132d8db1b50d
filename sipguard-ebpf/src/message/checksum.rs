//! The TCP checksum (RFC 9293 section 3.1), looked at only before a stream is refused: what was damaged on its way is the wire's
//! fault, and the kernel discards it anyway.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_loop};
use aya_ebpf::programs::XdpContext;
use sipguard_common::framer::Window;

use super::window::Bytes;
use crate::cpu::scratch::{self, Scratch};
use crate::packet::bytes;
use crate::verdict::reset;

/// Bytes summed at a time: the most that `bpf_csum_diff` takes on older kernels.
const PIECE: u32 = 512;
/// Pieces of one segment, and a turn that finds that there is no other.
const PIECES: u32 = 65536 / PIECE + 1;

/// What the callback works on.
#[repr(C)]
struct Hands {
    ctx: *mut xdp_md,
    scratch: *mut Scratch,
}

/// Whether the segment in [`scratch::packet`] is damaged.
#[inline(always)]
pub fn is_wrong(ctx: &XdpContext) -> bool {
    checksum_wrong(ctx.ctx) == 1
}

/// A global function: the verifier looks at it once, for any packet. Returns 1 for a wrong checksum, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn checksum_wrong(ctx: *mut xdp_md) -> u32 {
    let Ok(scratch) = scratch::get() else { return 0 };
    // SAFETY: `scratch` is this CPU's map value; the callback gets a pointer that lives as long as this call.
    unsafe {
        let packet = &(*scratch).packet;
        let len = packet.data_at - packet.l4_at + packet.data_len;
        let Ok(said) = bytes::half(&XdpContext::new(ctx), (packet.l4_at + 16) as usize) else { return 0 };
        if reset::is_unfinished(packet, said) {
            return 0;
        }
        let pseudo = reset::pseudo_header(packet, len as u16);
        let walk = &raw mut (*scratch).walk;
        (*walk).begin(packet.l4_at, len);
        (*walk).sum = 0;
        let mut hands = Hands { ctx, scratch };
        bpf_loop(PIECES, piece as *mut c_void, (&raw mut hands).cast(), 0);
        if (*walk).done == 0 {
            return 0;
        }
        u32::from(reset::fold(pseudo + u64::from((*walk).sum)) != 0)
    }
}

/// Adds one piece to the sum. 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn piece(_: u32, hands: *mut Hands) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (hands, scratch) = unsafe { (&*hands, &mut *(*hands).scratch) };
    let walk = &mut scratch.walk;
    if walk.left == 0 {
        walk.done = 1;
        return 1;
    }
    let len = if walk.left < PIECE { walk.left } else { PIECE };
    let into = scratch.window.as_mut_ptr();
    for word in 0..PIECE / 8 {
        Bytes(into).set_word(8 * word, 0);
    }
    // SAFETY: the window has room for a piece.
    unsafe {
        if !bytes::copy::<{ PIECE - 1 }>(&XdpContext::new(hands.ctx), walk.at, len, into) {
            return 1;
        }
        walk.sum = bpf_csum_diff(core::ptr::null_mut(), 0, into.cast(), PIECE, walk.sum) as u32;
    }
    walk.at += len;
    walk.left -= len;
    0
}
