//! How a global function ends. It returns a scalar, for the verifier wants no other; here is what that says, and nowhere else.

use sipguard_common::Reason;

/// That the packet goes on, or the reason with which its way has ended.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ending(u32);

impl Ending {
    /// The packet goes on.
    pub const ON: Ending = Ending(u32::MAX);
    /// The guard could not do its work.
    pub const INTERNAL: Ending = Ending::with(Reason::Internal);

    /// The way has ended.
    #[inline(always)]
    pub const fn with(reason: Reason) -> Ending {
        Ending(reason.number() as u32)
    }

    /// What a global function returned.
    #[inline(always)]
    pub const fn of(scalar: u32) -> Ending {
        Ending(scalar)
    }

    /// What a global function returns.
    #[inline(always)]
    pub const fn scalar(self) -> u32 {
        self.0
    }

    /// The reason, if the way has ended.
    #[inline(always)]
    pub fn reason(self) -> Option<Reason> {
        if self == Ending::ON { None } else { Some(self.end()) }
    }

    /// `Ok` when the packet goes on.
    #[inline(always)]
    pub fn go_on(self) -> Result<(), Reason> {
        if self == Ending::ON { Ok(()) } else { Err(self.end()) }
    }

    /// The reason of a function that always ends the way.
    #[inline(always)]
    pub fn end(self) -> Reason {
        match Reason::from_number(self.0 as u8) {
            Some(reason) => reason,
            None => Reason::Internal,
        }
    }
}

impl From<Result<(), Reason>> for Ending {
    #[inline(always)]
    fn from(result: Result<(), Reason>) -> Ending {
        match result {
            Ok(()) => Ending::ON,
            Err(reason) => Ending::with(reason),
        }
    }
}

/// Of a function that always ends the way, early or at its end.
impl From<Result<Reason, Reason>> for Ending {
    #[inline(always)]
    fn from(result: Result<Reason, Reason>) -> Ending {
        match result {
            Ok(reason) | Err(reason) => Ending::with(reason),
        }
    }
}

impl From<Option<Reason>> for Ending {
    #[inline(always)]
    fn from(reason: Option<Reason>) -> Ending {
        match reason {
            None => Ending::ON,
            Some(reason) => Ending::with(reason),
        }
    }
}
