//! Applies the configuration to the store and the maps, within one change.

use anyhow::{Context, Result};

use super::Config;
use super::difference::{CurrentState, Difference, PlannedOperation, difference, named};
use crate::rule::RuleVerb;
use crate::settings::EffectiveSettings;
use crate::store::{CONFIGURATION, Change, RuleSpec, StoreTables, lines};
use crate::target::Target;

/// Why a user agent is blocked.
const REASON: &str = "the configuration file";

/// What would have to change.
pub fn compare(
    rows: Option<&StoreTables<'_>>,
    config: &Config,
    settings: Option<EffectiveSettings>,
) -> Result<Difference> {
    let mut has = CurrentState { settings, ..CurrentState::default() };
    if let Some(rows) = rows {
        has.trunks = rows.trunks()?;
        has.limits = rows.limits()?;
        has.at_once = rows.at_once_limits()?;
        has.checks = rows.switches()?;
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
pub fn apply(
    change: &mut Change<'_>,
    config: &Config,
    settings: Option<EffectiveSettings>,
) -> Result<Difference> {
    let found = compare(Some(&change.rows), config, settings)?;
    for operation in &found.operations {
        perform(change, operation)?;
    }
    if config.files {
        change.set_configured(&named(config))?;
        change.settings.clone_from(&found.settings);
        change.counts.moved += found.settings_changed;
        let told: Vec<String> = found.lines.iter().map(ToString::to_string).collect();
        change.record("reload", CONFIGURATION, &[lines(&told)], "")?;
    }
    Ok(found)
}

fn perform(change: &mut Change<'_>, operation: &PlannedOperation) -> Result<()> {
    match operation {
        PlannedOperation::Trunk(row) => change.set_trunk(row).map(|_| ()).with_context(|| {
            let name = &row.name;
            format!("the configuration's trunk {name} (`sipguard trunk remove` takes away one that a command made)")
        }),
        PlannedOperation::RemoveTrunk(name) => change.remove_trunk(name).map(|_| ()),
        PlannedOperation::Limit(trunk, kind, limit) => change.set_limit(trunk.as_deref(), *kind, *limit),
        PlannedOperation::ClearLimit(trunk, kind) => change.clear_limits(trunk.as_deref(), Some(*kind)),
        PlannedOperation::AtOnce(trunk, kind, limit) => change.set_at_once(trunk.as_deref(), *kind, *limit),
        PlannedOperation::ClearAtOnce(trunk, kind) => change.clear_at_once(trunk.as_deref(), *kind),
        PlannedOperation::Check(switch) => change.set_check(switch),
        PlannedOperation::ClearCheck(scope, reason) => change.clear_checks(scope, Some(*reason)),
        PlannedOperation::Bans(rule) => change.set_ban_rule(rule),
        PlannedOperation::Block(agent) => {
            let spec = RuleSpec { reason: Some(REASON.to_owned()), ..RuleSpec::new(CONFIGURATION, RuleVerb::Block) };
            change.upsert(&Target::UserAgent(*agent), &spec)
        }
        PlannedOperation::Unblock(agent) => {
            change.retract(&Target::UserAgent(*agent), RuleVerb::Block, Some(CONFIGURATION))
        }
        PlannedOperation::Deny(whom, what) => change.deny(*whom, &[*what], None).map(|_| ()),
        PlannedOperation::Permit(whom, what) => change.permit(*whom, &[*what]).map(|_| ()),
    }
}
