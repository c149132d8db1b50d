//! Payload: the framer of `sipguard-common` over a per-CPU window, and the hash that retransmissions are compared by.
//!
//! Loops over the payload are `bpf_loop` calls: the verifier then looks at one step instead of thousands. Everything that
//! changes from step to step lives in map values, where the verifier tracks nothing.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{Flow, Settings};
use sipguard_common::framer::{CHUNK, DATA, Step, Window, prime, settle, step};

use crate::scratch::{self, Scratch};
use crate::{bytes, flow, settings};

/// Turns of the loop over one payload: a chunk loaded, or one step of the framer, which is a byte at the worst (keep-alives).
/// Frames are 64 KiB at the most.
const MAX_TURNS: u32 = 1 << 17;
/// Chunks of one frame.
const MAX_CHUNKS: u32 = 17;
/// What a function returns that could not do its work.
const INTERNAL: u32 = Reason::Internal.number() as u32 + 1;
/// Hashed at a time.
const BLOCK: u32 = 64;

/// What the callbacks work on.
#[repr(C)]
struct Hands {
    ctx: *mut xdp_md,
    scratch: *mut Scratch,
    flow: *mut Flow,
    settings: *const Settings,
}

/// The window of the framer: the first bytes of [`Scratch`].
struct Bytes(*mut u8);

impl Window for Bytes {
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        let value: u64;
        // SAFETY: the mask keeps the offset below WINDOW, and eight bytes more belong to the array. It is asm because rustc
        // removes masks that it can prove to change nothing, and reads single bytes where alignment is unknown.
        unsafe {
            asm!("{o} &= 0x1fff", "{o} += {b}", "{r} = *(u64 *)({o} + 0)", o = inout(reg) u64::from(at) => _,
                 b = in(reg) self.0, r = lateout(reg) value, options(nostack, readonly));
        }
        value
    }

    #[inline(always)]
    fn set_word(&mut self, at: u32, word: u64) {
        // SAFETY: as in `word`.
        unsafe {
            asm!("{o} &= 0x1fff", "{o} += {b}", "*(u64 *)({o} + 0) = {w}", o = inout(reg) u64::from(at) => _,
                 b = in(reg) self.0, w = in(reg) word, options(nostack));
        }
    }
}

/// Validates what [`crate::flow::track`] found to be the next bytes of the flow. `Ok` is their hash.
#[inline(always)]
pub fn validate(ctx: &XdpContext) -> Result<u64, Reason> {
    outcome(sip_validate(ctx.ctx))
}

/// The hash of `len` bytes at `at` of the frame.
#[inline(always)]
pub fn hash(ctx: &XdpContext, at: u32, len: u32) -> Result<u64, Reason> {
    outcome(sip_hash(ctx.ctx, at, len))
}

/// The hash, or the reason whose number plus one is `verdict`.
#[inline(always)]
fn outcome(verdict: u32) -> Result<u64, Reason> {
    match verdict {
        // SAFETY: this CPU's map value.
        0 => Ok(unsafe { (*scratch::get()?).walk.hash }),
        _ => Err(Reason::from_number((verdict - 1) as u8).unwrap_or(Reason::Internal)),
    }
}

/// A global function: the verifier looks at it once, for any packet. Returns a reason's number plus one, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_validate(ctx: *mut xdp_md) -> u32 {
    let Ok(scratch) = scratch::get() else { return INTERNAL };
    let Ok(settings) = settings::get() else { return INTERNAL };
    // SAFETY: `scratch` is this CPU's map value; the callback gets pointers that live as long as this call.
    unsafe {
        let Some(flow) = flow::lookup(&(*scratch).packet.key) else { return INTERNAL };
        let walk = &raw mut (*scratch).walk;
        (*walk).begin((*scratch).packet.new_at, (*scratch).packet.new_len, settings.hash_key);
        let mut hands = Hands { ctx, scratch, flow, settings };
        bpf_loop(MAX_TURNS, turn as *mut c_void, (&raw mut hands).cast(), 0);
        (*walk).outcome()
    }
}

