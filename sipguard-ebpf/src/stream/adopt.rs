//! How a payload begins on a connection whose place in the stream is not known.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::framer::{leading_line_ends, plausible_record, plausible_start};

use crate::cpu::scratch::{self, Packet};
use crate::packet::bytes;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With a message, maybe behind keep-alives; on a TLS port with a record.
    Message,
    /// It is nothing but CR and LF, a keep-alive or the end of a line: no harm, and no sign of where the stream is.
    LineEnds,
    /// Neither.
    Other,
}

/// Judges the packet's new bytes by the first of them.
#[inline(always)]
pub fn beginning_of(ctx: &XdpContext, packet: &Packet) -> Beginning {
    if packet.transport == scratch::TLS {
        return record(ctx.ctx, packet.new_at, packet.new_len);
    }
    message(ctx.ctx, packet.new_at, packet.new_len)
}

/// CR and LF alone are no start: they may be the middle of a message. A function of its own for the stack's sake.
#[inline(never)]
fn message(ctx: *mut xdp_md, at: u32, len: u32) -> Beginning {
    let ctx = &XdpContext::new(ctx);
    let Some(head) = bytes::head(ctx, at, len) else { return Beginning::Other };
    let ends = leading_line_ends(head);
    if ends >= len {
        return Beginning::LineEnds;
    }
    match bytes::head(ctx, at + ends, len - ends) {
        Some(behind) if plausible_start(behind) => Beginning::Message,
        _ => Beginning::Other,
    }
}

/// A function of its own for the stack's sake.
#[inline(never)]
fn record(ctx: *mut xdp_md, at: u32, len: u32) -> Beginning {
    match bytes::head(&XdpContext::new(ctx), at, len) {
        Some(head) if len >= 5 && plausible_record(head) => Beginning::Message,
        _ => Beginning::Other,
    }
}
