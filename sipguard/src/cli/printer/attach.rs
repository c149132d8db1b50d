//! `attach`, `upgrade` and `detach`.

use anyhow::Result;
use serde::Serialize;
use sipguard_core::container::{self, ContainerName};
use sipguard_core::ops::attach::{Attached, KeptRules, Outcome};
use sipguard_core::ops::{detach, upgrade};

use super::{Format, notices, plural, rows};

/// An interface to which the guard is attached.
#[derive(Serialize)]
struct AttachedRow<'a> {
    interface: &'a str,
    /// The container whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'static str>,
    /// `native` or `generic`.
    mode: &'static str,
    /// Whether it is new, or the settings changed.
    changed: bool,
    /// `enforce` or `monitor`.
    guard_mode: &'static str,
}

/// An interface on which another program filters now.
#[derive(Serialize)]
struct UpgradedRow {
    interface: String,
    /// The kernel's number of the program that filtered before.
    program_id_before: u32,
    program_id: u32,
}

/// An interface from which the guard was detached.
#[derive(Serialize)]
struct DetachedRow<'a> {
    interface: &'a str,
    changed: bool,
}

pub fn attached(format: Format, outcome: &Outcome) -> Result<()> {
    notices(&outcome.notices);
    let changed = outcome.settings_changed;
    rows(
        format,
        "sipguard.attach/1",
        outcome.interfaces.iter().map(|one| row(one, outcome)).collect(),
        || {
            let mut text: String = outcome.interfaces.iter().map(|one| sentence(one, changed)).collect();
            text.extend(outcome.restored.as_ref().and_then(restored));
            if outcome.mode == "monitor" {
                text += "the mode is monitor: nothing is stopped, what would be is counted; `sipguard mode enforce` stops it\n";
            }
            if changed {
                text += "the settings changed for all interfaces:\n";
                text.extend(outcome.settings.iter().map(|line| format!("  {line}\n")));
            }
            text
        },
    )
}

/// What the store brought back; nothing where it had nothing.
fn restored(kept: &KeptRules) -> Option<String> {
    let blocks = usize::try_from(kept.blocks).unwrap_or(0);
    let all = [(blocks, "block"), (kept.allowances, "allowance"), (kept.trunks.len(), "trunk")];
    let all = all.into_iter().filter(|(count, _)| *count > 0).map(|(count, thing)| plural(count, thing));
    let all: Vec<String> = all.collect();
    (!all.is_empty()).then(|| format!("in force again from the store: {}\n", all.join(", ")))
}

fn row<'a>(one: &'a Attached, outcome: &Outcome) -> AttachedRow<'a> {
    AttachedRow {
        interface: &one.name,
        container: container::chosen().map(ContainerName::label),
        mode: one.xdp_mode(),
        changed: one.new || outcome.settings_changed,
        guard_mode: outcome.mode,
    }
}

fn sentence(one: &Attached, settings_changed: bool) -> String {
    let name = format!("{}{}", one.name, container::of());
    if !one.new {
        let unchanged = if settings_changed { "" } else { ", nothing changed" };
        return format!("{name}: attached already{unchanged}\n");
    }
    let why = if one.native_errno != 0 {
        " (its driver can't run XDP natively; `sipguard status` says why)"
    } else {
        ""
    };
    format!("{name}: attached in {} mode{why}\n", one.xdp_mode())
}

pub fn upgraded(format: Format, outcome: &upgrade::Outcome) -> Result<()> {
    notices(&outcome.notices);
    let value = |one: &'_ upgrade::Upgraded| UpgradedRow {
        interface: one.interface.clone(),
        program_id_before: one.before,
        program_id: one.after,
    };
    rows(format, "sipguard.upgrade/1", outcome.interfaces.iter().map(value).collect(), || {
        let line = |one: &upgrade::Upgraded| {
            format!("{}: program {} filters in the place of {}\n", one.interface, one.after, one.before)
        };
        let lines: String = outcome.interfaces.iter().map(line).collect();
        format!(
            "sipguard {} filters now; connections, counters and rules go on\n{lines}",
            env!("CARGO_PKG_VERSION")
        )
    })
}

pub fn detached(format: Format, outcome: &detach::Outcome) -> Result<()> {
    notices(&outcome.notices);
    let gone = &outcome.interfaces;
    let values = gone.iter().map(|name| DetachedRow { interface: name, changed: true }).collect();
    rows(format, "sipguard.detach/1", values, || {
        gone.iter().map(|name| format!("{name}{}: detached\n", container::of())).collect()
    })
}
