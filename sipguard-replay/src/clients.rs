//! Whose the connections of balancers are, as the program has read it from their PROXY headers.

use anyhow::Result;
use sipguard_common::abi::{FlowKey, Trunk, flow_flags, names};
use sipguard_core::address::Mapped;
use sipguard_core::load::Loaded;
use sipguard_core::maps::{self, Flows, Plain};
use sipguard_observe::header::Header;

/// Address and port of a sender.
pub(crate) type Sender = (Mapped, u16);

/// The program's flows.
pub(crate) struct Clients {
    flows: Flows,
    balancers: Vec<bool>,
}

impl Clients {
    /// Of a loaded program; `None` when no trunk is of balancers.
    ///
    /// # Errors
    /// When the flows can't be opened.
    pub(crate) fn open(loaded: &Loaded, trunks: &[Trunk]) -> Result<Option<Clients>> {
        let balancers: Vec<bool> = trunks.iter().map(|trunk| trunk.proxy_protocol != 0).collect();
        if !balancers.contains(&true) {
            return Ok(None);
        }
        Ok(Some(Clients { flows: maps::open(loaded, names::FLOWS)?, balancers }))
    }

    /// Whether a trunk, by its index, is of balancers.
    #[must_use]
    pub(crate) fn is_balancer(&self, trunk: u8) -> bool {
        self.balancers.get(usize::from(trunk)) == Some(&true)
    }

    /// The client of the segment's connection, once it is named.
    #[must_use]
    pub(crate) fn of(&self, header: &Header) -> Option<Sender> {
        let ends = header.ends;
        let [remote_port, local_port] = ends.ports.map(u16::to_be_bytes);
        let key = FlowKey { remote: ends.from, local: ends.to, remote_port, local_port };
        let Plain(flow) = self.flows.get(&Plain(key), 0).ok()?;
        let known = header.tcp && flow.flags & flow_flags::CLIENT != 0;
        known.then(|| (bytemuck::cast(flow.client), u16::from_be(flow.client_port as u16)))
    }
}
