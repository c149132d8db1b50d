//! `upgrade`: the programs of this build take the place of those that filter.

use anyhow::Result;

use super::{Context, trail};
use crate::notice::Notice;
use crate::store::Counts;
use crate::upgrade;
pub use crate::upgrade::Upgraded;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Each interface that is filtered, by the new program.
    pub interfaces: Vec<Upgraded>,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
}

/// Replaces the programs on all interfaces by those of an object, an ELF file. Rules, settings, connections and counters stay.
///
/// # Errors
/// When nothing is attached, the pins are of another ABI version, or the kernel refuses a program; then the old ones filter on.
pub fn run(host: &Context, object: &[u8]) -> Result<Outcome> {
    let done = upgrade::upgrade(&host.pins, object)?;
    let unfiltered = |name: &String| {
        Notice(format!(
            "nothing is filtered on {name}, which was attached: `sipguard attach {name}` filters it"
        ))
    };
    let mut notices: Vec<Notice> = done.unfiltered.iter().map(unfiltered).collect();
    let what: Vec<String> = done.upgraded.iter().map(|one| one.interface.clone()).collect();
    let counts = Counts { moved: what.len(), ..Counts::default() };
    let entry = trail::Entry { verb: "upgrade", what: &what, reason: "", counts };
    notices.extend(trail::write(host, "upgraded", &entry));
    Ok(Outcome { interfaces: done.upgraded, notices })
}
