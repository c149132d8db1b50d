//! `reload`.

use anyhow::Result;
use serde::Serialize;
use sipguard_core::config::DEFAULT_FILE;
use sipguard_core::ops::reload::{Effect, Outcome, SettingDifference};

use super::rule::later;
use super::{Format, notices, object, plural};

/// What a reload changed or would change.
#[derive(Serialize)]
struct ReloadDocument<'a> {
    rows: Vec<SettingRow<'a>>,
    changed: bool,
    dry_run: bool,
    in_force: bool,
}

/// A setting that is another one.
#[derive(Serialize)]
struct SettingRow<'a> {
    key: &'a str,
    old: &'a str,
    new: &'a str,
    /// `now`, `next attach` or `new attach`.
    takes_effect: &'static str,
}

pub fn reload(format: Format, outcome: &Outcome, dry_run: bool) -> Result<()> {
    let Outcome { files, lines, in_force, .. } = outcome;
    notices(&outcome.notices);
    let count = lines.iter().filter(|line| line.effect == Effect::Reload).count();
    let row = |line| setting_row(line, *in_force);
    let document = ReloadDocument {
        rows: lines.iter().map(row).collect(),
        changed: count > 0 && !dry_run,
        dry_run,
        in_force: *in_force,
    };
    object(format, "sipguard.reload/1", &document, || {
        if !files {
            return format!("there is no {DEFAULT_FILE}: nothing to do\n");
        }
        let mut text = String::new();
        for line in lines {
            let note = match line.effect {
                Effect::Reload => "",
                Effect::NewAttach => " (takes a new attach: `sipguard detach`, then `sipguard attach`)",
            };
            text += &format!("{line}{note}\n");
        }
        text + &match (count, dry_run) {
            (0, _) => "nothing changes, all is as the configuration says\n".to_owned(),
            (count, true) => format!("{} would change, nothing was changed\n", plural(count, "setting")),
            (count, false) => format!("changed {}{}\n", plural(count, "setting"), later(*in_force)),
        }
    })
}

fn setting_row(line: &SettingDifference, in_force: bool) -> SettingRow<'_> {
    let takes_effect = match (line.effect, in_force) {
        (Effect::NewAttach, _) => "new attach",
        (Effect::Reload, true) => "now",
        (Effect::Reload, false) => "next attach",
    };
    SettingRow { key: &line.key, old: &line.old, new: &line.new, takes_effect }
}
