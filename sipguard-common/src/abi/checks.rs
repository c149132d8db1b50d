//! Which checks of messages are switched: off, or monitored.

use bytemuck::{Pod, Zeroable};

use crate::Reason;

/// What becomes of faults that are not refused. A check that is in neither set refuses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct CheckSwitches {
    /// The checks that are not made: sets of [`Reason::check_bit`]. None of [`LOSES_FRAMING`].
    pub off: u64,
    /// The checks whose faults are counted and pass. None of `off`.
    pub monitored: u64,
}

/// The checks that can't be switched off, because behind their faults the end of the message is uncertain.
pub const LOSES_FRAMING: u64 = {
    let (mut all, mut at) = (0, 0);
    while at < Reason::COUNT {
        if Reason::ALL[at].loses_framing() {
            all |= Reason::ALL[at].check_bit();
        }
        at += 1;
    }
    all
};

impl CheckSwitches {
    /// Every check refuses.
    pub const NONE: CheckSwitches = CheckSwitches { off: 0, monitored: 0 };

    /// Whether any check does not refuse.
    #[must_use]
    #[inline(always)]
    pub const fn is_any(&self) -> bool {
        self.off | self.monitored != 0
    }

    /// The monitored checks behind whose faults a message can be judged further.
    #[must_use]
    #[inline(always)]
    pub const fn passing(&self) -> u64 {
        self.monitored & !LOSES_FRAMING
    }
}
