//! `detach`: the guard is taken off interfaces.

use anyhow::Result;

use super::{Context, trail};
use crate::detach;
use crate::error::{Failure, FailureKind};
use crate::notice::Notice;
use crate::presence::{iface_name, own_slots};
use crate::store::Counts;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The interfaces that are free now.
    pub interfaces: Vec<String>,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
}

/// What to say to who names nothing: what there is to be named.
fn unnamed(host: &Context) -> String {
    let slots = host.pins.check().and_then(|()| own_slots(&host.pins)).unwrap_or_default();
    let names: Vec<String> = slots.iter().map(|(_, iface)| iface_name(iface)).collect();
    if names.is_empty() {
        return "detach from what? Nothing is attached; `--all` removes what another version left".to_owned();
    }
    format!("detach from what? It is attached to: {}; `--all` is every interface", names.join(", "))
}

/// Detaches the named interfaces, or with `None` all of them, also those of a guard of another version.
///
/// # Errors
/// When no name is given, a name is not attached, or the kernel refuses.
pub fn run(host: &Context, names: Option<&[String]>) -> Result<Outcome> {
    if names.is_some_and(<[String]>::is_empty) {
        return Err(Failure::with(FailureKind::Usage, unnamed(host)));
    }
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
