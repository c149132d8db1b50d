//! What the operator may order from here, each the same as a verb of the command line.

use std::path::PathBuf;

use sipguard_core::duration::Span;
use sipguard_core::target::Target;

/// How long a capture goes on, in seconds.
pub const CAPTURE_SECS: u32 = 30;

/// An order, after all questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopCommand {
    /// `sipguard block`.
    Block {
        /// Whom.
        target: Target,
        /// For how long.
        span: Span,
        /// Why.
        reason: String,
    },
    /// `sipguard allow`.
    Allow {
        /// Whom.
        target: Target,
        /// For how long.
        span: Span,
        /// Why.
        reason: String,
    },
    /// `sipguard unblock`.
    Unblock(Target),
    /// `sipguard unallow`.
    Unallow(Target),
    /// `sipguard capture`, for [`CAPTURE_SECS`].
    Capture {
        /// Whose packets.
        target: Target,
        /// Where they go.
        file: PathBuf,
    },
}

impl TopCommand {
    /// Whom it is about.
    #[must_use]
    pub fn target(&self) -> Target {
        match self {
            TopCommand::Block { target, .. }
            | TopCommand::Allow { target, .. }
            | TopCommand::Capture { target, .. } => *target,
            TopCommand::Unblock(target) | TopCommand::Unallow(target) => *target,
        }
    }
}
