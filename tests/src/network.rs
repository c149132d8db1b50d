//! Who is connected to whom.
//!
//! ```text
//! phones 192.168.50.10 --+
//!                        +-- router, NAT to 10.77.0.2 -- 10.77.0.1 and .3 pbx 10.77.1.1 -- 10.77.1.2 and .3 trunk
//! errant 192.168.50.66 --+
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::netns::{Netns, veth};

/// Where Kamailio listens.
pub const KAMAILIO: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of the PBX on the cable to the trunk.
pub const PBX_TO_TRUNK: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
/// Where the fragile PBX listens.
pub const FRAGILE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// The one address that the PBX sees of the whole office.
pub const OFFICE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The trunk that takes calls.
pub const TRUNK: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
/// The trunk whose answers are malformed.
pub const ERRANT_TRUNK: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 3);
/// The interfaces of the PBX: to the office and to the trunk.
pub const PBX_INTERFACES: [&str; 2] = ["office", "trunk"];

/// The namespaces of the story.
#[derive(Debug)]
pub struct Network {
    /// The machine with the PBX.
    pub pbx: Netns,
    /// The healthy phones.
    pub phones: Netns,
    /// The one that is not.
    pub errant: Netns,
    /// The trunks.
    pub trunk: Netns,
    _router: Netns,
}

impl Network {
    /// Lays all cables.
    pub fn new() -> Result<Self> {
        let (pbx, router) = (Netns::new("pbx")?, Netns::new("office-nat")?);
        let (phones, errant, trunk) = (Netns::new("phones")?, Netns::new("errant")?, Netns::new("trunk")?);
        let [to_office, to_trunk] = PBX_INTERFACES;
        veth(&pbx, to_office, "10.77.0.1/24", &router, "wan", "10.77.0.2/24", false)?;
        veth(&pbx, to_trunk, "10.77.1.1/24", &trunk, "eth0", "10.77.1.2/24", false)?;
        pbx.add_address(to_office, "10.77.0.3/24")?;
        trunk.add_address("eth0", "10.77.1.3/24")?;
        // Kamailio may dial the trunk from its office address.
        trunk.add_route("default", "10.77.1.1")?;
        // Two halves of 192.168.50.0/24, so that no kernel needs to know bridges.
        veth(&router, "lan0", "192.168.50.1/26", &phones, "eth0", "192.168.50.10/26", false)?;
        veth(&router, "lan1", "192.168.50.65/26", &errant, "eth0", "192.168.50.66/26", false)?;
        phones.add_route("default", "192.168.50.1")?;
        errant.add_route("default", "192.168.50.65")?;
        router.forward()?;
        router.run(&["nft", "add table ip nat"])?;
        router.run(&["nft", "add chain ip nat out { type nat hook postrouting priority srcnat; }"])?;
        router.run(&["nft", "add rule ip nat out oifname \"wan\" masquerade"])?;
        Ok(Self { pbx, phones, errant, trunk, _router: router })
    }
}

/// The SIP port at `address`.
#[must_use]
pub fn sip(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(address.into(), 5060)
}
