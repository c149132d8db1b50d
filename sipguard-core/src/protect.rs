//! What an operator does not want to block by mistake: the way to the machine itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::Source;
use crate::container;
use crate::ssh;

/// An address that needs `--force`, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// The address.
    pub address: IpAddr,
    /// What it is, such as `this SSH session's peer`.
    pub role: &'static str,
}

/// The peers of SSH sessions, this one's first, the gateways and the machine's own addresses: those of the network namespace that is guarded.
#[must_use]
pub fn protected() -> Vec<Protected> {
    container::inside(read)
}

fn read() -> Vec<Protected> {
    let mut all = Vec::new();
    let mut push = |address: Option<IpAddr>, role| {
        all.extend(address.map(|address| Protected { address: address.to_canonical(), role }));
    };
    let ssh = ssh::find();
    ssh.own_peers.iter().for_each(|peer| push(Some(*peer), "this SSH session's peer"));
    ssh.peers.iter().for_each(|peer| push(Some(*peer), "the peer of an SSH session"));
    for line in read_lines("/proc/thread-self/net/route") {
        push(gateway_v4(&line).map(IpAddr::V4), "a gateway");
    }
    for line in read_lines("/proc/thread-self/net/ipv6_route") {
        push(gateway_v6(&line).map(IpAddr::V6), "a gateway");
    }
    let own = match container::chosen() {
        Some(_) => "the container's own address",
        None => "this machine's own address",
    };
    ssh::addresses().for_each(|address| push(Some(address), own));
    all
}

/// The first protected address that a source would block.
#[must_use]
pub(crate) fn hit<'a>(source: &Source, protected: &'a [Protected]) -> Option<&'a Protected> {
    protected.iter().find(|entry| source.contains(entry.address))
}

/// Ports that another protocol is known by (IANA), or that a PBX itself has for something else. Guarded, its connections are reset.
pub(crate) const OTHER_PROTOCOLS: [(u16, &str); 17] = [
    (22, "SSH"),
    (25, "SMTP"),
    (53, "DNS"),
    (80, "HTTP"),
    (110, "POP3"),
    (143, "IMAP"),
    (443, "HTTPS"),
    (587, "SMTP"),
    (993, "IMAP over TLS"),
    (995, "POP3 over TLS"),
    (3306, "MySQL"),
    (3389, "RDP"),
    (5038, "Asterisk's manager"),
    (5432, "PostgreSQL"),
    (8080, "HTTP"),
    (8088, "Asterisk's HTTP and WebSocket"),
    (8089, "Asterisk's HTTPS and WebSocket"),
];

/// The protocol that a port is known by, where that is not SIP.
#[must_use]
pub(crate) fn other_protocol(port: u16) -> Option<&'static str> {
    OTHER_PROTOCOLS.iter().find(|(known, _)| *known == port).map(|(_, name)| *name)
}

/// Why one of the ports should hardly be guarded: an SSH server has it, or another protocol is known by it.
#[must_use]
pub(crate) fn occupied(ports: &BTreeSet<u16>) -> Option<String> {
    let ssh = if ports.is_empty() { BTreeSet::new() } else { ssh::find().ports };
    let by_ssh = ports.iter().find(|port| ssh.contains(port));
    let why = by_ssh.map(|port| format!("port {port} is one of SSH here, whose sessions would be cut"));
    why.or_else(|| {
        let (port, name) = ports.iter().find_map(|port| Some((port, other_protocol(*port)?)))?;
        Some(format!("port {port} is known as that of {name}, whose connections would be reset"))
    })
}

fn read_lines(path: &str) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The gateway of a line of `/proc/net/route`: third column, in the machine's own byte order.
fn gateway_v4(line: &str) -> Option<Ipv4Addr> {
    let word = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
    (word != 0).then(|| Ipv4Addr::from(word.to_ne_bytes()))
}

/// The gateway of a line of `/proc/net/ipv6_route`: fifth column.
fn gateway_v6(line: &str) -> Option<Ipv6Addr> {
    let word = u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?;
    (word != 0).then(|| Ipv6Addr::from(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_system_says() {
        assert_eq!(gateway_v4("eth0\t00000000\t0102A8C0\t0003\t0"), Some(Ipv4Addr::new(192, 168, 2, 1)));
        assert_eq!(gateway_v4("Iface\tDestination\tGateway"), None);
        let line = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400";
        assert_eq!(gateway_v6(line), Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn ports_of_other_protocols_are_documented() {
        let example = crate::config::example();
        let list = example.split_once("known by: ").and_then(|(_, rest)| rest.split_once('.')).unwrap().0;
        let told: Vec<u16> =
            list.replace(['#', '\n'], " ").split(',').map(|word| word.trim().parse().unwrap()).collect();
        assert_eq!(told, OTHER_PROTOCOLS.map(|(port, _)| port));
        assert!(other_protocol(5060).is_none() && other_protocol(5061).is_none());
    }

    #[test]
    fn a_prefix_around_a_protected_address_hits() {
        let protected = [Protected { address: "192.0.2.9".parse().unwrap(), role: "x" }];
        assert!(hit(&"192.0.2.0/24".parse().unwrap(), &protected).is_some());
        assert!(hit(&"192.0.2.9".parse().unwrap(), &protected).is_some());
        assert!(hit(&"192.0.3.0/24".parse().unwrap(), &protected).is_none());
        assert!(hit(&"::/0".parse().unwrap(), &protected).is_none());
        for mapped in ["::ffff:0:0/96", "::ffff:128.0.0.0/97", "::ffff:192.0.2.0/120", "::ffff:192.0.2.9/128"]
        {
            assert!(hit(&mapped.parse().unwrap(), &protected).is_some(), "{mapped}");
        }
    }
}
