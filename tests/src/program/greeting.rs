//! Servers that speak before the PBX does, as the program remembers them.

use std::net::IpAddr;

use anyhow::Result;
use aya::maps::{Array, HashMap};
use sipguard_common::abi::{ANSWERED_SHIFT, FlowKey, Handshake, names};
use sipguard_core::address::{Mapped, mapped};
use sipguard_core::clock::monotonic_ns;
use sipguard_core::maps::Plain;

use super::Program;

/// Units by which the program's clock may be behind.
const BEHIND: u32 = 16;

impl Program {
    /// Makes the time in which the bytes of a server are held back, that the PBX dialled, begin now, or be over.
    ///
    /// # Errors
    /// When a map can't be changed.
    pub fn hold_back(&mut self, key: &FlowKey, holds: bool) -> Result<()> {
        let units = (monotonic_ns()? >> ANSWERED_SHIFT) as u32;
        let held = if holds { units.wrapping_sub(BEHIND) | 1 } else { 1 };
        let mut ports: Array<_, u32> = self.map(names::ANSWERED)?;
        ports.set(u32::from(u16::from_be_bytes(key.local_port)), held, 0)?;
        let mut handshakes: HashMap<_, Plain<FlowKey>, Plain<Handshake>> = self.map(names::HANDSHAKES)?;
        if let Ok(Plain(handshake)) = handshakes.get(&Plain(*key), 0) {
            handshakes.insert(Plain(*key), Plain(Handshake { held, ..handshake }), 0)?;
        }
        Ok(())
    }

    /// Whether the bytes of a server are not held back because it greets.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn is_greeter(&mut self, server: IpAddr) -> Result<bool> {
        let map: HashMap<_, Mapped, u32> = self.map(names::GREETERS)?;
        Ok(map.get(&mapped(server), 0).is_ok())
    }

    /// Forgets which servers greet.
    ///
    /// # Errors
    /// When the map can't be changed.
    pub fn forget_greeters(&mut self) -> Result<()> {
        let mut map: HashMap<_, Mapped, u32> = self.map(names::GREETERS)?;
        let all: Vec<Mapped> = map.keys().collect::<Result<_, _>>()?;
        all.iter().try_for_each(|server| Ok(map.remove(server)?))
    }
}
