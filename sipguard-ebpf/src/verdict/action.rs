//! The only room that names an XDP action: reason in, action out, counted once.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{ACTION_DROP, Outcome, Settings};
use sipguard_common::{Class, Reason};

use super::reset;
use crate::admit::{ban, policy};
use crate::cpu::ending::Ending;
use crate::cpu::scratch::{self, Scratch};
use crate::cpu::settings;
use crate::observe::{count, offender, tap};

/// Counts the packet and says what becomes of it.
#[inline(always)]
pub fn act(ctx: &XdpContext, reason: Reason) -> u32 {
    let action = counted(ctx, reason);
    if settings::is_replay() { action | scratch::told() } else { action }
}

#[inline(always)]
fn counted(ctx: &XdpContext, reason: Reason) -> u32 {
    if reason.class() == Class::Pass {
        if let Ok(scratch) = scratch::get() {
            tap::passed(ctx, scratch, reason);
            count::packet(scratch, reason, Outcome::Plain);
        }
        return xdp_action::XDP_PASS;
    }
    verdict_act(ctx.ctx, Ending::with(reason).scalar())
}

/// A global function: the verifier looks at it once, and its stack is its own. Takes an [`Ending`], returns an XDP action.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn verdict_act(ctx: *mut xdp_md, ending: u32) -> u32 {
    decide(&XdpContext::new(ctx), Ending::of(ending).end())
}

#[inline(always)]
fn decide(ctx: &XdpContext, reason: Reason) -> u32 {
    let class = reason.class();
    let (Ok(settings), Ok(scratch)) = (settings::get(), scratch::get()) else { return xdp_action::XDP_PASS };
    let monitor = policy::is_monitored();
    let resets = resets(scratch, settings, reason);
    if class == Class::Malformed {
        offender::note(ctx, reason);
        ban::note(ctx, settings, reason);
    }
    // Before the frame is changed.
    tap::stopped(ctx, scratch, settings, reason, Outcome::new(resets, monitor));
    let reset = resets && (monitor || reset::rewrite(ctx).is_ok());
    count::packet(scratch, reason, Outcome::new(reset, monitor));
    if reset || monitor { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// Whether such a packet is stopped by a reset of its connection, which a datagram has none of.
#[inline(always)]
pub fn resets(scratch: *mut Scratch, settings: &Settings, reason: Reason) -> bool {
    let ends = matches!(reason.class(), Class::Malformed | Class::Reset);
    // SAFETY: this CPU's map value. What ends for such a reason is a packet that is known.
    ends && settings.action != ACTION_DROP && unsafe { (*scratch).packet.transport } != scratch::UDP
}
