//! Runs the framer of `sipguard-common` over the payload, through a per-CPU window, and computes the hash that retransmissions are compared by.
//!
//! Loops over the payload are `bpf_loop` calls: the verifier checks one iteration instead of thousands. Everything that changes between
//! iterations is in map values, about which the verifier tracks nothing.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::Settings;
use sipguard_common::framer::{
    ATTRIBUTES, CHUNK, DATA, Limits, ProxyOutcome, STUN_HEAD, StepOutcome, Stun, Window, finish,
    is_keep_alive_len, is_stun, is_word, prime, proxy, settle, step, words,
};
use sipguard_common::{Class, Reason};

use super::window::Bytes;
use super::{checksum, fragment, match_headers};
use crate::admit::{checks, policy, rate};
use crate::cpu::scratch::{self, PayloadCursor, Scratch};
use crate::cpu::settings;
use crate::cpu::stage_result::StageResult;
use crate::packet::bytes;
use crate::stream::copy_framer;

/// Most iterations over one payload. A step of the framer processes at least a byte (keep-alives), and a frame has at most 64 KiB.
const MAX_ITERATIONS: u32 = 1 << 17;
/// Steps of the framer in one iteration. An iteration is a call, which costs as much as a short step; but the verifier checks each step of one.
const STEPS: u32 = 2;
/// Bytes that are marked or hashed at a time.
const BLOCK: u32 = 64;

/// Argument of the loop callbacks.
#[repr(C)]
struct LoopContext {
    ctx: *mut xdp_md,
    scratch: *mut Scratch,
    settings: *const Settings,
}

/// Runs the framer, whose state is [`Scratch::stream`], over the new bytes of the packet; behind a fault that is noted once more, without the
/// monitored checks.
#[inline(always)]
pub fn validate(ctx: &XdpContext) -> Result<(), Reason> {
    let result = sip_validate(ctx.ctx);
    if result == StageResult::CONTINUE.scalar() {
        return Ok(());
    }
    StageResult::from_scalar(sip_note(ctx.ctx, result)).proceed()?;
    StageResult::from_scalar(sip_validate(ctx.ctx)).proceed()
}

/// Runs the parser of the PROXY header, whose state is [`Scratch::stream`], over the new bytes of the packet. `Ok` is how many of them belong to the
/// header.
#[inline(always)]
pub fn proxy_header(ctx: &XdpContext) -> Result<u32, Reason> {
    StageResult::from_scalar(sip_proxy(ctx.ctx)).proceed()?;
    // SAFETY: this CPU's map value.
    let Scratch { packet, payload, .. } = unsafe { &*scratch::get()? };
    Ok(packet.new_len - payload.left_behind())
}

/// The hash of `len` bytes at offset `at` of the frame.
#[inline(always)]
pub fn hash(ctx: &XdpContext, at: u32, len: u32) -> Result<u64, Reason> {
    StageResult::from_scalar(sip_hash(ctx.ctx, at, len)).proceed()?;
    // SAFETY: this CPU's map value.
    Ok(unsafe { (*scratch::get()?).payload.cursor.hash })
}

/// Decides about a datagram that is not fragmented.
#[inline(always)]
pub fn datagram(ctx: &XdpContext) -> Result<Reason, Reason> {
    let scratch = scratch::get()?;
    // SAFETY: this CPU's map value.
    let Scratch { packet, .. } = unsafe { &*scratch };
    if is_keep_alive_len(packet.data_len) {
        return Ok(Reason::NatPing);
    }
    // SAFETY: the window of this CPU's map value.
    let window = Bytes(unsafe { (&raw mut (*scratch).window).cast() });
    match frame(ctx, scratch).and_then(|left| finished(left, true)) {
        Err(Reason::BadStartLine) if is_word(&window, packet.data_len) => Ok(Reason::NatPing),
        judged => judged,
    }
}

