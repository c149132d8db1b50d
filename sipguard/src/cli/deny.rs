//! `sipguard deny` and `sipguard permit`: what trunks, or devices, may not send.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::usage;
use crate::denial::{DeniedTraffic, Whom};
use crate::output::{Format, object, rows, table};
use crate::pins::Pins;
use crate::store::{self, Changed, Counts, Denial, DenialChange, OPERATOR, change, parse_reason};
use crate::view::{self, DenialView, schema, time};

#[derive(Debug, clap::Args)]
pub struct DenyArgs {
    /// A transport (tcp, tls, udp), a method (REGISTER: over TCP and UDP), or a method over a transport (REGISTER/tcp); without one,
    /// what is denied is shown
    #[arg(value_name = "TRANSPORT|METHOD[/TRANSPORT]", requires = "from")]
    what: Vec<String>,

    /// Who may not send it: trunks, or devices (whoever is no trunk)
    #[arg(long, value_name = "trunks|devices", value_parser = Whom::parse, requires = "what")]
    from: Option<Whom>,

    /// Why, for `list deny`
    #[arg(long, value_name = "TEXT", value_parser = parse_reason, requires = "what")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct PermitArgs {
    /// What was denied, written as for `deny`
    #[arg(required = true, value_name = "TRANSPORT|METHOD[/TRANSPORT]")]
    what: Vec<String>,

    /// Who may send it: trunks, or devices (whoever is no trunk)
    #[arg(long, value_name = "trunks|devices", value_parser = Whom::parse)]
    from: Whom,
}

pub fn deny(pins: &Pins, path: &Path, format: Format, args: &DenyArgs) -> Result<()> {
    let Some(whom) = args.from else { return show(pins, path, format) };
    let what = parse(&args.what)?;
    let reason = args.reason.as_deref();
    let done = change(path, pins, |change| {
        let done = change.deny(whom, &what, reason)?;
        change.record("deny", OPERATOR, &trail(&done, whom), reason.unwrap_or_default())?;
        Ok((done, change.counts))
    })?;
    report(format, &done, whom, "denied to", "denied already")
}

pub fn permit(pins: &Pins, path: &Path, format: Format, args: &PermitArgs) -> Result<()> {
    let what = parse(&args.what)?;
    let done = change(path, pins, |change| {
        let done = change.permit(args.from, &what)?;
        change.record("permit", OPERATOR, &trail(&done, args.from), "")?;
        Ok((done, change.counts))
    })?;
    report(format, &done, args.from, "permitted to", "not denied")
}

/// Shows what is denied.
pub fn show(pins: &Pins, path: &Path, format: Format) -> Result<()> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let denials = store::read(path, |rows| rows.denials())?.unwrap_or_default();
    let in_force = pins.are_attached();
    if format == Format::Table && !in_force {
        eprintln!("sipguard: not attached: this takes effect with the next `sipguard attach`");
    }
    let value = |denial: &Denial| view::json(&DenialView::new(denial, in_force));
    rows(format, schema::DENIALS, denials.iter().map(value).collect(), || {
        let line = |denial: &Denial| {
            let Denial { whom, what, reason, author, created_ms } = denial;
            vec![whom.name().to_owned(), what.to_string(), author.clone(), time(*created_ms), reason.clone()]
        };
        table(&["FROM", "DENIED", "BY", "SINCE", "REASON"], denials.iter().map(line))
    })
}

fn parse(words: &[String]) -> Result<Vec<DeniedTraffic>> {
    let mut all: Vec<DeniedTraffic> = Vec::new();
    for word in words {
        for what in DeniedTraffic::parse(word).map_err(usage)? {
            if !all.iter().any(|one| one.to_string() == what.to_string()) {
                all.push(what);
            }
        }
    }
    Ok(all)
}

/// What the trail names.
fn trail(done: &DenialChange, whom: Whom) -> Vec<String> {
    done.changed.iter().map(|what| format!("{what} from {}", whom.name())).collect()
}

fn report(
    format: Format,
    done: &Changed<(DenialChange, Counts)>,
    whom: Whom,
    did: &str,
    state: &str,
) -> Result<()> {
    let (what, counts) = &done.value;
    let value = json!({
        "added": counts.added, "moved": counts.moved, "removed": counts.removed, "unchanged": counts.same,
        "in_force": done.in_force,
    });
    object(format, "sipguard.change/1", value, || {
        let joined =
            |all: &[DeniedTraffic]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut text = if what.changed.is_empty() {
            "nothing changed".to_owned()
        } else {
            format!("{did} {}: {}", whom.name(), joined(&what.changed))
        };
        for (all, state) in [(&what.same, state), (&what.left, "still denied")] {
            if !all.is_empty() {
                text += &format!("; {state}: {}", joined(all));
            }
        }
        if !done.in_force && !what.changed.is_empty() {
            text += "; not attached: takes effect with the next `sipguard attach`";
        }
        text + "\n"
    })
}
