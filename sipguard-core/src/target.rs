//! Whom a rule is about: an address, a prefix, one device of an address, or what a request says of itself.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use sipguard_common::abi::DeviceKey;

use crate::address::{Source, mapped, unmapped};
use crate::claim::{Identity, USER_AGENT, UserAgent};

/// An address and a port: one device, also where others share its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device(SocketAddr);

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A host or a prefix, with all that comes from there.
    Source(Source),
    /// One device, on guarded ports.
    Device(Device),
    /// Requests of a SIP identity, on guarded ports.
    Identity(Identity),
    /// Requests whose User-Agent begins so, on guarded ports.
    UserAgent(UserAgent),
}

impl Device {
    /// Its address, as a host.
    #[must_use]
    pub fn host(&self) -> Source {
        Source::from(self.0.ip())
    }

    /// The map's form.
    #[must_use]
    pub fn key(&self) -> DeviceKey {
        DeviceKey { address: mapped(self.0.ip()), port: self.0.port().to_be_bytes(), pad: [0; 2] }
    }

    /// From the map's form.
    #[must_use]
    pub(crate) fn from_key(key: &DeviceKey) -> Device {
        Device(SocketAddr::new(unmapped(key.address), u16::from_be_bytes(key.port)))
    }
}

impl From<SocketAddr> for Device {
    fn from(address: SocketAddr) -> Device {
        Device(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl Target {
    /// The host or prefix, or that of the device, where it is about an address.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        match self {
            Target::Source(source) => Some(*source),
            Target::Device(device) => Some(device.host()),
            Target::Identity(_) | Target::UserAgent(_) => None,
        }
    }

    /// The kind in the store.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Target::Source(source) if source.is_host() => "host",
            Target::Source(_) => "prefix",
            Target::Device(_) => "device",
            Target::Identity(_) => "identity",
            Target::UserAgent(_) => "user-agent",
        }
    }

    /// Whether it is a host or a prefix: others can be blocked, but not allowed.
    #[must_use]
    pub fn is_source(&self) -> bool {
        matches!(self, Target::Source(_))
    }
}

/// The device that an address is written for by mistake: `2001:db8::5:5060` is an IPv6 address, and whoever writes it means `[2001:db8::5]:5060`
/// where its last group is one of `ports`, and the rest is an address as well.
#[must_use]
pub fn device_without_brackets(text: &str, ports: &[u16]) -> Option<Device> {
    let (address, port) = text.rsplit_once(':')?;
    let port = ports.iter().find(|known| known.to_string() == port)?;
    text.parse::<Ipv6Addr>().ok()?;
    Some(SocketAddr::new(address.parse::<Ipv6Addr>().ok()?.into(), *port).into())
}

impl From<Source> for Target {
    fn from(source: Source) -> Target {
        Target::Source(source)
    }
}

impl From<IpAddr> for Target {
    fn from(address: IpAddr) -> Target {
        Target::Source(Source::from(address))
    }
}

impl From<Device> for Target {
    fn from(device: Device) -> Target {
        Target::Device(device)
    }
}

impl FromStr for Target {
    type Err = String;

