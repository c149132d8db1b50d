//! Payload: the framer of `sipguard-common` over a per-CPU window, and the hash that retransmissions are compared by.
//!
//! Loops over the payload are `bpf_loop` calls: the verifier then looks at one step instead of thousands. Everything that
//! changes from step to step lives in map values, where the verifier tracks nothing.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::Settings;
use sipguard_common::framer::{
    ATTRIBUTES, CHUNK, DATA, STUN_HEAD, Step, Stun, Window, finish, harmless, is_stun, prime, settle, step,
    words,
};

use super::window::Bytes;
use super::{fragment, screen};
use crate::admit::{policy, rate};
use crate::cpu::ending::Ending;
use crate::cpu::scratch::{self, Scratch, Walk};
use crate::cpu::settings;
use crate::packet::bytes;

/// Turns of the loop over one payload: one step of the framer, which is a byte at the worst (keep-alives). Frames are 64 KiB at
/// the most.
const MAX_TURNS: u32 = 1 << 17;
/// Steps in one turn. A turn is a call, which costs as much as a short step; the verifier looks at each of them.
const STEPS: u32 = 2;
/// Marked or hashed at a time.
const BLOCK: u32 = 64;

/// What the callbacks work on.
#[repr(C)]
struct Hands {
    ctx: *mut xdp_md,
    scratch: *mut Scratch,
    settings: *const Settings,
}

/// Takes what is new of the packet through the framer, whose state is [`Scratch::stream`].
#[inline(always)]
pub fn validate(ctx: &XdpContext) -> Result<(), Reason> {
    Ending::of(sip_validate(ctx.ctx)).go_on()
}

/// The hash of `len` bytes at `at` of the frame.
#[inline(always)]
pub fn hash(ctx: &XdpContext, at: u32, len: u32) -> Result<u64, Reason> {
    Ending::of(sip_hash(ctx.ctx, at, len)).go_on()?;
    // SAFETY: this CPU's map value.
    Ok(unsafe { (*scratch::get()?).walk.cursor.hash })
}

/// Judges a datagram that came in one piece.
#[inline(always)]
pub fn datagram(ctx: &XdpContext) -> Result<Reason, Reason> {
    let scratch = scratch::get()?;
    // SAFETY: this CPU's map value.
    let Scratch { packet, stream, .. } = unsafe { &*scratch };
    if harmless(packet.data_len) {
        return Ok(Reason::NatPing);
    }
    let left = frame(ctx, scratch)?;
    finish(stream, left, true, policy::limits()?)
}

/// Takes a datagram, or its first fragment, through the framer. `Ok` is how many bytes it did not have to look at; STUN ends here.
#[inline(always)]
pub fn frame(ctx: &XdpContext, scratch: *mut Scratch) -> Result<u32, Reason> {
    // SAFETY: this CPU's map value. A pointer comes in, because the functions called here change what it points to.
    let scratch = unsafe { &mut *scratch };
    let first = bytes::byte(ctx, scratch.packet.data_at as usize)?;
    if first & 0xc0 == 0 {
        Ending::of(sip_stun(ctx.ctx)).go_on()?;
    }
    scratch.stream.begin_datagram();
    validate(ctx)?;
    if scratch.stream.is_at_end() || scratch.stream.is_within_message() {
        rate::messages(&scratch.stream, 1)?;
    }
    Ok(scratch.walk.left_behind())
}

/// A global function: the verifier looks at it once, for any packet. Returns an [`Ending`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_validate(ctx: *mut xdp_md) -> u32 {
    let (Ok(scratch), Ok(limits)) = (scratch::get(), policy::limits()) else {
        return Ending::INTERNAL.scalar();
    };
    // SAFETY: this CPU's map value.
    let (at, len) = unsafe {
        (*scratch).limits = *limits;
        (*scratch).limits.denied = (*scratch).who.denied;
        (*scratch).limits.screens = (*scratch).who.screens;
        (*scratch).stream.registers = 0;
        (*scratch).stream.invites = 0;
        ((*scratch).packet.new_at, (*scratch).packet.new_len)
    };
    walk(ctx, at, len, turn as *mut c_void).scalar()
}

/// A global function, as [`sip_validate`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_hash(ctx: *mut xdp_md, at: u32, len: u32) -> u32 {
    walk(ctx, at, len, hash_block as *mut c_void).scalar()
}

/// A global function, as [`sip_validate`]: what is not STUN goes on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_stun(ctx: *mut xdp_md) -> u32 {
    let Ok(scratch) = scratch::get() else { return Ending::INTERNAL.scalar() };
    let Ok(settings) = settings::get() else { return Ending::INTERNAL.scalar() };
    // SAFETY: as in `walk`; `head` has room for its bytes.
    unsafe {
        let (at, len) = ((*scratch).packet.data_at, (*scratch).packet.data_len);
        let mut head = 0u64;
        if !bytes::copy::<{ STUN_HEAD - 1 }>(&XdpContext::new(ctx), at, STUN_HEAD, (&raw mut head).cast()) {
            return Ending::INTERNAL.scalar();
        }
        if !is_stun(head, len) {
            return Ending::ON.scalar();
        }
        if (*scratch).packet.fragment != fragment::WHOLE {
            // Nobody sends STUN that large, and its attributes could not be walked to their end.
            return Ending::with(Reason::BadStun).scalar();
        }
        let Some(stun) = Stun::begin(head, len) else { return Ending::with(Reason::BadStun).scalar() };
        let walk = &raw mut (*scratch).walk;
        (*walk).begin(at, len);
        (*walk).stun = stun;
        let mut hands = Hands { ctx, scratch, settings };
        bpf_loop(ATTRIBUTES + 1, attribute as *mut c_void, (&raw mut hands).cast(), 0);
        match (*walk).ending(Reason::BadStun) {
            Ending::ON => Ending::with(Reason::Stun).scalar(),
            ending => ending.scalar(),
        }
    }
}

