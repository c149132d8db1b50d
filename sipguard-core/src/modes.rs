//! Whose mode is monitor, so that whatever is set for somebody only counts. Pure.

use crate::check::CheckScope;
use crate::named::named;
use crate::trunk::TrunkMode;

/// Whose mode it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitoredBy {
    /// That of the guard.
    Guard,
    /// That of the trunk.
    Trunk,
}

named!(MonitoredBy { Guard = "guard", Trunk = "trunk" });

/// The modes of the guard and of the trunks.
#[derive(Clone, Debug, Default)]
pub struct Modes {
    /// Whether the guard only counts; false where nothing is attached.
    pub guard_monitors: bool,
    /// The trunks.
    pub trunks: Vec<(String, TrunkMode)>,
}

impl Modes {
    /// Whose mode lets pass what is to be stopped of somebody; of everybody that is the guard's.
    #[must_use]
    pub fn monitored_by(&self, scope: &CheckScope) -> Option<MonitoredBy> {
        let guard = self.guard_monitors.then_some(MonitoredBy::Guard);
        let CheckScope::Trunk(name) = scope else { return guard };
        match self.trunks.iter().find(|(trunk, _)| trunk == name).map(|(_, mode)| *mode) {
            Some(TrunkMode::Monitor) => Some(MonitoredBy::Trunk),
            Some(TrunkMode::Enforce) => None,
            Some(TrunkMode::Inherit) | None => guard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_has_its_own_mode_or_the_guards() {
        let trunks = [("a", TrunkMode::Inherit), ("b", TrunkMode::Enforce), ("c", TrunkMode::Monitor)];
        let trunks: Vec<_> = trunks.map(|(name, mode)| (name.to_owned(), mode)).into();
        for guard_monitors in [false, true] {
            let modes = Modes { guard_monitors, trunks: trunks.clone() };
            let guard = guard_monitors.then_some(MonitoredBy::Guard);
            let of = |name: &str| modes.monitored_by(&CheckScope::Trunk(name.to_owned()));
            assert_eq!([of("a"), of("b"), of("c"), of("d")], [guard, None, Some(MonitoredBy::Trunk), guard]);
            assert_eq!(
                [CheckScope::Everybody, CheckScope::Devices].map(|one| modes.monitored_by(&one)),
                [guard; 2]
            );
        }
    }
}
