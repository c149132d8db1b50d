//! `deny`, `permit` and `list deny`.

use anyhow::Result;
use sipguard_core::denial::DeniedTraffic;
use sipguard_core::ops::denial::{Denial, Listing, Outcome, Request};
use sipguard_core::view::{DenialView, schema, time};

use super::rule::{change, later};
use super::{Format, not_attached, rows};
use crate::table::table;

pub fn changed(format: Format, request: &Request, outcome: &Outcome) -> Result<()> {
    let (did, state) = match request.denied {
        Some(_) => ("denied to", "denied already"),
        None => ("permitted to", "not denied"),
    };
    let done = &outcome.done;
    change(format, &outcome.change, || {
        let joined =
            |all: &[DeniedTraffic]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut text = if done.changed.is_empty() {
            "nothing changed".to_owned()
        } else {
            format!("{did} {}: {}", request.whom.name(), joined(&done.changed))
        };
        for (all, state) in [(&done.same, state), (&done.left, "still denied")] {
            if !all.is_empty() {
                text += &format!("; {state}: {}", joined(all));
            }
        }
        text + later(outcome.change.in_force || done.changed.is_empty())
    })
}

pub fn list(format: Format, listing: &Listing) -> Result<()> {
    let Listing { denials, in_force } = listing;
    not_attached(format, *in_force, "this takes effect");
    let value = |denial: &Denial| DenialView::new(denial, *in_force);
    rows(format, schema::DENIALS, denials.iter().map(value).collect(), || {
        let line = |denial: &Denial| {
            let Denial { whom, what, reason, author, created_ms } = denial;
            vec![whom.name().to_owned(), what.to_string(), author.clone(), time(*created_ms), reason.clone()]
        };
        table(&["FROM", "DENIED", "BY", "SINCE", "COMMENT"], denials.iter().map(line))
    })
}
