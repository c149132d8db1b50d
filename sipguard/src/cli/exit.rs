//! Exit statuses of the command line.

use std::process::ExitCode;

use sipguard_core::error::FailureKind;

/// The list at the end of `--help`.
pub const HELP: &str = "Exit status: 0 done or nothing to do, 1 failed, \
2 usage, or a trunk that there is not, 3 not attached, 4 privileges missing, \
5 kernel or driver can't, \
6 configuration invalid, 7 done with the last good configuration, for the present one is invalid, 8 replayed, and something would be stopped, \
9 attached, and an interface is not there now, 10 `lookup --exit-code`: stopped by a rule or a ban. Where several hold, of `status` 3 wins over 9, and of `replay` 1 over 8, since what could not \
be judged may have more of it; a command line that can't be read, or that this build can't do, is told before privileges that are missing, \
and these before whatever else.";

/// The exit status of a failure.
pub fn code(kind: FailureKind) -> ExitCode {
    ExitCode::from(match kind {
        FailureKind::Failed => 1,
        FailureKind::Usage => 2,
        FailureKind::NotAttached => 3,
        FailureKind::Privilege => 4,
        FailureKind::Kernel => 5,
        FailureKind::Configuration => 6,
        FailureKind::LastGood => 7,
        FailureKind::WouldStop => 8,
        FailureKind::Absent => 9,
        FailureKind::Stopped => 10,
    })
}
