//! A record, read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_common::abi::{Outcome, PacketRecord};
use sipguard_core::address::unmapped;
use sipguard_core::clock::Clock;
use sipguard_core::counters::Action;
use sipguard_core::pins::Pins;
use sipguard_core::presence::{iface_name, own_slots};
use sipguard_core::store;
use sipguard_core::trunk::TrunkRow;

use crate::header::Header;

/// A packet that the kernel side recorded.
#[derive(Clone, Debug)]
pub struct TapPacket {
    /// Its number in its ring.
    pub number: u64,
    /// When it came (`CLOCK_BOOTTIME`, nanoseconds).
    pub time_ns: u64,
    /// When it came.
    pub time: Timestamp,
    /// In an event, how many packets of its source and reason there were since the last event of the two, itself included. Else 1.
    pub count: u64,
    /// Interface; empty when it is attached no more.
    pub interface: String,
    /// The trunk that it is from.
    pub trunk: Option<String>,
    /// Why it was stopped, or passed.
    pub reason: Reason,
    /// What became of it.
    pub action: Action,
    /// Who sent it by a balancer that speaks the PROXY protocol.
    pub client: Option<SocketAddr>,
    /// What its headers say; `None` when they can't be read.
    pub header: Option<Header>,
    /// The frame from its Ethernet header on, as far as it was recorded.
    pub frame: Vec<u8>,
    /// Length of the whole frame in bytes.
    pub frame_len: u32,
}

/// The names of what records have numbers of.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Interfaces by slot.
    pub interfaces: BTreeMap<u32, String>,
    /// Trunks by index.
    pub trunks: BTreeMap<u8, String>,
}

impl Names {
    /// As they are now. Without a store there are no trunks.
    pub fn read(pins: &Pins, path: &Path) -> Result<Names> {
        Names::of(pins, &store::all_trunks(path)?)
    }

    /// The same with trunks that were read already.
    pub fn of(pins: &Pins, trunks: &[TrunkRow]) -> Result<Names> {
        let interfaces = own_slots(pins)?.iter().map(|(slot, iface)| (*slot, iface_name(iface))).collect();
        let trunks =
            trunks.iter().filter_map(|trunk| Some((u8::try_from(trunk.number).ok()?, trunk.name.clone())));
        Ok(Names { interfaces, trunks: trunks.collect() })
    }
}

impl TapPacket {
    /// Reads a record. `None` when it is of a reason that this version does not know.
    #[must_use]
    pub fn read(record: &PacketRecord, names: &Names, clock: &Clock) -> Option<TapPacket> {
        let reason = Reason::from_number(record.reason)?;
        let frame = record.bytes.get(..record.captured as usize)?.to_vec();
        let header = Header::read(&frame);
        Some(TapPacket {
            number: record.number.saturating_sub(1),
            time_ns: record.time_ns,
            time: clock.wall_exactly(record.time_ns),
            count: record.count,
            interface: names.interfaces.get(&record.slot).cloned().unwrap_or_default(),
            trunk: names.trunks.get(&record.trunk).cloned(),
            reason,
            action: Action::of_outcome(reason, Outcome::from_number(record.outcome)),
            client: client(record),
            header,
            frame,
            frame_len: record.frame_len,
        })
    }

    /// Who sent it, behind a balancer the client; port 0 where there is none.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        if self.client.is_some() {
            return self.client;
        }
        let ends = self.header.as_ref()?.ends;
        Some(SocketAddr::new(unmapped(ends.from), ends.ports[0]))
    }

    /// Whom it was for; port 0 where there is none.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        let ends = self.header.as_ref()?.ends;
        Some(SocketAddr::new(unmapped(ends.to), ends.ports[1]))
    }

    /// The source's address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.source().map(|source| source.ip())
    }

    /// The payload of TCP or UDP, as far as it was recorded.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let payload = self.header.as_ref().map(|header| header.payload.clone()).unwrap_or_default();
        self.frame.get(payload).unwrap_or_default()
    }
}

/// The client of a record.
fn client(record: &PacketRecord) -> Option<SocketAddr> {
    let address: [u8; 16] = bytemuck::cast(record.client);
    let port = u16::from_be(record.client_port as u16);
    (address != [0; 16]).then(|| SocketAddr::new(unmapped(address), port))
}
