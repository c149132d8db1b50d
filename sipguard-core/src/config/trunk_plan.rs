//! What has to change in the trunks. Pure.

use super::difference::{CurrentState, Effect, PlannedOperation, SettingDifference};
use super::tree::path;
use crate::address::Source;
use crate::settings::list;
use crate::store::RECOVERED_TRUNK;
use crate::trunk::TrunkRow;

/// The steps, in an order in which no peer ever has two trunks.
#[derive(Default)]
pub(super) struct TrunkPlan {
    /// For people.
    pub lines: Vec<SettingDifference>,
    /// What makes room.
    pub first: Vec<PlannedOperation>,
    /// What takes it.
    pub last: Vec<PlannedOperation>,
}

impl TrunkPlan {
    fn line(&mut self, name: &str, old: Option<&TrunkRow>, new: Option<&TrunkRow>) {
        let [old, new] = [old, new].map(|trunk| trunk.map_or("none".to_owned(), text));
        self.lines.push(SettingDifference { key: path("trunks", name), old, new, effect: Effect::Reload });
    }

    /// What was named and is named no more.
    pub(super) fn remove(&mut self, has: &CurrentState, gone: &dyn Fn(&str, String) -> bool) {
        for trunk in has.trunks.iter().filter(|trunk| gone("trunk", trunk.name.clone())) {
            self.line(&trunk.name, Some(trunk), None);
            self.first.push(PlannedOperation::RemoveTrunk(trunk.name.clone()));
        }
    }

    /// What was found in the kernel, which knows no names, gives up the peers that have one.
    pub(super) fn rename(&mut self, desired: &[TrunkRow], has: &[TrunkRow]) {
        let named = |name: &String| desired.iter().any(|trunk| trunk.name == *name);
        let of_named = |peer: &Source| desired.iter().any(|trunk| trunk.peers.contains(peer));
        let found = |trunk: &&TrunkRow| trunk.name.starts_with(RECOVERED_TRUNK) && !named(&trunk.name);
        for trunk in has.iter().filter(found) {
            let peers: Vec<Source> = trunk.peers.iter().copied().filter(|peer| !of_named(peer)).collect();
            if peers.len() == trunk.peers.len() {
                continue;
            }
            let left = TrunkRow { peers, ..trunk.clone() };
            if left.peers.is_empty() {
                self.line(&trunk.name, Some(trunk), None);
                self.first.push(PlannedOperation::RemoveTrunk(trunk.name.clone()));
            } else {
                self.line(&trunk.name, Some(trunk), Some(&left));
                self.first.push(PlannedOperation::Trunk(left));
            }
        }
    }

    /// What is named.
    pub(super) fn set(&mut self, desired: &[TrunkRow], has: &[TrunkRow]) {
        for trunk in desired {
            let old = has.iter().find(|old| old.name == trunk.name);
            if old.is_some_and(|old| is(old, trunk)) {
                continue;
            }
            self.line(&trunk.name, old, Some(trunk));
            // A peer that moves to another trunk leaves its own before.
            let moves = |peer: &Source| {
                desired.iter().any(|other| other.name != trunk.name && other.peers.contains(peer))
            };
            if let Some(old) = old.filter(|old| old.peers.iter().any(moves)) {
                let peers = old.peers.iter().copied().filter(|peer| !moves(peer)).collect();
                self.first.push(PlannedOperation::Trunk(TrunkRow { peers, ..old.clone() }));
            }
            self.last.push(PlannedOperation::Trunk(trunk.clone()));
        }
    }
}

fn is(old: &TrunkRow, desired: &TrunkRow) -> bool {
    (&old.peers, old.policy, &old.reason) == (&desired.peers, desired.policy, &desired.reason)
}

/// A trunk in one line.
fn text(trunk: &TrunkRow) -> String {
    let policy = &trunk.policy;
    let mut text = format!("peers {}", list(&trunk.peers));
    for (what, value, usual) in [
        ("transports", policy.transports_text(), "all"),
        ("methods", policy.methods_text(), "all"),
        ("profile", policy.profile.name().to_owned(), "inherit"),
        ("mode", policy.mode.name().to_owned(), "inherit"),
        ("proxy-protocol", policy.proxy_protocol.to_string(), "false"),
        ("reason", trunk.reason.clone(), ""),
    ] {
        if value != usual {
            text += &format!("; {what} {value}");
        }
    }
    text
}
