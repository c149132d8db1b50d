//! What can be wrong with the file itself, and what to tell the operator.

use std::fmt;
use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{Failure, FailureKind};

/// The file is no database, or not a whole one.
#[derive(Debug)]
pub(super) struct Damaged(pub String);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

/// The directory or the file can't be made.
#[derive(Debug)]
pub(super) struct Unwritable(pub std::io::Error);

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unwritable {}

fn code(error: &anyhow::Error) -> Option<ErrorCode> {
    error.chain().find_map(|cause| cause.downcast_ref::<rusqlite::Error>())?.sqlite_error_code()
}

/// Whether the file is to be set aside.
pub(super) fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error + 'static>::is::<Damaged>)
        || matches!(code(error), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Whether it can't be written, and may yet be readable.
pub(super) fn is_unwritable(error: &anyhow::Error) -> bool {
    const CODES: [ErrorCode; 5] = [
        ErrorCode::ReadOnly,
        ErrorCode::CannotOpen,
        ErrorCode::DiskFull,
        ErrorCode::SystemIoFailure,
        ErrorCode::PermissionDenied,
    ];
    error.chain().any(<dyn std::error::Error + 'static>::is::<Unwritable>)
        || code(error).is_some_and(|code| CODES.contains(&code))
}

/// Whether the disk is full.
pub(super) fn is_full(error: &anyhow::Error) -> bool {
    code(error) == Some(ErrorCode::DiskFull)
}

/// Whether the file is another one than that which was opened (SQLITE_READONLY_DBMOVED).
fn is_replaced(error: &anyhow::Error) -> bool {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<rusqlite::Error>());
    matches!(found, Some(rusqlite::Error::SqliteFailure(failure, _)) if failure.extended_code == 1032)
}

/// The sentence for an operator.
pub(super) fn explain(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let path = path.display();
    let text = if is_replaced(&error) {
        format!(
            "the store {path} was replaced meanwhile by another one, which has what the kernel had then. What of a long list was in force already stays: \
             `sipguard list --origin recovered` shows it, `sipguard unblock --all --origin recovered` lifts it"
        )
    } else if is_unwritable(&error) {
        format!(
            "the store {path} can't be written: {error:#}. Nothing was changed, the rules in force stay. Give it room and a place that \
             can be written, or name another one: `--store FILE`"
        )
    } else if matches!(code(&error), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
        format!("the store {path} is held by another process: `fuser {path}` names it. Nothing was changed")
    } else if code(&error).is_some() {
        format!("the store {path}: {error:#}. Nothing was changed")
    } else {
        return error;
    };
    Failure::with(FailureKind::Failed, text)
}
