//! The TCP checksum (RFC 9293 section 3.1), verified before a stream is rejected, and where a copy of the segment could not be judged again: a
//! segment that was damaged on its way is no fault of its sender, and the kernel discards it anyway.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_loop};
use aya_ebpf::programs::XdpContext;
use sipguard_common::framer::Window;
use sipguard_common::wire::tcp::CHECKSUM;

use super::window::Bytes;
use crate::cpu::scratch::{self, Scratch};
use crate::packet::bytes;
use crate::verdict::reset;

/// Bytes per call of `bpf_csum_diff`: the most that it takes on older kernels.
const PIECE: u32 = 512;
/// Pieces of the longest segment, and one iteration that finds no more.
const PIECES: u32 = 65536 / PIECE + 1;

/// Argument of the loop callback.
#[repr(C)]
struct LoopContext {
    ctx: *mut xdp_md,
    scratch: *mut Scratch,
}

/// Whether the checksum of the segment in [`scratch::packet`] is wrong.
#[inline(always)]
pub fn is_wrong(ctx: &XdpContext) -> bool {
    checksum_wrong(ctx.ctx) == 1
}

/// A global function: verified once, for any packet. Returns 1 for a wrong checksum, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn checksum_wrong(ctx: *mut xdp_md) -> u32 {
    let Ok(scratch) = scratch::get() else { return 0 };
    // SAFETY: `scratch` is this CPU's map value; the callback gets a pointer that lives as long as this call.
    unsafe {
        let packet = &(*scratch).packet;
        let len = packet.data_at - packet.l4_at + packet.data_len;
        let Ok(stored) = bytes::half(&XdpContext::new(ctx), (packet.l4_at + CHECKSUM as u32) as usize) else {
            return 0;
        };
        if reset::is_unfinished(packet, stored) {
            return 0;
        }
        let pseudo = reset::pseudo_header(packet, len as u16);
        let payload = &raw mut (*scratch).payload;
        (*payload).begin(packet.l4_at, len);
        (*payload).sum = 0;
        let mut context = LoopContext { ctx, scratch };
        bpf_loop(PIECES, piece as *mut c_void, (&raw mut context).cast(), 0);
        if (*payload).done == 0 {
            return 0;
        }
        u32::from(reset::fold(pseudo + u64::from((*payload).sum)) != 0)
    }
}

/// Adds one piece to the sum. Returns 0 to continue, 1 to stop the loop.
#[inline(never)]
extern "C" fn piece(_: u32, context: *mut LoopContext) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (context, scratch) = unsafe { (&*context, &mut *(*context).scratch) };
    let payload = &mut scratch.payload;
    if payload.left == 0 {
        payload.done = 1;
        return 1;
    }
    let len = if payload.left < PIECE { payload.left } else { PIECE };
    let into = scratch.window.as_mut_ptr();
    for word in 0..PIECE / 8 {
        Bytes(into).set_word(8 * word, 0);
    }
    // SAFETY: a piece fits into the window.
    unsafe {
        if !bytes::copy::<{ PIECE - 1 }>(&XdpContext::new(context.ctx), payload.at, len, into) {
            return 1;
        }
        payload.sum = bpf_csum_diff(core::ptr::null_mut(), 0, into.cast(), PIECE, payload.sum) as u32;
    }
    payload.at += len;
    payload.left -= len;
    0
}
