//! Mid-stream pickup: whether the payload of a connection whose position in the stream is unknown begins at a sync point.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::framer::{leading_line_ends, plausible_record, plausible_start};

use crate::cpu::scratch::{self, Packet};
use crate::packet::bytes;

/// How a payload begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PayloadStart {
    /// At a sync point: with a message, perhaps behind keep-alives; on a TLS port with a record.
    Message,
    /// Only CR and LF, a keep-alive or the end of a line: harmless, and no sync point.
    LineEnds,
    /// Neither.
    Other,
}

/// Classifies the packet's new bytes by the first of them.
#[inline(always)]
pub fn payload_start(ctx: &XdpContext, packet: &Packet) -> PayloadStart {
    if packet.transport == scratch::TLS {
        return record(ctx.ctx, packet.new_at, packet.new_len);
    }
    message(ctx.ctx, packet.new_at, packet.new_len)
}

/// CR and LF alone are no sync point: they may be in the middle of a message.
// own frame: 64 bytes
#[inline(never)]
fn message(ctx: *mut xdp_md, at: u32, len: u32) -> PayloadStart {
    let ctx = &XdpContext::new(ctx);
    let Some(head) = bytes::head(ctx, at, len) else { return PayloadStart::Other };
    let ends = leading_line_ends(head);
    if ends >= len {
        return PayloadStart::LineEnds;
    }
    match bytes::head(ctx, at + ends, len - ends) {
        Some(behind) if plausible_start(behind) => PayloadStart::Message,
        _ => PayloadStart::Other,
    }
}

// own frame: 32 bytes
#[inline(never)]
fn record(ctx: *mut xdp_md, at: u32, len: u32) -> PayloadStart {
    match bytes::head(&XdpContext::new(ctx), at, len) {
        Some(head) if len >= 5 && plausible_record(head) => PayloadStart::Message,
        _ => PayloadStart::Other,
    }
}
