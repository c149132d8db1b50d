//! Addresses and prefixes as operators write them, and as the maps keep them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// Sixteen bytes, IPv4 mapped.
pub type Mapped = [u8; 16];

/// The map's form of an address.
#[must_use]
pub fn mapped(address: IpAddr) -> Mapped {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// An address from the map's form; IPv4 where it is mapped.
#[must_use]
pub fn unmapped(bytes: Mapped) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// A host or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpNet);

impl Source {
    /// A prefix of the map's form; `bits` counts from the mapped address's front.
    ///
    /// `None` when `bits` is no prefix length of that family.
    #[must_use]
    pub fn from_map(bytes: Mapped, bits: u32) -> Option<Source> {
        let address = unmapped(bytes);
        let bits = if address.is_ipv4() { bits.checked_sub(96)? } else { bits };
        IpNet::new(address, u8::try_from(bits).ok()?).ok().map(Source)
    }

    /// The prefix of `bits` around an address of the map's form.
    #[must_use]
    pub fn network(bytes: Mapped, bits: u32) -> Option<Source> {
        Source::from_map(bytes, bits).map(|Source(net)| Source(net.trunc()))
    }

    /// Whether it is one address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.0.addr().is_ipv4()
    }

    /// The map's form of its (network) address.
    #[must_use]
    pub fn bytes(&self) -> Mapped {
        mapped(self.0.network())
    }

    /// Prefix length in bits of the mapped address.
    #[must_use]
    pub fn bits(&self) -> u32 {
        let bits = u32::from(self.0.prefix_len());
        if self.0.addr().is_ipv4() { bits + 96 } else { bits }
    }

    /// Whether another one lies in it.
    #[must_use]
    pub fn holds(&self, other: &Source) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        Source(IpNet::from(address.to_canonical()))
    }
}

impl FromStr for Source {
    type Err = String;

    /// `ADDR` or `ADDR/LEN`. A prefix with host bits is refused rather than widened: it may be a typing error.
    fn from_str(text: &str) -> Result<Source, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Source::from(address));
        }
        let net: IpNet = text.parse().map_err(|_| {
            format!("`{text}` is neither an address nor a prefix (such as 203.0.113.7 or 2001:db8::/32)")
        })?;
        if net.addr() != net.network() {
            return Err(format!(
                "`{text}` has bits set behind its prefix length: write {} or {}",
                net.trunc(),
                net.addr()
            ));
        }
        Ok(Source(net))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn forms() {
        for (typed, shown, bits) in [
            ("203.0.113.7", "203.0.113.7", 128),
            ("203.0.113.7/32", "203.0.113.7", 128),
            ("203.0.113.0/24", "203.0.113.0/24", 120),
            ("0.0.0.0/0", "0.0.0.0/0", 96),
            ("2001:db8::1", "2001:db8::1", 128),
            ("2001:db8::/32", "2001:db8::/32", 32),
            ("::ffff:192.0.2.1", "192.0.2.1", 128),
            ("::/0", "::/0", 0),
        ] {
            let source = source(typed);
            assert_eq!(source.to_string(), shown);
            assert_eq!(source.bits(), bits, "{typed}");
            assert_eq!(Source::from_map(source.bytes(), source.bits()), Some(source), "{typed}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = Source::from_str("203.0.113.7/24").unwrap_err();
        assert_eq!(
            error,
            "`203.0.113.7/24` has bits set behind its prefix length: write 203.0.113.0/24 or 203.0.113.7"
        );
        for text in ["", "phone", "203.0.113.7:5060", "203.0.113.7/33", "1.2.3"] {
            assert!(
                Source::from_str(text).unwrap_err().contains("neither an address nor a prefix"),
                "{text}"
            );
        }
    }
}