/// Runs the framer over a datagram, or over its first fragment. `Ok` is how many bytes are behind the header section; STUN ends here.
#[inline(always)]
pub fn frame(ctx: &XdpContext, scratch: *mut Scratch) -> Result<u32, Reason> {
    // SAFETY: this CPU's map value. The argument is a pointer, because the functions called here change the value behind it.
    let scratch = unsafe { &mut *scratch };
    let first = bytes::byte(ctx, scratch.packet.data_at as usize)?;
    if first & 0xc0 == 0 {
        StageResult::from_scalar(sip_stun(ctx.ctx)).proceed().map_err(|reason| match reason {
            Reason::BadStun => checks::refuse(reason).err().unwrap_or(Reason::Stun),
            reason => reason,
        })?;
    }
    scratch.stream.begin_datagram();
    validate(ctx)?;
    if scratch.stream.is_at_end() || scratch.stream.is_within_message() {
        rate::messages(&scratch.stream, 1)?;
    }
    Ok(scratch.payload.left_behind())
}

/// What a datagram is, once the framer went through it; see [`finish`].
#[inline(always)]
pub fn finished(left: u32, whole: bool) -> Result<Reason, Reason> {
    let reason = StageResult::from_scalar(sip_finish(left, u32::from(whole))).final_reason();
    if reason.class() == Class::Pass { Ok(reason) } else { Err(reason) }
}

/// A global function like [`sip_validate`], which always ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_finish(left: u32, whole: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::INTERNAL.scalar() };
    // SAFETY: this CPU's map value.
    let Scratch { stream, limits, sender, .. } = unsafe { &mut *scratch };
    for _ in 0..2 {
        match finish(stream, left, whole != 0, limits) {
            Err(reason) if checks::refuse(reason).is_ok() => switch_off(limits, sender.checks.off),
            judged => return StageResult::from(judged).scalar(),
        }
    }
    StageResult::INTERNAL.scalar()
}

/// A global function: notes the fault that the framer has found, where its check is monitored and the message can be judged further. The framer is
/// then where it was before the packet. Takes and returns a [`StageResult`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_note(ctx: *mut xdp_md, result: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::INTERNAL.scalar() };
    let Some(reason) = StageResult::from_scalar(result).reason() else { return result };
    // SAFETY: this CPU's map value; two words.
    let (passing, transport) = unsafe { ((*scratch).sender.checks.passing(), (*scratch).packet.transport) };
    if passing & reason.check_bit() == 0 {
        return result;
    }
    if transport != scratch::UDP && reason.is_malformed() && checksum::is_wrong(&XdpContext::new(ctx)) {
        return StageResult::stop(Reason::BadChecksum).scalar();
    }
    if checks::refuse(reason).is_err() {
        return result;
    }
    // SAFETY: as above.
    unsafe {
        copy_framer(&(*scratch).before, &mut (*scratch).stream);
        (*scratch).sender.counted_before = (*scratch).sender.counted;
    }
    StageResult::CONTINUE.scalar()
}

/// A global function: verified once, for any packet. Returns a [`StageResult`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_validate(ctx: *mut xdp_md) -> u32 {
    let (Ok(scratch), Ok(limits)) = (scratch::get(), policy::limits()) else {
        return StageResult::INTERNAL.scalar();
    };
    // SAFETY: this CPU's map value.
    let (at, len, transport) = unsafe {
        (*scratch).limits = *limits;
        (*scratch).limits.denied = (*scratch).sender.denied;
        (*scratch).limits.matched_headers = (*scratch).sender.matched_headers;
        (*scratch).stream.registers = 0;
        (*scratch).stream.invites = 0;
        if (*scratch).sender.checks.is_any() {
            switch(&mut *scratch);
        }
        ((*scratch).packet.new_at, (*scratch).packet.new_len, (*scratch).packet.transport)
    };
    // Copies of a datagram are compared with nothing.
    run_loop(ctx, at, len, transport != scratch::UDP, iterate as *mut c_void).scalar()
}

/// Switches checks off, and keeps the framer's state for when a monitored one finds something. A separate function, because few senders have
/// either.
// own frame: 0 bytes
#[inline(never)]
fn switch(scratch: &mut Scratch) {
    copy_framer(&scratch.stream, &mut scratch.before);
    switch_off(&mut scratch.limits, scratch.sender.checks.off);
}

/// As a separate function, because there are two callers.
// own frame: 0 bytes
#[inline(never)]
fn switch_off(limits: &mut Limits, off: u64) {
    limits.switch_off(off);
}

/// A global function like [`sip_validate`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_hash(ctx: *mut xdp_md, at: u32, len: u32) -> u32 {
    run_loop(ctx, at, len, true, hash_block as *mut c_void).scalar()
}

