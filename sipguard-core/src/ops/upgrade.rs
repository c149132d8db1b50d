//! `upgrade`: the programs of this build take the place of those that filter.

use anyhow::Result;

use super::{Context, trail};
use crate::layouts::{self, Anew};
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

/// Replaces the programs on all interfaces by those of an object, an ELF file. Rules, settings, connections and counters stay, but for what
/// is in maps that this build has otherwise, of which a notice tells.
///
/// # Errors
/// When nothing is attached, a map can't be kept nor begun anew, or the kernel refuses a program; then the old ones filter on.
pub fn run(host: &Context, object: &[u8]) -> Result<Outcome> {
    let done = upgrade::upgrade(&host.pins, &host.store, object)?;
    let unfiltered = |name: &String| {
        Notice(format!(
            "nothing is filtered on {name}, which was attached: `sipguard attach {name}` filters it"
        ))
    };
    let mut notices: Vec<Notice> = done.unfiltered.iter().map(unfiltered).collect();
    notices.extend(lost(&done.anew));
    let what: Vec<String> = done.upgraded.iter().map(|one| one.interface.clone()).collect();
    let counts = Counts { moved: what.len(), ..Counts::default() };
    let entry = trail::Entry { verb: "upgrade", what: &what, reason: "", counts };
    notices.extend(trail::write(host, "upgraded", &entry));
    Ok(Outcome { interfaces: done.upgraded, notices })
}

/// What went with the maps that were begun anew.
fn lost(anew: &[&str]) -> Option<Notice> {
    let mut lost: Vec<&str> = Vec::new();
    for name in anew {
        let text = match layouts::anew(name) {
            Anew::Lost(text) => text,
            Anew::Filled => "what rules had counted, and the rules are as the store has them",
            Anew::Never => "",
        };
        if !text.is_empty() && !lost.contains(&text) {
            lost.push(text);
        }
    }
    let text =
        format!("this build keeps some of it otherwise, so these were begun anew: {}", lost.join("; "));
    (!lost.is_empty()).then_some(Notice(text))
}
