//! Which events are wanted.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_core::address;
use sipguard_core::near;
use sipguard_core::target::Target;
use sipguard_core::trunk;

use crate::tap::{Names, TapPacket};

/// Whom packets are from: an address, a prefix, or an address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderFilter {
    /// Address or prefix.
    pub net: address::Source,
    /// The port, if one is named.
    pub port: Option<u16>,
}

impl FromStr for SenderFilter {
    type Err = String;

    /// `ADDR`, `ADDR/LEN` or `ADDR:PORT`.
    fn from_str(text: &str) -> Result<SenderFilter, String> {
        match text.parse::<Target>() {
            Ok(Target::Source(net)) => Ok(SenderFilter { net, port: None }),
            Ok(Target::Device(device)) => {
                Ok(SenderFilter { net: device.host(), port: Some(u16::from_be_bytes(device.key().port)) })
            }
            _ => Err(format!(
                "`{text}` is neither an address, a prefix nor a device (such as 203.0.113.7, 2001:db8::/32 or 203.0.113.7:5060)"
            )),
        }
    }
}

impl SenderFilter {
    /// Whether a packet is from there.
    #[must_use]
    pub fn has(&self, from: SocketAddr) -> bool {
        let address: IpAddr = from.ip().to_canonical();
        self.net.contains(address) && self.port.is_none_or(|port| port == from.port())
    }
}

/// A reason by its word.
pub fn reason(word: &str) -> Result<Reason, String> {
    let found = Reason::ALL.iter().find(|reason| reason.name() == word);
    found.copied().ok_or_else(|| {
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let hint = near::hint(word, known.iter().copied());
        format!("`{word}` is no reason{hint}; known are {}", known.join(", "))
    })
}

/// What is asked for; nothing asks for all.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Any of these reasons.
    pub reasons: Vec<Reason>,
    /// From any of these.
    pub sources: Vec<SenderFilter>,
    /// Of this trunk.
    pub trunk: Option<String>,
    /// Over this interface.
    pub interface: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
}

impl EventFilter {
    /// Whether the trunk and the interface that it names are there: a filter of others would find nothing for ever, without a word.
    ///
    /// # Errors
    /// What is not there, and what is, for people.
    pub(crate) fn names_what_is_there(&self, names: &Names) -> Result<(), String> {
        let list = |known: Vec<&String>| {
            let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
            if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("known are {}", known.join(", "))
            }
        };
        if let Some(name) = &self.trunk
            && !names.trunks.values().any(|known| known == name)
        {
            return Err(trunk::unknown(name, names.trunks.values().map(String::as_str)));
        }
        if let Some(name) = &self.interface
            && !names.interfaces.values().any(|known| known == name)
        {
            let known = list(names.interfaces.values().collect());
            return Err(format!("sipguard is not attached to an interface `{name}`; {known}"));
        }
        Ok(())
    }

    /// Whether a packet is asked for.
    #[must_use]
    pub fn wants(&self, packet: &TapPacket) -> bool {
        let from = |source: &SenderFilter| packet.source().is_some_and(|from| source.has(from));
        (self.reasons.is_empty() || self.reasons.contains(&packet.reason))
            && (self.sources.is_empty() || self.sources.iter().any(from))
            && (self.trunk.is_none() || self.trunk == packet.trunk)
            && self.interface.as_ref().is_none_or(|name| *name == packet.interface)
            && self.since.is_none_or(|since| packet.time >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named_beside_what_is() {
        let names = Names {
            interfaces: [(0, "eth0".to_owned())].into(),
            trunks: [(1, "carrier".to_owned()), (2, "other".to_owned())].into(),
        };
        let filter = |trunk: Option<&str>, interface: Option<&str>| EventFilter {
            trunk: trunk.map(str::to_owned),
            interface: interface.map(str::to_owned),
            ..EventFilter::default()
        };
        assert_eq!(filter(None, None).names_what_is_there(&names), Ok(()));
        assert_eq!(filter(Some("other"), Some("eth0")).names_what_is_there(&names), Ok(()));
        let error = |filter: EventFilter, names: &Names| filter.names_what_is_there(names).unwrap_err();
        assert_eq!(
            error(filter(Some("nope"), None), &names),
            "there is no trunk nope; known are carrier, other"
        );
        assert_eq!(
            error(filter(None, Some("eth9")), &names),
            "sipguard is not attached to an interface `eth9`; known are eth0"
        );
        assert!(error(filter(None, Some("eth9")), &Names::default()).ends_with("there are none"));
        assert_eq!(reason("bare-lf"), Ok(Reason::BareLf));
        let wrong = reason("bare-fl").unwrap_err();
        assert!(wrong.contains("`bare-fl`") && wrong.contains(" bare-lf,"), "{wrong}");
    }

    #[test]
    fn sources() {
        for (text, from, is) in [
            ("192.0.2.7", "192.0.2.7:1", true),
            ("192.0.2.7", "[::ffff:192.0.2.7]:1", true),
            ("192.0.2.0/24", "192.0.2.9:1", true),
            ("192.0.2.0/24", "192.0.3.9:1", false),
            ("192.0.2.7:5060", "192.0.2.7:5060", true),
            ("192.0.2.7:5060", "192.0.2.7:5061", false),
            ("[2001:db8::7]:5060", "[2001:db8::7]:5060", true),
            ("2001:db8::/32", "[2001:db8::7]:5060", true),
            ("::/0", "192.0.2.7:1", false),
        ] {
            assert_eq!(text.parse::<SenderFilter>().unwrap().has(from.parse().unwrap()), is, "{text} {from}");
        }
        for text in ["", "phone", "sip:a@b", "192.0.2.7/24", "user-agent:abc"] {
            assert!(text.parse::<SenderFilter>().is_err(), "{text}");
        }
    }
}