/// A global function like [`sip_validate`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_proxy(ctx: *mut xdp_md) -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::INTERNAL.scalar() };
    // The keys are not used, and the loop loads its bytes itself.
    let mut context = LoopContext { ctx, scratch, settings: core::ptr::null() };
    // SAFETY: as in `run_loop`.
    unsafe {
        let payload = &raw mut (*scratch).payload;
        (*payload).begin((*scratch).packet.new_at, (*scratch).packet.new_len);
        (*payload).cursor.pos = 0;
        bpf_loop(MAX_ITERATIONS, proxy_byte as *mut c_void, (&raw mut context).cast(), 0);
        (*payload).result(Reason::BadProxyHeader).scalar()
    }
}

/// A global function like [`sip_validate`]; a datagram that is not STUN continues.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sip_stun(ctx: *mut xdp_md) -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::INTERNAL.scalar() };
    let Ok(settings) = settings::get() else { return StageResult::INTERNAL.scalar() };
    // SAFETY: as in `run_loop`; `head` has eight bytes.
    unsafe {
        let (at, len) = ((*scratch).packet.data_at, (*scratch).packet.data_len);
        let mut head = 0u64;
        if !bytes::copy::<{ STUN_HEAD - 1 }>(&XdpContext::new(ctx), at, STUN_HEAD, (&raw mut head).cast()) {
            return StageResult::INTERNAL.scalar();
        }
        if !is_stun(head, len) {
            return StageResult::CONTINUE.scalar();
        }
        if (*scratch).packet.fragment != fragment::WHOLE {
            // No client sends STUN that large, and not all attributes could be checked.
            return StageResult::stop(Reason::BadStun).scalar();
        }
        let Some(stun) = Stun::begin(head, len) else { return StageResult::stop(Reason::BadStun).scalar() };
        let payload = &raw mut (*scratch).payload;
        (*payload).begin(at, len);
        (*payload).stun = stun;
        let mut context = LoopContext { ctx, scratch, settings };
        bpf_loop(ATTRIBUTES + 1, attribute as *mut c_void, (&raw mut context).cast(), 0);
        match (*payload).result(Reason::BadStun) {
            StageResult::CONTINUE => StageResult::stop(Reason::Stun).scalar(),
            result => result.scalar(),
        }
    }
}

/// Checks one attribute. Returns 0 to continue, 1 to stop the loop.
#[inline(never)]
extern "C" fn attribute(_: u32, context: *mut LoopContext) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (context, scratch) = unsafe { (&*context, &mut *(*context).scratch) };
    let payload = &mut scratch.payload;
    if payload.stun.has_ended() {
        payload.done = 1;
        return 1;
    }
    let mut head = 0u32;
    // SAFETY: `head` has four bytes.
    if !unsafe {
        bytes::copy::<3>(
            &XdpContext::new(context.ctx),
            payload.at + payload.stun.at,
            4,
            (&raw mut head).cast(),
        )
    } {
        return payload.fail(Reason::Internal);
    }
    if payload.stun.attribute(head) { 0 } else { payload.fail(Reason::BadStun) }
}

/// Loops over `len` bytes at offset `at` of the frame, and computes their hash where one is asked for.
#[inline(always)]
fn run_loop(ctx: *mut xdp_md, at: u32, len: u32, hashes: bool, callback: *mut c_void) -> StageResult {
    let Ok(scratch) = scratch::get() else { return StageResult::INTERNAL };
    let Ok(settings) = settings::get() else { return StageResult::INTERNAL };
    // SAFETY: `scratch` is this CPU's map value; the callback gets pointers that live as long as this call.
    unsafe {
        let payload = &raw mut (*scratch).payload;
        (*payload).begin(at, len);
        if !hashes {
            (*payload).cursor.leave_out_hash();
        }
        let mut context = LoopContext { ctx, scratch, settings };
        if load(&context) != 0 {
            return StageResult::INTERNAL;
        }
        bpf_loop(MAX_ITERATIONS, callback, (&raw mut context).cast(), 0);
        (*payload).result(Reason::HeadersTooLong)
    }
}

