//! Turns a reason into an XDP action, counted once. No other module names an XDP action.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{ACTION_DROP, Outcome, Settings};
use sipguard_common::{Class, Reason};

use super::reset;
use crate::admit::{ban, checks, policy};
use crate::cpu::scratch::{self, CUT, Scratch};
use crate::cpu::settings;
use crate::cpu::stage_result::StageResult;
use crate::observe::{count, offender, points};

/// Counts the packet and returns the XDP action; in a replay with the verdict above it.
#[inline(always)]
pub fn emit(ctx: &XdpContext, reason: Reason) -> u32 {
    let action = counted(ctx, reason);
    if settings::is_replay() { action | scratch::reported() } else { action }
}

#[inline(always)]
fn counted(ctx: &XdpContext, reason: Reason) -> u32 {
    let mut result = StageResult::stop(reason).scalar();
    if reason.class() == Class::Pass {
        let Ok(scratch) = scratch::get() else { return xdp_action::XDP_PASS };
        // SAFETY: this CPU's map value; one word.
        let noted = unsafe { (*scratch).sender.noted };
        if noted == 0 || reason == Reason::Internal {
            points::passed(ctx, scratch, reason);
            count::packet(scratch, reason, Outcome::Plain);
            return xdp_action::XDP_PASS;
        }
        result = noted;
    }
    verdict_emit(ctx.ctx, result)
}

/// A global function: verified once, independently of its caller. Takes a [`StageResult`], returns an XDP action.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn verdict_emit(ctx: *mut xdp_md, result: u32) -> u32 {
    decide(&XdpContext::new(ctx), StageResult::from_scalar(result).final_reason())
}

#[inline(always)]
fn decide(ctx: &XdpContext, reason: Reason) -> u32 {
    let class = reason.class();
    let (Ok(settings), Ok(scratch)) = (settings::get(), scratch::get()) else { return xdp_action::XDP_PASS };
    let only_counts = checks::is_monitored(reason);
    let monitor = only_counts || policy::is_monitored();
    let resets = resets(scratch, settings, reason);
    let limited = reason.is_limit();
    if class == Class::Malformed || limited {
        offender::record(ctx, reason, limited, monitor);
        if class == Class::Malformed && !reason.is_too_large() && !only_counts {
            ban::record(ctx, settings, reason);
        }
    }
    // Before the frame is rewritten.
    points::stopped(ctx, scratch, settings, reason, Outcome::new(resets, monitor));
    let reset = resets && (monitor || reset::rewrite(ctx).is_ok());
    count::packet(scratch, reason, Outcome::new(reset, monitor));
    if reset || monitor { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// Whether a packet with this reason is stopped by a reset of its connection. Never for a datagram.
#[inline(always)]
pub fn resets(scratch: *mut Scratch, settings: &Settings, reason: Reason) -> bool {
    // SAFETY: this CPU's map value. A packet with such a reason, or of such a sender, is parsed.
    let (client, transport) = unsafe { ((*scratch).sender.client, (*scratch).packet.transport) };
    let ends = matches!(reason.class(), Class::Malformed | Class::Reset) || client & CUT != 0;
    ends && settings.action != ACTION_DROP && transport != scratch::UDP
}
