//! `detach`: the guard is taken off interfaces.

use anyhow::Result;

use super::{Context, trail};
use crate::detach;
use crate::notice::Notice;
use crate::store::Counts;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The interfaces that are free now.
    pub interfaces: Vec<String>,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
}

/// Detaches the named interfaces, or with `None` all of them, also those of a guard of another version.
///
/// # Errors
/// When a name is not attached, or the kernel refuses.
pub fn run(host: &Context, names: Option<&[String]>) -> Result<Outcome> {
    let mut notices = Vec::new();
    if host.is_attached() && host.pins.check().is_ok() {
        // The bans go with the maps. Whatever is wrong with the store, it must not keep the guard attached.
        if let Err(error) = host.change(|_| Ok(())) {
            notices.push(Notice(format!("the bans in force are not kept: {error:#}")));
        }
    }
    let gone = detach::detach(&host.pins, names)?;
    let counts = Counts { removed: gone.len(), ..Counts::default() };
    let entry = trail::Entry { verb: "detach", what: &gone, reason: "", counts };
    notices.extend(trail::write(host, &format!("detached from {}", gone.join(", ")), &entry));
    Ok(Outcome { interfaces: gone, notices })
}