/// One iteration: some steps of the framer in the current chunk, or loading the next chunk. Returns 0 to continue, 1 to stop the loop.
#[inline(never)]
extern "C" fn iterate(_: u32, context: *mut LoopContext) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (context, scratch, settings) =
        unsafe { (&*context, &mut *(*context).scratch, &*(*context).settings) };
    let window = Bytes(scratch.window.as_mut_ptr());
    let payload = &mut scratch.payload;
    let mut steps = 0;
    loop {
        let step =
            step(&mut scratch.stream, &mut payload.cursor, &window, &scratch.limits, &settings.hash_keys);
        match step {
            StepOutcome::Malformed(reason) => return payload.fail_at_line(reason),
            StepOutcome::Done if scratch::reload(&payload.cursor.match_due) == 0 => break,
            // A chunk that is done is still done in the next step.
            StepOutcome::Done | StepOutcome::More => {}
        }
        if scratch::reload(&payload.cursor.match_due) != 0 {
            return match_rules(payload);
        }
        steps += 1;
        if steps == STEPS {
            return 0;
        }
    }
    if let Some(reason) = settle(&mut scratch.stream, &window, &payload.cursor, &scratch.limits) {
        return payload.fail_at_line(reason);
    }
    if payload.left == 0 || scratch.stream.is_at_end() {
        payload.done = 1;
        return 1;
    }
    load_next(context)
}

/// Matches a line against rules. Returns 0 to continue, 1 to stop the loop.
#[inline(always)]
fn match_rules(payload: &mut PayloadCursor) -> i64 {
    payload.result = match_headers::line();
    i64::from(payload.result != StageResult::CONTINUE)
}

/// Processes a byte of a PROXY header, or loads the next chunk. Returns 0 to continue, 1 to stop the loop.
#[inline(never)]
extern "C" fn proxy_byte(_: u32, context: *mut LoopContext) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (context, scratch) = unsafe { (&*context, &mut *(*context).scratch) };
    let window = Bytes(scratch.window.as_mut_ptr());
    let payload = &mut scratch.payload;
    if payload.cursor.pos < payload.cursor.end {
        match proxy(&mut scratch.stream, &mut payload.cursor, &window) {
            ProxyOutcome::More => return 0,
            ProxyOutcome::Malformed => return payload.fail(Reason::BadProxyHeader),
            ProxyOutcome::Ended => {}
        }
    } else if payload.left != 0 {
        return load_next(context);
    }
    payload.done = 1;
    1
}

/// Hashes one block, or loads the next chunk. Returns 0 to continue, 1 to stop the loop.
#[inline(never)]
extern "C" fn hash_block(_: u32, context: *mut LoopContext) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`; what it points to are live map values.
    let (context, scratch, settings) =
        unsafe { (&*context, &mut *(*context).scratch, &*(*context).settings) };
    let payload = &mut scratch.payload;
    let at = payload.cursor.hash_next;
    if at < payload.cursor.end {
        let window = Bytes(scratch.window.as_mut_ptr());
        let sum = words::sum(window.block(at / BLOCK), &settings.hash_keys);
        payload.cursor.hash = words::chain(payload.cursor.hash, sum);
        payload.cursor.hash_next = at + BLOCK;
        return 0;
    }
    if payload.left == 0 {
        payload.done = 1;
        return 1;
    }
    load_next(context)
}

/// [`load`] as a separate function, for the callers that rarely need it.
// own frame: 0 bytes
#[inline(never)]
fn load_next(context: &LoopContext) -> i64 {
    load(context)
}

/// Prepares the window and copies the next chunk into it. 0 is success.
#[inline(always)]
fn load(context: &LoopContext) -> i64 {
    // SAFETY: this CPU's map value.
    let scratch = unsafe { &mut *context.scratch };
    let mut window = Bytes(scratch.window.as_mut_ptr());
    let payload = &mut scratch.payload;
    let len = payload.chunk();
    prime(&scratch.stream, &mut window, &mut payload.cursor, len);
    // SAFETY: a chunk fits behind DATA.
    if !unsafe {
        bytes::copy::<{ CHUNK - 1 }>(
            &XdpContext::new(context.ctx),
            payload.at,
            len,
            window.0.add(DATA as usize),
        )
    } {
        return payload.fail(Reason::Internal);
    }
    // Zeros behind the payload, up to the end of the last hashed block.
    for k in 0..BLOCK / 8 {
        window.set_word(DATA + len + 8 * k, 0);
    }
    payload.at += len;
    payload.left -= len;
    0
}
