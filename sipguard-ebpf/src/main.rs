//! The XDP program. [`inspect`] shows the order of the stages; each one passes the packet on or ends with a [`Reason`].
//!
//! On the host this is an empty program, so that the whole workspace, these modules included, can be checked there.
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
use admit::{connections, policy};
use cpu::stage_result::StageResult;
use cpu::{scratch, settings};
use message::{fragment, sip};
use packet::{bytes, eth, ip, tcp, udp};

#[xdp(frags)]
fn sipguard(ctx: XdpContext) -> u32 {
    let reason = match inspect(&ctx) {
        Ok(reason) | Err(reason) => reason,
    };
    verdict::emit(&ctx, reason)
}

/// Takes a packet through the stages. `Err` ends early, `Ok` after the last stage; both carry the reason.
#[inline(always)]
fn inspect(ctx: &XdpContext) -> Result<Reason, Reason> {
    StageResult::from_scalar(headers(ctx.ctx)).proceed()?;
    let packet = scratch::packet()?;
    // SAFETY: this CPU's map value; two words.
    let (transport, fragment) = unsafe { ((*packet).transport, (*packet).fragment) };
    if transport != scratch::UDP {
        return stream::decide(ctx);
    }
    if fragment != fragment::WHOLE {
        policy::permit()?;
        return fragment::decide(ctx);
    }
    Ok(StageResult::from_scalar(datagram(ctx.ctx)).final_reason())
}

/// A global function like [`headers`]. Returns a [`StageResult`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn datagram(ctx: *mut xdp_md) -> u32 {
    let judged = policy::permit().and_then(|()| sip::datagram(&XdpContext::new(ctx)));
    StageResult::from(judged).scalar()
}

/// A global function: the kernel verifies it once, independently of its callers, and its stack is free again when it returns. Returns a
/// [`StageResult`]; a packet that continues is for a guarded port and is stored as [`scratch::packet`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn headers(ctx: *mut xdp_md) -> u32 {
    StageResult::from(read_headers(&XdpContext::new(ctx))).scalar()
}

#[inline(always)]
fn read_headers(ctx: &XdpContext) -> Result<(), Reason> {
    let scratch = scratch::begin(bytes::linear_len(ctx))?;
    if settings::is_replay() {
        // SAFETY: this CPU's map value.
        unsafe { (*scratch).now_ns = bytes::time_before(ctx) };
    }
    // SAFETY: this CPU's map value; the functions called below use other fields of it.
    let sender = unsafe { &mut (*scratch).sender };
    let l3 = eth::parse(ctx)?;
    let ip = scratch::record_ip(scratch, ip::parse(ctx, l3)?);
    policy::admit(ip, sender)?;
    let (transport, side) = port::guarded(ctx, ip, sender.trunk)?;
    let l4 = match transport {
        Transport::Udp => udp::parse(ctx, ip, side)?,
        Transport::Fragment => udp::fragment(ip),
        // Before the TCP header is checked: the segment may belong to another service.
        _ if side != port::OWN && !stream::is_awaited(ctx) => return Err(Reason::NotGuarded),
        // Whatever the first fragment lacks can't be judged in order; without it the others can't be put together.
        _ if ip.more_fragments => return Err(Reason::TcpFragment),
        transport => tcp::parse(ctx, ip, transport, side)?,
    };
    scratch::record_packet(scratch, ip, &l4);
    Ok(())
}

/// Observes the packets that the PBX sends.
#[classifier]
#[inline(always)]
fn sipguard_out(ctx: TcContext) -> i32 {
    stream::egress::observe(&ctx)
}

/// Counts open connections. The kernel does not run a tracing program again on a CPU that is already running it (a connection that ends
/// in an interrupt). So there are two programs on the tracepoint, and whichever runs first counts the event.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn sipguard_open(ctx: BtfTracePointContext) -> i32 {
    connections::on_state_change(&ctx)
}

/// The second attachment of [`sipguard_open`].
#[btf_tracepoint(function = "inet_sock_set_state")]
fn sipguard_open_2(ctx: BtfTracePointContext) -> i32 {
    connections::on_state_change(&ctx)
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No panic is reachable. If one were, the verifier would reject the program for this endless loop.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
