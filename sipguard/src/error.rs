//! Failures with their exit status.

use std::fmt;

/// Exit statuses of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// It did not work.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No interface is attached.
    NotAttached = 3,
    /// Privileges are missing.
    Privilege = 4,
    /// The kernel or the driver can't.
    Kernel = 5,
    /// The configuration is invalid.
    Configuration = 6,
    /// It is done, with the last good configuration instead of an invalid one.
    LastGood = 7,
}

/// A failure that says what is wrong, where, and what would mend it.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: Status,
    text: String,
}

impl Failure {
    /// A failure with its text, as an `anyhow` error.
    pub fn with(status: Status, text: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Failure { status, text: text.into() })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The exit status of an error: that of its [`Failure`], or [`Status::Failed`].
#[must_use]
pub fn status_of(error: &anyhow::Error) -> Status {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(Status::Failed, |failure| failure.status)
}
