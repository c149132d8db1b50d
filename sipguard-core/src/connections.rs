//! Connections that are followed, what is known of them, and how full the table of flows is.
//!
//! The table keeps what has ended until it needs the room, and marks it.

use anyhow::{Context, Result};
use aya::maps::{MapError, MapInfo};
use sipguard_common::abi::{Flow, FlowState, IFACE_SLOTS, names};

use crate::maps::{self, Flows, Plain};
use crate::pins::Pins;

/// Of one interface, as they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Connections whose bytes are judged.
    pub followed: usize,
    /// Connections of which the place in the stream is not known: bytes pass until a message begins.
    pub lost: usize,
    /// Connections that were refused, and whose PBX has not told that they ended.
    pub cut: usize,
    /// Connections that the PBX dialled and speaks no SIP on, or has not spoken yet.
    pub other: usize,
}

/// As they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// By the interface's slot.
    pub known: [ConnectionCounts; IFACE_SLOTS as usize],
    /// Entries of the table of flows, those of connections that are gone among them.
    pub flows: usize,
    /// Entries that it has room for.
    pub flows_max: u32,
}

impl Connections {
    /// Reads them.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn read(pins: &Pins) -> Result<Connections> {
        let flows: Flows = maps::open(pins, names::FLOWS)?;
        let info = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
        let mut connections =
            Connections { known: Default::default(), flows: 0, flows_max: info.max_entries() };
        for key in flows.keys() {
            let key = key.context("counting the flows")?;
            connections.flows += 1;
            match flows.get(&key, 0) {
                Ok(Plain(flow)) => connections.count(&flow),
                // It was forgotten meanwhile.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).context("reading a flow"),
            }
        }
        Ok(connections)
    }

    /// Connections of all interfaces whose bytes are judged.
    #[must_use]
    pub fn live(&self) -> usize {
        self.known.iter().map(|known| known.followed).sum()
    }

    fn count(&mut self, flow: &Flow) {
        let Some(known) = self.known.get_mut(flow.slot as usize) else { return };
        if flow.ended != 0 {
            return;
        }
        *match FlowState::from_number(flow.state) {
            Some(FlowState::Desynchronised) => &mut known.lost,
            Some(FlowState::Rejected) => &mut known.cut,
            Some(FlowState::AwaitingFirstBytes | FlowState::NotSip) => &mut known.other,
            _ => &mut known.followed,
        } += 1;
    }
}
