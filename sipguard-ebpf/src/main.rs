//! The XDP program. `inspect` is the reading order: one packet's way through the rooms, each of which ends it early with a
//! `Reason` or hands it on.
//!
//! On the host this is an empty program, so that the workspace can be checked as a whole, the rooms included.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value would be copied onto the BPF stack"
)]

mod admit;
mod cpu;
mod message;
mod observe;
mod packet;
mod stream;
mod verdict;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::{btf_tracepoint, classifier, xdp};
use aya_ebpf::programs::{BtfTracePointContext, TcContext, XdpContext};
use sipguard_common::Reason;

use admit::port::{self, Transport};
use admit::{open, policy};
use cpu::ending::Ending;
use cpu::{scratch, settings};
use message::{fragment, sip};
use packet::{bytes, eth, ip, tcp, udp};

#[xdp(frags)]
fn sipguard(ctx: XdpContext) -> u32 {
    let reason = match inspect(&ctx) {
        Ok(reason) | Err(reason) => reason,
    };
    verdict::act(&ctx, reason)
}

/// One packet's way. `Err` is an early end, `Ok` the end of the way; both carry the reason.
#[inline(always)]
fn inspect(ctx: &XdpContext) -> Result<Reason, Reason> {
    Ending::of(headers(ctx.ctx)).go_on()?;
    let packet = scratch::packet()?;
    // SAFETY: this CPU's map value; two words.
    let (transport, fragment) = unsafe { ((*packet).transport, (*packet).fragment) };
    if transport != scratch::UDP {
        return stream::judge(ctx);
    }
    if fragment != fragment::WHOLE {
        policy::permit()?;
        return fragment::judge(ctx);
    }
    Ok(Ending::of(datagram(ctx.ctx)).end())
}

/// A global function, as [`headers`]. Returns an [`Ending`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn datagram(ctx: *mut xdp_md) -> u32 {
    let judged = policy::permit().and_then(|()| sip::datagram(&XdpContext::new(ctx)));
    Ending::from(judged).scalar()
}

/// A global function: the verifier looks at it once, and its stack is free again afterwards. Returns an
/// [`Ending`]: what goes on is a packet of a guarded port, which then is [`scratch::packet`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn headers(ctx: *mut xdp_md) -> u32 {
    Ending::from(read_headers(&XdpContext::new(ctx))).scalar()
}

#[inline(always)]
fn read_headers(ctx: &XdpContext) -> Result<(), Reason> {
    let scratch = scratch::begin(bytes::linear_len(ctx))?;
    if settings::is_replay() {
        // SAFETY: this CPU's map value.
        unsafe { (*scratch).now_ns = bytes::time_before(ctx) };
    }
    // SAFETY: this CPU's map value; the other rooms have other parts of it.
    let who = unsafe { &mut (*scratch).who };
    let l3 = eth::parse(ctx)?;
    let ip = scratch::note_ip(scratch, ip::parse(ctx, l3)?);
    policy::admit(ip, who)?;
    let (transport, side) = port::guarded(ctx, ip, who.trunk)?;
    let l4 = match transport {
        Transport::Udp => udp::parse(ctx, ip, side)?,
        Transport::Fragment => udp::fragment(ip),
        // Before its header is judged: it may be another service's.
        _ if side != port::OWN && !stream::is_awaited(ctx) => return Err(Reason::NotGuarded),
        transport => tcp::parse(ctx, ip, transport, side)?,
    };
    scratch::note(scratch, ip, &l4);
    Ok(())
}

/// Looks at what the PBX sends.
#[classifier]
fn sipguard_out(ctx: TcContext) -> i32 {
    stream::out::note(&ctx)
}

/// Counts open connections. The kernel calls a program no second time on a CPU where it is at work (a connection that ends in an
/// interrupt), and calls its twin then: so there are two, and whichever comes first does it.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn sipguard_open(ctx: BtfTracePointContext) -> i32 {
    open::note(&ctx)
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn sipguard_twin(ctx: BtfTracePointContext) -> i32 {
    open::note(&ctx)
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No panic is reachable; if one were, this endless loop would make the verifier refuse the program.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