/// A global function, as [`sip_validate`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_hash(ctx: *mut xdp_md, at: u32, len: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return INTERNAL };
    let Ok(settings) = settings::get() else { return INTERNAL };
    // SAFETY: as in `sip_validate`.
    unsafe {
        let walk = &raw mut (*scratch).walk;
        (*walk).begin(at, len, settings.hash_key);
        let mut hands = Hands { ctx, scratch, flow: core::ptr::null_mut(), settings };
        bpf_loop(MAX_CHUNKS, hash_chunk as *mut c_void, (&raw mut hands).cast(), 0);
        (*walk).outcome()
    }
}

/// One turn: the next chunk, or one step of the framer in the chunk at hand. 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn turn(_: u32, hands: *mut Hands) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (hands, scratch, flow) = unsafe { (&*hands, &mut *(*hands).scratch, &mut *(*hands).flow) };
    let mut window = Bytes(scratch.window.as_mut_ptr());
    let walk = &mut scratch.walk;
    if walk.cursor.pos < walk.cursor.end {
        // SAFETY: as above.
        let limits = unsafe { &(*hands.settings).limits };
        return match step(&mut flow.stream, &mut walk.cursor, &window, limits) {
            Step::More | Step::Done => 0,
            Step::Malformed(reason) => walk.fail(reason),
        };
    }
    if walk.cursor.end != 0
        && let Some(reason) = settle(&mut flow.stream, &window, &walk.cursor)
    {
        return walk.fail(reason);
    }
    if walk.left == 0 {
        walk.done = 1;
        return 1;
    }
    let len = walk.chunk();
    prime(&flow.stream, &mut window, &mut walk.cursor, len);
    load(hands)
}

/// Loads and hashes one chunk. 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn hash_chunk(_: u32, hands: *mut Hands) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (hands, walk) = unsafe { (&*hands, &mut (*(*hands).scratch).walk) };
    if walk.left == 0 {
        walk.done = 1;
        return 1;
    }
    load(hands)
}

/// Copies the next chunk into the window and hashes it. 0 is success.
#[inline(never)]
fn load(hands: &Hands) -> i64 {
    // SAFETY: this CPU's map value.
    let scratch = unsafe { &mut *hands.scratch };
    let mut window = Bytes(scratch.window.as_mut_ptr());
    let walk = &mut scratch.walk;
    let len = walk.chunk();
    // SAFETY: there is room for a chunk behind DATA.
    if !unsafe { bytes::copy::<{ CHUNK - 1 }>(hands.ctx, walk.at, len, window.0.add(DATA as usize)) } {
        return walk.fail(Reason::Internal);
    }
    // What is hashed in blocks ends with zeros.
    for k in 0..BLOCK / 8 {
        window.set_word(DATA + len + 8 * k, 0);
    }
    walk.hash_at = DATA;
    walk.hash_end = DATA + len;
    walk.at += len;
    walk.left -= len;
    let context = core::ptr::from_ref(hands).cast_mut().cast();
    // SAFETY: the callback gets the pointer that this function got.
    unsafe { bpf_loop(CHUNK / BLOCK + 1, hash_block as *mut c_void, context, 0) };
    0
}

/// Multiply and mix, eight bytes at a time, in two lanes; keyed by [`Settings::hash_key`].
#[inline(never)]
extern "C" fn hash_block(_: u32, hands: *mut Hands) -> i64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let scratch = unsafe { &mut *(*hands).scratch };
    let walk = &mut scratch.walk;
    if walk.hash_at >= walk.hash_end {
        return 1;
    }
    let bytes = Bytes(scratch.window.as_mut_ptr());
    let mut even = walk.hash;
    let mut odd = even.rotate_left(32) ^ ODD;
    for k in 0..BLOCK / 16 {
        even = (even ^ bytes.word(walk.hash_at + 16 * k)).wrapping_mul(ODD);
        even ^= even >> 29;
        odd = (odd ^ bytes.word(walk.hash_at + 16 * k + 8)).wrapping_mul(ODD);
        odd ^= odd >> 31;
    }
    walk.hash = (even ^ odd.rotate_left(17)).wrapping_mul(ODD) ^ even >> 32;
    walk.hash_at += BLOCK;
    0
}
