//! Where the PBX is, as seen from the machine with the guard: on it, or in a namespace behind it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
};

use anyhow::{Context as _, Result};

use crate::{
    guard::Site,
    netns::{Netns, veth},
};

/// Ports that a listener of the machine's own has in [`Setting::DnatListener`].
const PROXIED: [u16; 2] = [5060, 5061];
/// Addresses of the container.
const CONTAINER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2))];

/// Where the PBX is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// On the machine with the guard.
    Local,
    /// Behind a bridge, of which the guarded interface is a port.
    Bridge,
    /// In a container with addresses of its own, to which the machine translates those that devices know.
    Dnat,
    /// The same, and the machine listens on the SIP ports itself, as docker-proxy does.
    DnatListener,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Local, Self::Bridge, Self::Dnat, Self::DnatListener];

    /// Those that `SIPGUARD_SETTINGS` names, separated by commas, or all: a kernel may lack what the others are made of.
    pub fn tried() -> Result<Vec<Self>> {
        let Ok(names) = std::env::var("SIPGUARD_SETTINGS") else { return Ok(Self::ALL.into()) };
        let named = |name: &str| Self::ALL.into_iter().find(|setting| setting.name() == name);
        let found =
            names.split(',').map(|name| named(name).with_context(|| format!("there is no setting `{name}`")));
        found.collect()
    }

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Bridge => "bridge",
            Self::Dnat => "dnat",
            Self::DnatListener => "dnat+listener",
        }
    }
}

/// The namespace of a PBX behind the machine with the guard.
#[derive(Debug)]
pub struct Behind {
    /// Where the applications are.
    pub pbx: Netns,
    /// The addresses that they listen on.
    pub addresses: [IpAddr; 2],
    /// Those of docker-proxy, which nobody serves.
    _proxies: Vec<TcpListener>,
}

impl Behind {
    /// Puts a PBX behind the machine of a site; `None` for [`Setting::Local`].
    pub fn new(site: &Site, setting: Setting) -> Result<Option<Self>> {
        match setting {
            Setting::Local => Ok(None),
            Setting::Bridge => bridge(&site.pbx).map(Some),
            Setting::Dnat => container(&site.pbx, &[]).map(Some),
            Setting::DnatListener => container(&site.pbx, &PROXIED).map(Some),
        }
    }
}

/// The machine gives its addresses away and forwards frames.
fn bridge(machine: &Netns) -> Result<Behind> {
    let (eth, inner) = (Site::INTERFACE, "inner");
    let pbx = Netns::new("behind")?;
    machine.run(&["ip", "address", "flush", "dev", eth])?;
    veth(machine, inner, "192.0.2.1/24", &pbx, eth, "10.77.0.1/24", false)?;
    machine.run(&["ip", "address", "flush", "dev", inner])?;
    pbx.add_address(eth, "fd77::1/64")?;
    machine.run(&["ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
    for interface in [eth, inner] {
        machine.run(&["ip", "link", "set", interface, "master", "br0"])?;
    }
    machine.run(&["ip", "link", "set", "br0", "up"])?;
    Ok(Behind { pbx, addresses: Site::PBX, _proxies: vec![] })
}

/// The machine translates its addresses to those of the container, and back.
fn container(machine: &Netns, proxied: &[u16]) -> Result<Behind> {
    let (eth, inner) = (Site::INTERFACE, "inner");
    let pbx = Netns::new("container")?;
    for namespace in [machine, &pbx] {
        // Neighbours are asked for from addresses that else are not usable in the first two seconds.
        let write = namespace.enter(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"))?;
        write.context("switching off duplicate address detection")?;
    }
    veth(machine, inner, "10.78.0.1/24", &pbx, eth, "10.78.0.2/24", false)?;
    machine.add_address(inner, "fd78::1/64")?;
    pbx.add_address(eth, "fd78::2/64")?;
    pbx.add_route("default", "10.78.0.1")?;
    pbx.run(&["ip", "-6", "route", "add", "default", "via", "fd78::1"])?;
    machine.forward()?;
    let write = machine.enter(|| fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1"))?;
    write.context("switching on forwarding of IPv6")?;
    for words in [
        "add table inet nat",
        "add chain inet nat in { type nat hook prerouting priority dstnat ; }",
        "add chain inet nat out { type nat hook postrouting priority srcnat ; }",
        "add rule inet nat in iifname eth0 meta nfproto ipv4 meta l4proto { tcp, udp } dnat ip to 10.78.0.2",
        "add rule inet nat in iifname eth0 meta nfproto ipv6 meta l4proto { tcp, udp } dnat ip6 to fd78::2",
        "add rule inet nat out oifname eth0 masquerade",
    ] {
        machine.run(&[&["nft"], &words.split(' ').collect::<Vec<_>>()[..]].concat())?;
    }
    let mut proxies = vec![];
    for port in proxied {
        // Of both families, as long as nobody says otherwise.
        let listener = machine.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)))?;
        proxies.push(listener.with_context(|| format!("listening on port {port}"))?);
    }
    Ok(Behind { pbx, addresses: CONTAINER, _proxies: proxies })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        application::{expect_same, uninterrupted},
        cpu,
        envelope::datagram,
        lab::FAMILIES,
        lab::Lab,
        message::register,
    };

    #[test]
    fn each_carries_both_transports_of_both_families() -> Result<()> {
        cpu::pin(cpu::allowed()?[0])?;
        for setting in Setting::ALL {
            let lab = Lab::unguarded_in(setting)?;
            for family in FAMILIES {
                let (mut sender, mut witness) = lab.connect(family, 1)?;
                sender.push(&register(1))?;
                lab.settle()?;
                expect_same(witness.read()?, &register(1)).context(setting.name())?;
                let application = lab.udp(family)?;
                lab.wire.send(&datagram(&sender.envelope, 5062, 5060, &register(2)))?;
                lab.settle()?;
                let mut read = [0; 2000];
                let length = uninterrupted(|| application.recv(&mut read)).context(setting.name())?;
                expect_same(&read[..length], &register(2)).context(setting.name())?;
            }
        }
        Ok(())
    }
}