    /// `ADDR`, `ADDR/LEN`, `ADDR:PORT`, `sip:USER@HOST` or `user-agent:TEXT`.
    fn from_str(text: &str) -> Result<Target, String> {
        let scheme = text.split(':').next().unwrap_or_default();
        if ["sip", "sips"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Identity::parse(text).map(Target::Identity);
        }
        if let Some(agent) = text.strip_prefix(USER_AGENT) {
            return UserAgent::parse(agent).map(Target::UserAgent);
        }
        if let Ok(device) = text.parse::<SocketAddr>() {
            return match device {
                SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                    Err(format!("`{text}` names an interface: write the address without `%`"))
                }
                _ if device.port() == 0 => Err(format!("`{text}`: no device has the port 0")),
                _ => Ok(Device::from(device).into()),
            };
        }
        text.parse().map(Target::Source).map_err(|error: String| {
            error.replace(
                "is neither an address nor a prefix (such as 203.0.113.7 or 2001:db8::/32)",
                "is neither an address, a prefix, a device nor a SIP identity (such as 203.0.113.7, 2001:db8::/32, 203.0.113.7:4001 or sip:1234@pbx.example)",
            )
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Source(source) => source.fmt(f),
            Target::Device(device) => device.fmt(f),
            Target::Identity(identity) => identity.fmt(f),
            Target::UserAgent(agent) => agent.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::tests::{addresses, typed};

    /// Targets of every kind, as they are typed.
    fn all() -> impl Strategy<Value = String> {
        prop_oneof![
            typed(),
            (addresses(), 1u16..).prop_map(|(address, port)| SocketAddr::new(address, port).to_string()),
            "[sS]ips?:[a-zA-Z0-9._+-]{1,20}@[a-zA-Z0-9.-]{1,20}",
            "user-agent:[!-~][ -~]{1,30}[!-~]",
        ]
    }

    proptest! {
        #[test]
        fn there_is_one_form_of_each(typed in all()) {
            // An identity may be none: what is refused has no form.
            let Ok(target) = typed.parse::<Target>() else {
                prop_assert!(typed.to_ascii_lowercase().starts_with("sip"), "{} is refused", typed);
                return Ok(());
            };
            prop_assert_eq!(target.to_string().parse(), Ok(target));
            let of_map = match target {
                Target::Source(source) => Source::from_map(source.bytes(), source.bits()).map(Target::from),
                Target::Device(device) => Some(Device::from_key(&device.key()).into()),
                Target::Identity(identity) => Some(Target::Identity(Identity::from_key(&identity.key()))),
                Target::UserAgent(agent) => Some(Target::UserAgent(UserAgent::from_key(&agent.key()))),
            };
            prop_assert_eq!(of_map, Some(target));
        }
    }

    #[test]
    fn a_device_without_brackets_is_seen_where_both_can_be_meant() {
        for (typed, device) in [
            ("2001:db8::5:5060", Some("[2001:db8::5]:5060")),
            ("fd77::5061", None),
            ("fd77:0::5061", None),
            ("fd77::1:5061", Some("[fd77::1]:5061")),
            ("::5:5060", Some("[::5]:5060")),
            ("2001:db8::5:5062", None),
            ("2001:db8::5:05060", None),
            ("2001:db8:1:2:3:4:5:5060", None),
            ("[2001:db8::5]:5060", None),
            ("203.0.113.7:5060", None),
            ("sip:1234@pbx:5060", None),
        ] {
            let found = device_without_brackets(typed, &[5060, 5061]).map(|device| device.to_string());
            assert_eq!(found.as_deref(), device, "{typed}");
        }
    }

    #[test]
    fn forms() {
        for (typed, shown, kind) in [
            ("203.0.113.7", "203.0.113.7", "host"),
            ("203.0.113.0/24", "203.0.113.0/24", "prefix"),
            ("203.0.113.7:4001", "203.0.113.7:4001", "device"),
            ("[2001:db8::7]:4001", "[2001:db8::7]:4001", "device"),
            ("[::ffff:203.0.113.7]:4001", "203.0.113.7:4001", "device"),
            ("Sip:1234@PBX.example", "sip:1234@pbx.example", "identity"),
            ("user-agent:Friendly Scanner", "user-agent:friendly scanner", "user-agent"),
        ] {
            let target: Target = typed.parse().unwrap();
            assert_eq!((target.to_string().as_str(), target.kind()), (shown, kind), "{typed}");
            if let Target::Device(device) = target {
                assert_eq!(Device::from_key(&device.key()), device, "{typed}");
            }
        }
        for typed in [
            "",
            "phone",
            "203.0.113.7:0",
            "203.0.113.7:70000",
            "203.0.113.0/24:4001",
            "[fe80::1%2]:5060",
            "sip:pbx",
            "user-agent:ab",
        ] {
            assert!(typed.parse::<Target>().is_err(), "{typed}");
        }
    }
}
