//! Typed handles on the maps, which are pinned or those of a program that was just loaded.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use sipguard_common::abi::{
    CountedConnection, Counter, DeviceKey, Flow, FlowKey, Iface, Offender, OffenderKey, PORT_ENTRIES,
    PORT_WORDS, Rule, Settings, names, port_bit,
};
use sipguard_common::framer::MATCH_KEY_BYTES;

use crate::address::Mapped;
use crate::pins::Pins;

/// A key or value of `sipguard_common::abi`, as aya takes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Plain<T>(pub T);

// SAFETY: `bytemuck::Pod` promises what `aya::Pod` asks for: any bytes are a value, none is padding.
unsafe impl<T: bytemuck::Pod> aya::Pod for Plain<T> {}

/// Rules of hosts.
pub type Hosts = HashMap<MapData, Mapped, Plain<Rule>>;
/// Rules of prefixes.
pub type Prefixes = LpmTrie<MapData, Mapped, Plain<Rule>>;
/// Rules of devices.
pub type Devices = HashMap<MapData, Plain<DeviceKey>, Plain<Rule>>;
/// Rules of SIP identities.
pub type Identities = HashMap<MapData, [u8; MATCH_KEY_BYTES], Plain<Rule>>;
/// Rules of user agents.
pub type UserAgents = LpmTrie<MapData, [u8; MATCH_KEY_BYTES], Plain<Rule>>;
/// Followed connections.
pub type Flows = HashMap<MapData, Plain<FlowKey>, Plain<Flow>>;
/// Open connections that are counted, by the address of the kernel's socket.
pub type Sockets = HashMap<MapData, u64, Plain<CountedConnection>>;
/// Counters.
pub type Counters = PerCpuArray<MapData, Plain<Counter>>;
/// Offenders.
pub type Offenders = HashMap<MapData, Plain<OffenderKey>, Plain<Offender>>;
/// Attached interfaces.
pub type Ifaces = Array<MapData, Plain<Iface>>;

/// Where the maps of a program are: below the pins, or in the program that was just loaded.
pub trait MapDir {
    /// A handle on a map of [`names`], whatever its type.
    ///
    /// # Errors
    /// When it is not there.
    fn data(&self, name: &str) -> Result<MapData>;
}

impl MapDir for Pins {
    fn data(&self, name: &str) -> Result<MapData> {
        let path = self.map(name);
        MapData::from_pin(&path).or_else(|error| {
            // Taken off since it was looked for.
            self.attached_or_fail()?;
            Err(error).with_context(|| format!("opening {}", path.display()))
        })
    }
}

/// Opens a map of [`names`] as the type that it has there.
///
/// # Errors
/// When it is not there or has another type.
pub fn open<T: TryFrom<Map, Error = MapError>>(dir: &dyn MapDir, name: &str) -> Result<T> {
    let map = Map::from_map_data(dir.data(name)?).and_then(T::try_from);
    map.with_context(|| format!("opening the map {name}"))
}

/// Removes every entry of a hash map.
///
/// # Errors
/// When the map can't be opened or changed.
pub fn empty<K: bytemuck::Pod, V: bytemuck::Pod>(dir: &dyn MapDir, name: &str) -> Result<()> {
    let mut map: HashMap<_, Plain<K>, Plain<V>> = open(dir, name)?;
    let keys: Vec<Plain<K>> =
        map.keys().collect::<Result<_, _>>().with_context(|| format!("reading {name}"))?;
    for key in keys {
        map.remove(&key).with_context(|| format!("emptying {name}"))?;
    }
    Ok(())
}

/// The settings.
///
/// # Errors
/// When the map can't be read.
pub fn settings(dir: &dyn MapDir) -> Result<Settings> {
    let map: Array<_, Plain<Settings>> = open(dir, names::SETTINGS)?;
    Ok(map.get(&0, 0).context("reading the settings")?.0)
}

/// Replaces the settings, at once and as a whole.
///
/// # Errors
/// When the map can't be written.
pub fn set_settings(dir: &dyn MapDir, settings: Settings) -> Result<()> {
    let mut map: Array<_, Plain<Settings>> = open(dir, names::SETTINGS)?;
    map.set(0, Plain(settings), 0).context("writing the settings")
}

/// Ports that are guarded on either side of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// SIP over TCP and UDP.
    pub sip: BTreeSet<u16>,
    /// SIP over TLS.
    pub tls: BTreeSet<u16>,
}

/// The guarded ports.
///
/// # Errors
/// When the map can't be read.
pub fn ports(dir: &dyn MapDir) -> Result<Ports> {
    let map: Array<_, u64> = open(dir, names::PORTS)?;
    let bitmap = |first: u32| {
        let mut ports = BTreeSet::new();
        for word in 0..PORT_WORDS {
            let bits = map.get(&(first + word), 0).context("reading the guarded ports")?;
            ports.extend((0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| (word * 64 + bit) as u16));
        }
        anyhow::Ok(ports)
    };
    Ok(Ports { sip: bitmap(0)?, tls: bitmap(PORT_WORDS)? })
}

/// Sets the guarded ports.
///
/// # Errors
/// When the map can't be written.
pub(crate) fn set_ports(dir: &dyn MapDir, ports: &Ports) -> Result<()> {
    let mut words = vec![0u64; PORT_ENTRIES as usize];
    for (first, ports) in [(0, &ports.sip), (PORT_WORDS, &ports.tls)] {
        for port in ports {
            let (word, bit) = port_bit(*port);
            words[(first + word) as usize] |= bit;
        }
    }
    let mut map: Array<_, u64> = open(dir, names::PORTS)?;
    for (index, word) in words.into_iter().enumerate() {
        map.set(index as u32, word, 0).context("writing the guarded ports")?;
    }
    Ok(())
}
