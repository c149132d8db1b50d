//! The result of a global function. The verifier allows only scalars there; this module alone knows the encoding.

use sipguard_common::Reason;

/// The packet continues, or the reason with which processing has ended.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StageResult(u32);

impl StageResult {
    /// The packet continues.
    pub const CONTINUE: StageResult = StageResult(u32::MAX);
    /// An internal error.
    pub const INTERNAL: StageResult = StageResult::stop(Reason::Internal);

    /// Processing has ended.
    #[inline(always)]
    pub const fn stop(reason: Reason) -> StageResult {
        StageResult(reason.number() as u32)
    }

    /// Decodes the return value of a global function.
    #[inline(always)]
    pub const fn from_scalar(scalar: u32) -> StageResult {
        StageResult(scalar)
    }

    /// Encodes the return value of a global function.
    #[inline(always)]
    pub const fn scalar(self) -> u32 {
        self.0
    }

    /// The reason, if processing has ended.
    #[inline(always)]
    pub fn reason(self) -> Option<Reason> {
        if self == StageResult::CONTINUE { None } else { Some(self.final_reason()) }
    }

    /// `Ok` when the packet continues.
    #[inline(always)]
    pub fn proceed(self) -> Result<(), Reason> {
        if self == StageResult::CONTINUE { Ok(()) } else { Err(self.final_reason()) }
    }

    /// The reason of a function that always ends processing.
    #[inline(always)]
    pub fn final_reason(self) -> Reason {
        match Reason::from_number(self.0 as u8) {
            Some(reason) => reason,
            None => Reason::Internal,
        }
    }
}

impl From<Result<(), Reason>> for StageResult {
    #[inline(always)]
    fn from(result: Result<(), Reason>) -> StageResult {
        match result {
            Ok(()) => StageResult::CONTINUE,
            Err(reason) => StageResult::stop(reason),
        }
    }
}

/// For a function that always ends processing, early or after its last step.
impl From<Result<Reason, Reason>> for StageResult {
    #[inline(always)]
    fn from(result: Result<Reason, Reason>) -> StageResult {
        match result {
            Ok(reason) | Err(reason) => StageResult::stop(reason),
        }
    }
}

impl From<Option<Reason>> for StageResult {
    #[inline(always)]
    fn from(reason: Option<Reason>) -> StageResult {
        match reason {
            None => StageResult::CONTINUE,
            Some(reason) => StageResult::stop(reason),
        }
    }
}
