//! Which maps another build may keep: a map is kept whose layout is the same in both, and begun anew where it is not.
//!
//! Beside each pinned map a symbolic link says what its layout is, as a number (`maps/NAME-layout`). So a build knows the maps of one that is
//! newer than itself, too.

use std::fmt::{self, Write as _};

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya_obj::Object;
use sipguard_common::abi::{names, write_map_layout};

use crate::error::{Failure, FailureKind};
use crate::pins::Pins;

/// The layouts of an object's maps, by name.
pub(crate) struct Layouts(Vec<MapLayout>);

struct MapLayout {
    name: &'static str,
    /// Type, bytes of a key, bytes of a value.
    declared: (u32, u32, u32),
    number: String,
}

impl Layouts {
    /// Of an object, which is an ELF file.
    ///
    /// # Errors
    /// When it is none, or has not all maps.
    pub(crate) fn of(object: &[u8]) -> Result<Layouts> {
        let object = Object::parse(object).context("reading the programs of this build")?;
        let layout = |name| {
            let map = object.maps.get(name).with_context(|| format!("this build has no map {name}"))?;
            let declared = (map.map_type(), map.key_size(), map.value_size());
            // How many connections are followed is a setting.
            let entries = if name == names::FLOWS { 0 } else { map.max_entries() };
            let mut hash = Fnv::new();
            writeln!(hash, "{declared:?} {entries}")?;
            write_map_layout(name, &mut hash)?;
            Ok(MapLayout { name, declared, number: format!("{:016x}", hash.0) })
        };
        Ok(Layouts(names::pinned().map(layout).collect::<Result<_>>()?))
    }

    /// Writes them beside pinned maps, that of `ABI` last: where it is, all are.
    ///
    /// # Errors
    /// When the pins can't be written.
    pub(crate) fn write(&self, pins: &Pins) -> Result<()> {
        self.0.iter().rev().try_for_each(|layout| pins.set_layout(layout.name, &layout.number))
    }

    /// The names of the maps below pins whose layout is another one. Pins without layouts are taken for
    /// the same where ABI version and sizes are.
    ///
    /// # Errors
    /// When the pins don't tell what they are.
    pub(crate) fn changed(&self, pins: &Pins) -> Result<Vec<&'static str>> {
        if pins.layout(names::ABI).is_none() {
            pins.check_abi().map_err(|_| untold("its ABI version is another one"))?;
            return self.0.iter().try_for_each(|layout| layout.same_size(pins)).map(|()| Vec::new());
        }
        let other = self.0.iter().filter(|layout| pins.layout(layout.name).as_ref() != Some(&layout.number));
        Ok(other.map(|layout| layout.name).collect())
    }
}

impl MapLayout {
    /// The verifier sees a program that reaches beyond a value, and not one that takes it for another.
    fn same_size(&self, pins: &Pins) -> Result<()> {
        let MapLayout { name, declared, .. } = self;
        let pinned = MapInfo::from_pin(pins.map(name)).with_context(|| format!("opening the map {name}"))?;
        let theirs = (pinned.map_type()? as u32, pinned.key_size(), pinned.value_size());
        if *declared == theirs {
            return Ok(());
        }
        Err(untold(&format!(
            "the map {name} has other sizes (type, bytes of a key, of a value: {theirs:?} and not {declared:?})"
        )))
    }
}

fn untold(what: &str) -> anyhow::Error {
    let text = format!(
        "the build in force does not tell the layouts of its maps, and {what}; the filter goes on as it is. \
         To replace it: `sipguard detach --all`, then `sipguard attach`"
    );
    Failure::with(FailureKind::Failed, text)
}

/// FNV-1a of 64 bits (draft-eastlake-fnv): the same in every build.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}

/// What becomes of a map that another build has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anew {
    /// It can't be begun anew under a filter: what it says is said nowhere else.
    Never,
    /// It is filled from the store; what its rules had counted is lost.
    Filled,
    /// What it held is lost: the text names that for operators.
    Lost(&'static str),
}

/// What becomes of a map of a name.
pub(crate) fn anew(name: &str) -> Anew {
    use Anew::{Filled, Lost, Never};
    match name {
        names::HOSTS
        | names::PREFIXES
        | names::DEVICES
        | names::IDENTITIES
        | names::USER_AGENTS
        | names::TRUNKS => Filled,
        names::ABI => Lost(""),
        names::TRUNK_COUNTERS => Lost("the counters of trunks"),
        names::COUNTERS => Lost("the counters"),
        names::OFFENDERS => Lost("the offenders"),
        names::BUDGETS | names::TRUNK_BUDGETS => Lost("what senders have used of their limits"),
        names::BANS => Lost("the bans, and what led to them"),
        names::OPEN | names::SOCKETS => Lost("how many connections senders have open"),
        names::UNFINISHED => Lost("how many messages senders have begun"),
        names::FLOWS | names::HANDSHAKES => {
            Lost("the connections, which are followed again from their next message on")
        }
        names::SPILLED | names::FRAGMENTS | names::EARLY_FRAGMENTS => {
            Lost("what was kept of segments and fragments under way")
        }
        names::SPOKEN | names::ANSWERED | names::GREETERS => Lost("which servers the PBX speaks SIP with"),
        names::EVENTS | names::EVENT_GATES | names::EVENT_BUDGETS => Lost("events that nobody has read yet"),
        names::CAPTURED | names::RECORDED | names::CURSORS | names::TAPS => {
            Lost("captures that run, and the last packets of each device")
        }
        // Settings, ports and interfaces, and what this list forgets.
        _ => Never,
    }
}

/// Maps that count what the others hold: where one is begun anew, all of its group are.
const GROUPS: [&[&str]; 4] = [
    &[names::FLOWS, names::HANDSHAKES, names::SPILLED, names::UNFINISHED],
    &[names::OPEN, names::SOCKETS],
    &[names::BUDGETS, names::BANS],
    &[names::EVENTS, names::CAPTURED, names::RECORDED, names::CURSORS, names::TAPS],
];

/// The maps that are begun anew where some have changed: with their groups, and with the one that says which maps they are.
pub(crate) fn with_groups(changed: &[&'static str]) -> Vec<&'static str> {
    let belongs = |name: &&'static str| {
        *name == names::ABI
            || changed.contains(name)
            || GROUPS
                .iter()
                .any(|group| group.contains(name) && group.iter().any(|one| changed.contains(one)))
    };
    if changed.is_empty() { Vec::new() } else { names::pinned().filter(belongs).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_map_is_thought_of() {
        let never: Vec<&str> = names::pinned().filter(|name| anew(name) == Anew::Never).collect();
        assert_eq!(never, [names::SETTINGS, names::PORTS, names::IFACES]);
    }

    #[test]
    fn what_belongs_together_is_begun_together() {
        assert!(with_groups(&[]).is_empty());
        assert_eq!(with_groups(&[names::OFFENDERS]), [names::ABI, names::OFFENDERS]);
        assert_eq!(with_groups(&[names::SOCKETS]), [names::ABI, names::OPEN, names::SOCKETS]);
    }

    #[test]
    fn a_number_depends_on_what_it_is_of() {
        let number = |text: &str| {
            let mut hash = Fnv::new();
            hash.write_str(text).expect("it takes all");
            hash.0
        };
        // Test vector of the draft.
        assert_eq!(number("foobar"), 0x8594_4171_f739_67e8);
    }
}
