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

/// A host or a prefix, in the one form that the kernel's maps tell apart: what is within `::ffff:0:0/96` is IPv4. A shorter IPv6
/// prefix around it is of IPv6 alone, for the kernel side asks no prefix of fewer than 96 bits about an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpNet);

impl Source {
    /// A prefix of the map's form; `bits` counts from the mapped address's front.
    ///
    /// `None` when `bits` is no prefix length of that family.
    #[must_use]
    pub(crate) fn from_map(bytes: Mapped, bits: u32) -> Option<Source> {
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

    /// The prefix length, as it is written, that a block or a trunk should have at least: shorter ones hold much of the internet.
    #[must_use]
    pub(crate) fn least_bits(&self) -> u8 {
        if self.is_ipv4() { 8 } else { 16 }
    }

    /// Whether it is shorter than that.
    #[must_use]
    pub(crate) fn is_wide(&self) -> bool {
        self.0.prefix_len() < self.least_bits()
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
    pub(crate) fn covers(&self, other: &Source) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether an address lies in it, as the kernel side finds it: an IPv4 address lies in no IPv6 prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        Source(IpNet::from(address.to_canonical()))
    }
}

impl From<IpNet> for Source {
    /// Host bits go; what is within `::ffff:0:0/96` is IPv4.
    fn from(net: IpNet) -> Source {
        let net = Source(net.trunc());
        Source::from_map(net.bytes(), net.bits()).unwrap_or(net)
    }
}

impl FromStr for Source {
    type Err = String;

    /// `ADDR` or `ADDR/LEN`. A prefix with host bits is refused rather than widened: it may be a typing error. `::ffff:192.0.2.0/120`
    /// is 192.0.2.0/24.
    fn from_str(text: &str) -> Result<Source, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Source::from(address));
        }
        let unknown =
            || format!("`{text}` is neither an address nor a prefix (such as 203.0.113.7 or 2001:db8::/32)");
        let typed = Source(text.parse().map_err(|_| unknown())?);
        let source = Source::from_map(typed.bytes(), typed.bits()).ok_or_else(unknown)?;
        if typed.0.addr() != typed.0.network() {
            let address = Source::from(typed.0.addr());
            return Err(format!(
                "`{text}` has bits set behind its prefix length: write {source} or {address}"
            ));
        }
        Ok(source)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Addresses, a third of each: IPv4, IPv4 mapped or one bit beside it, and any IPv6.
    pub(crate) fn addresses() -> impl Strategy<Value = IpAddr> {
        let v6 = |bits: u128| IpAddr::from(bits.to_be_bytes());
        let near = (any::<u32>(), prop_oneof![Just(0u128), (28u32..64).prop_map(|at| 1 << at)]);
        let near = near.prop_map(move |(low, flipped)| v6((0xffff_0000_0000 | u128::from(low)) ^ flipped));
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
            near,
            any::<u128>().prop_map(v6)
        ]
    }

    /// Hosts and prefixes as they are typed: with every length, also in the mapped form.
    pub(crate) fn typed() -> impl Strategy<Value = String> {
        (addresses(), 0u8..=128).prop_map(|(address, bits)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, bits % (most + 1)).map(|net| net.trunc().to_string()).unwrap_or_default()
        })
    }

    proptest! {
        #[test]
        fn there_is_one_form_of_each(typed in typed()) {
            let source: Source = typed.parse().unwrap();
            prop_assert_eq!(source.to_string().parse(), Ok(source));
            prop_assert_eq!(Source::from_map(source.bytes(), source.bits()), Some(source));
            prop_assert_eq!(Source::network(source.bytes(), source.bits()), Some(source));
        }

        #[test]
        fn it_contains_what_the_kernel_matches(typed in typed(), mut address in addresses(), inside: bool) {
            let source: Source = typed.parse().unwrap();
            let bits = source.bits();
            let rest = u128::MAX.checked_shr(bits).unwrap_or(0);
            let net = u128::from_be_bytes(source.bytes());
            if inside {
                address = Ipv6Addr::from(net | u128::from_be_bytes(mapped(address)) & rest).into();
            }
            // The trie's match, and the condition of `policy.rs` of the kernel side.
            let key = mapped(address);
            let matches = u128::from_be_bytes(key) & !rest == net && (bits >= 96 || unmapped(key).is_ipv6());
            prop_assert_eq!(source.contains(address), matches);
        }
    }

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
            ("::ffff:192.0.2.1/128", "192.0.2.1", 128),
            ("::ffff:c000:200/120", "192.0.2.0/24", 120),
            ("::ffff:0:0/97", "0.0.0.0/1", 97),
            ("::FFFF:0:0/96", "0.0.0.0/0", 96),
            ("::fffe:0:0/95", "::fffe:0:0/95", 95),
            ("::ffff:0:0:0/96", "::ffff:0:0:0/96", 96),
            ("::/0", "::/0", 0),
        ] {
            let source = source(typed);
            assert_eq!(source.to_string(), shown);
            assert_eq!(source.bits(), bits, "{typed}");
            assert_eq!(Source::from_map(source.bytes(), source.bits()), Some(source), "{typed}");
        }
    }

    #[test]
    fn short_prefixes_are_wide() {
        for (typed, is_wide) in [
            ("0.0.0.0/0", true),
            ("224.0.0.0/4", true),
            ("10.0.0.0/7", true),
            ("10.0.0.0/8", false),
            ("10.0.0.1", false),
            ("::ffff:0:0/96", true),
            ("::ffff:10.0.0.0/104", false),
            ("::/0", true),
            ("2000::/15", true),
            ("2001::/16", false),
        ] {
            assert_eq!(source(typed).is_wide(), is_wide, "{typed}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = Source::from_str("203.0.113.7/24").unwrap_err();
        assert_eq!(
            error,
            "`203.0.113.7/24` has bits set behind its prefix length: write 203.0.113.0/24 or 203.0.113.7"
        );
        let error = Source::from_str("::ffff:203.0.113.7/120").unwrap_err();
        assert!(error.ends_with("write 203.0.113.0/24 or 203.0.113.7"), "{error}");
        for text in ["", "phone", "203.0.113.7:5060", "203.0.113.7/33", "1.2.3"] {
            assert!(
                Source::from_str(text).unwrap_err().contains("neither an address nor a prefix"),
                "{text}"
            );
        }
    }
}
