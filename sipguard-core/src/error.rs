//! Failures, each of a kind that a caller can act upon.

use std::fmt;

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It did not work.
    Failed,
    /// The request contradicts itself, or names what there is not.
    Usage,
    /// No interface is attached.
    NotAttached,
    /// Privileges are missing.
    Privilege,
    /// The kernel or the driver can't.
    Kernel,
    /// The configuration is invalid.
    Configuration,
    /// It is done, with the last good configuration instead of an invalid one.
    LastGood,
    /// An interface that was attached is not there now; all that are there are filtered.
    Absent,
    /// A capture was judged, and something of it would be stopped.
    WouldStop,
    /// Somebody was asked about, and is stopped by a rule or a ban.
    Stopped,
}

/// A failure that says what is wrong, where, and what would fix it.
#[derive(Debug)]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    text: String,
}

impl Failure {
    /// A failure with its text, as an `anyhow` error.
    pub fn with(kind: FailureKind, text: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Failure { kind, text: text.into() })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The kind of an error: that of the first [`Failure`] in its chain, or [`FailureKind::Failed`].
#[must_use]
pub fn kind_of(error: &anyhow::Error) -> FailureKind {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(FailureKind::Failed, |failure| failure.kind)
}
