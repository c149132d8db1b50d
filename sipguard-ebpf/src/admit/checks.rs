//! Checks that are switched: off, or monitored. A fault behind which it is certain where the message ends takes nothing from the judgement of the
//! rest; after any other one nothing more of the stream is judged until a message begins.

use sipguard_common::Reason;

use crate::cpu::scratch;

/// Refuses a packet for a fault behind which it can be judged further, unless the check is off or monitored. The first fault of a packet whose
/// check is monitored is noted, and becomes its verdict if it passes; from then on its other monitored checks are off.
#[inline(always)]
pub fn refuse(reason: Reason) -> Result<(), Reason> {
    // SAFETY: this CPU's map value.
    let sender = unsafe { &mut *scratch::sender()? };
    let bit = reason.check_bit();
    if sender.checks.off & bit != 0 {
        return Ok(());
    }
    let passing = sender.checks.passing();
    if passing & bit == 0 {
        return Err(reason);
    }
    sender.checks.off |= passing;
    sender.noted = u32::from(reason.number());
    Ok(())
}

/// Whether the check of a reason is monitored.
#[inline(always)]
pub fn is_monitored(reason: Reason) -> bool {
    // SAFETY: this CPU's map value; one word.
    scratch::sender().is_ok_and(|sender| unsafe { (*sender).checks.monitored } & reason.check_bit() != 0)
}