/// Goes over one attribute. 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn attribute(_: u32, hands: *mut Hands) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (hands, scratch) = unsafe { (&*hands, &mut *(*hands).scratch) };
    let walk = &mut scratch.walk;
    if walk.stun.has_ended() {
        walk.done = 1;
        return 1;
    }
    let mut head = 0u32;
    // SAFETY: there is room for four bytes.
    if !unsafe {
        bytes::copy::<3>(&XdpContext::new(hands.ctx), walk.at + walk.stun.at, 4, (&raw mut head).cast())
    } {
        return walk.fail(Reason::Internal);
    }
    if walk.stun.attribute(head) { 0 } else { walk.fail(Reason::BadStun) }
}

/// Loops over `len` bytes at `at` of the frame.
#[inline(always)]
fn walk(ctx: *mut xdp_md, at: u32, len: u32, turn: *mut c_void) -> Ending {
    let Ok(scratch) = scratch::get() else { return Ending::INTERNAL };
    let Ok(settings) = settings::get() else { return Ending::INTERNAL };
    // SAFETY: `scratch` is this CPU's map value; the callback gets pointers that live as long as this call.
    unsafe {
        let walk = &raw mut (*scratch).walk;
        (*walk).begin(at, len);
        let mut hands = Hands { ctx, scratch, settings };
        if load(&hands) != 0 {
            return Ending::INTERNAL;
        }
        bpf_loop(MAX_TURNS, turn, (&raw mut hands).cast(), 0);
        (*walk).ending(Reason::HeadersTooLong)
    }
}

/// One turn: one step of the framer in the chunk at hand, or the next chunk. 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn turn(_: u32, hands: *mut Hands) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (hands, scratch, settings) = unsafe { (&*hands, &mut *(*hands).scratch, &*(*hands).settings) };
    let window = Bytes(scratch.window.as_mut_ptr());
    let walk = &mut scratch.walk;
    let mut steps = 0;
    loop {
        let step = step(&mut scratch.stream, &mut walk.cursor, &window, &scratch.limits, &settings.hash_keys);
        match step {
            Step::Malformed(reason) => return walk.fail(reason),
            Step::Done if scratch::again(&walk.cursor.asks) == 0 => break,
            // What is done is so in the next step too.
            Step::Done | Step::More => {}
        }
        if scratch::again(&walk.cursor.asks) != 0 {
            return asked(walk);
        }
        steps += 1;
        if steps == STEPS {
            return 0;
        }
    }
    if let Some(reason) = settle(&mut scratch.stream, &window, &walk.cursor, &scratch.limits) {
        return walk.fail(reason);
    }
    if walk.left == 0 || scratch.stream.is_at_end() {
        walk.done = 1;
        return 1;
    }
    load_next(hands)
}

/// Asks rules about a line. 0 goes on, 1 ends the loop.
#[inline(always)]
fn asked(walk: &mut Walk) -> i64 {
    walk.ending = screen::line();
    i64::from(walk.ending != Ending::ON)
}

/// Hashes one block, or loads the next chunk. 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn hash_block(_: u32, hands: *mut Hands) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (hands, scratch, settings) = unsafe { (&*hands, &mut *(*hands).scratch, &*(*hands).settings) };
    let walk = &mut scratch.walk;
    let at = walk.cursor.hash_next;
    if at < walk.cursor.end {
        let window = Bytes(scratch.window.as_mut_ptr());
        let sum = words::sum(window.block(at / BLOCK), &settings.hash_keys);
        walk.cursor.hash = words::chain(walk.cursor.hash, sum);
        walk.cursor.hash_next = at + BLOCK;
        return 0;
    }
    if walk.left == 0 {
        walk.done = 1;
        return 1;
    }
    load_next(hands)
}

/// [`load`] where it is seldom needed.
#[inline(never)]
fn load_next(hands: &Hands) -> i64 {
    load(hands)
}

/// Makes the window ready for the next chunk and copies it there. 0 is success.
#[inline(always)]
fn load(hands: &Hands) -> i64 {
    // SAFETY: this CPU's map value.
    let scratch = unsafe { &mut *hands.scratch };
    let mut window = Bytes(scratch.window.as_mut_ptr());
    let walk = &mut scratch.walk;
    let len = walk.chunk();
    prime(&scratch.stream, &mut window, &mut walk.cursor, len);
    // SAFETY: there is room for a chunk behind DATA.
    if !unsafe {
        bytes::copy::<{ CHUNK - 1 }>(&XdpContext::new(hands.ctx), walk.at, len, window.0.add(DATA as usize))
    } {
        return walk.fail(Reason::Internal);
    }
    // What is hashed in blocks ends with zeros.
    for k in 0..BLOCK / 8 {
        window.set_word(DATA + len + 8 * k, 0);
    }
    walk.at += len;
    walk.left -= len;
    0
}
