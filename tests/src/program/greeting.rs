//! Servers that speak before the PBX does, as the program remembers them.

use std::net::IpAddr;

use anyhow::Result;
use aya::maps::{Array, HashMap};
use sipguard::address::{Mapped, mapped};
use sipguard::clock::monotonic_ns;
use sipguard_common::abi::{ANSWERED_SHIFT, names};

use super::Program;

/// Units by which the program's clock may be behind.
const BEHIND: u32 = 16;

impl Program {
    /// Makes the time in which bytes of servers are held back, that the PBX dialled from a port, begin now, or be over.
    ///
    /// # Errors
    /// When the map can't be changed.
    pub fn hold_back(&mut self, port: u16, holds: bool) -> Result<()> {
        let units = (monotonic_ns()? >> ANSWERED_SHIFT) as u32;
        let time = if holds { units.wrapping_sub(BEHIND) | 1 } else { 1 };
        let mut map: Array<_, u32> = self.map(names::ANSWERED)?;
        Ok(map.set(u32::from(port), time, 0)?)
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
