//! `log`: who changed what, and when.

use anyhow::Result;

use super::Context;
pub use crate::store::AuditRecord;

/// The last `count` rows of the log, the oldest first; of one origin or of all.
///
/// # Errors
/// When the store can't be read.
pub fn run(host: &Context, count: usize, origin: Option<&str>) -> Result<Vec<AuditRecord>> {
    Ok(host.read(|rows| rows.trail(count, origin))?.unwrap_or_default())
}
