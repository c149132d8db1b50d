//! Brings the store and the maps to what the configuration says, within one change.

use anyhow::{Context, Result};

use super::Config;
use super::difference::{Act, Difference, Has, difference, named};
use crate::settings::Chosen;
use crate::store::{CONFIGURATION, Change, Rows, Saying, Verb, lines};
use crate::target::Target;

/// Why a user agent is blocked.
const REASON: &str = "the configuration file";

/// What would have to change.
///
/// # Errors
/// When the store can't be read.
pub fn compare(rows: Option<&Rows<'_>>, config: &Config, settings: Option<Chosen>) -> Result<Difference> {
    let mut has = Has { settings, ..Has::default() };
    if let Some(rows) = rows {
        has.trunks = rows.trunks()?;
        has.limits = rows.limits()?;
        has.open = rows.open_limits()?;
        has.bans = rows.ban_rule()?;
        has.agents = rows.agents_of(CONFIGURATION)?;
        has.denials = rows.denials()?;
        has.named = rows.configured()?;
    }
    Ok(difference(config, &has))
}

/// Makes it so. `settings` are those in force, which change with the rules; `None` leaves them to the caller.
///
/// # Errors
/// When a peer is that of a trunk which the configuration does not name, or the store refuses. Then the change is undone.
pub fn bring(change: &mut Change<'_>, config: &Config, settings: Option<Chosen>) -> Result<Difference> {
    let found = compare(Some(&change.rows), config, settings)?;
    for act in &found.acts {
        perform(change, act)?;
    }
    if config.files {
        change.set_configured(&named(config))?;
        change.settings.clone_from(&found.settings);
        change.counts.moved += found.chosen;
        let told: Vec<String> = found.lines.iter().map(ToString::to_string).collect();
        change.record("reload", CONFIGURATION, &[lines(&told)], "")?;
    }
    Ok(found)
}

fn perform(change: &mut Change<'_>, act: &Act) -> Result<()> {
    match act {
        Act::Trunk(row) => change.set_trunk(row).map(|_| ()).with_context(|| {
            let name = &row.name;
            format!("the configuration's trunk {name} (`sipguard trunk remove` takes away one that a command made)")
        }),
        Act::RemoveTrunk(name) => change.remove_trunk(name).map(|_| ()),
        Act::Limit(trunk, kind, (per_second, burst)) => {
            change.set_limit(trunk.as_deref(), *kind, *per_second, *burst)
        }
        Act::ClearLimit(trunk, kind) => change.clear_limits(trunk.as_deref(), Some(*kind)),
        Act::Open(trunk, most) => change.set_open_limit(trunk.as_deref(), *most),
        Act::ClearOpen(trunk) => change.clear_open_limit(trunk.as_deref()),
        Act::Bans(rule) => change.set_ban_rule(rule),
        Act::Block(agent) => {
            let saying = Saying { reason: Some(REASON.to_owned()), ..Saying::new(CONFIGURATION, Verb::Block) };
            change.say(&Target::UserAgent(*agent), &saying)
        }
        Act::Unblock(agent) => {
            change.unsay(&Target::UserAgent(*agent), Verb::Block, Some(CONFIGURATION))
        }
        Act::Deny(whom, what) => change.deny(*whom, &[*what], None).map(|_| ()),
        Act::Permit(whom, what) => change.permit(*whom, &[*what]).map(|_| ()),
    }
}
