//! What a class of senders may not send: a transport as a whole, or a method over one.

use std::fmt;

use sipguard_common::abi::{CLASS_DEVICES, CLASS_TRUNKS, Denied, TCP, TLS, TRANSPORTS, UDP};
use sipguard_common::framer::methods::{self, METHODS, Method};

use crate::named::named;

/// Who may not send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Whoever is no trunk.
    Devices,
    /// All trunks.
    Trunks,
}

named!(Whom { Devices = "devices", Trunks = "trunks" });

impl Whom {
    /// Reads its name.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Whom, String> {
        Whom::of(text).ok_or_else(|| format!("`{text}` is nobody: write trunks or devices"))
    }

    /// Its position in the settings.
    #[must_use]
    pub const fn class(self) -> usize {
        match self {
            Whom::Devices => CLASS_DEVICES,
            Whom::Trunks => CLASS_TRUNKS,
        }
    }
}

/// What may not be sent: `tcp`, or `REGISTER/tcp`.
#[derive(Clone, Copy, Debug)]
pub struct DeniedTraffic {
    /// Position in [`TRANSPORTS`].
    pub transport: usize,
    /// The method, or `None` for all that comes that way.
    pub method: Option<&'static Method>,
}

impl DeniedTraffic {
    /// Its set of methods.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.method.map_or(methods::ALL, |method| method.bit)
    }

    /// Reads what an operator wrote; a method without a transport is meant over TCP and over UDP.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Vec<DeniedTraffic>, String> {
        if let Some(transport) = transport(text) {
            return Ok(vec![DeniedTraffic { transport, method: None }]);
        }
        let (name, way) = text.split_once('/').map_or((text, None), |(name, way)| (name, Some(way)));
        let method = METHODS.iter().find(|method| method.name.eq_ignore_ascii_case(name));
        let Some(method) = method else {
            let names: Vec<_> = METHODS.iter().map(|method| method.name).collect();
            return Err(format!(
                "`{name}` is neither a transport (tcp, tls, udp) nor a method ({}; OTHER is every other one)",
                names.join(", ")
            ));
        };
        let method = Some(method);
        match way.map(|way| (way, transport(way))) {
            None => {
                Ok(vec![DeniedTraffic { transport: TCP, method }, DeniedTraffic { transport: UDP, method }])
            }
            Some((_, Some(TLS))) => Err(format!(
                "`{text}`: over TLS no method can be told, for it is encrypted; write `tls` for all that comes over TLS"
            )),
            Some((_, Some(transport))) => Ok(vec![DeniedTraffic { transport, method }]),
            Some((way, None)) => {
                Err(format!("`{way}` is no transport: write {name}, {name}/tcp or {name}/udp"))
            }
        }
    }

    /// Every single thing that a set holds, as it would be denied.
    #[must_use]
    pub fn of(denied: &Denied) -> Vec<DeniedTraffic> {
        let mut all = Vec::new();
        for (transport, bits) in denied.iter().enumerate() {
            if *bits == methods::ALL {
                all.push(DeniedTraffic { transport, method: None });
            } else if transport != TLS {
                let methods = METHODS.iter().filter(|method| bits & method.bit != 0);
                all.extend(methods.map(|method| DeniedTraffic { transport, method: Some(method) }));
            }
        }
        all
    }

    /// Adds it to a set. What speaks plain SIP on a TLS port is held to what TCP may carry.
    pub fn deny(&self, denied: &mut Denied) {
        denied[self.transport] |= self.bits();
        if let (TCP, Some(method)) = (self.transport, self.method) {
            denied[TLS] |= method.bit;
        }
    }
}

impl fmt::Display for DeniedTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = TRANSPORTS[self.transport];
        match self.method {
            Some(method) => write!(f, "{}/{transport}", method.name),
            None => f.write_str(transport),
        }
    }
}

/// Position of a transport by its name.
#[must_use]
pub fn transport(text: &str) -> Option<usize> {
    TRANSPORTS.iter().position(|name| name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        Ok(DeniedTraffic::parse(text)?.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn forms() {
        for (typed, meant) in [
            ("tcp", "tcp"),
            ("TLS", "tls"),
            ("register/tcp", "REGISTER/tcp"),
            ("Options", "OPTIONS/tcp OPTIONS/udp"),
            ("other/UDP", "OTHER/udp"),
        ] {
            assert_eq!(parsed(typed).as_deref(), Ok(meant), "{typed}");
        }
        for (typed, part) in [
            ("register/tls", "no method can be told"),
            ("sctp", "neither a transport"),
            ("register/sctp", "`sctp` is no transport"),
            ("tcp/udp", "neither a transport"),
            ("", "neither a transport"),
        ] {
            assert!(parsed(typed).unwrap_err().contains(part), "{typed}");
        }
    }

    #[test]
    fn what_is_denied_can_be_read_back() {
        let mut denied = [0; 3];
        for text in ["register/tcp", "options", "tls"] {
            DeniedTraffic::parse(text).unwrap().iter().for_each(|what| what.deny(&mut denied));
        }
        assert_eq!(denied, [methods::REGISTER | methods::OPTIONS, methods::ALL, methods::OPTIONS]);
        let shown: Vec<_> = DeniedTraffic::of(&denied).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["OPTIONS/tcp", "REGISTER/tcp", "tls", "OPTIONS/udp"]);
    }

    #[test]
    fn plain_sip_on_a_tls_port_is_held_to_the_methods_of_tcp_alone() {
        let mut denied = [0; 3];
        DeniedTraffic::parse("register/tcp").unwrap()[0].deny(&mut denied);
        DeniedTraffic::parse("tcp").unwrap()[0].deny(&mut denied);
        assert_eq!(denied, [methods::ALL, methods::REGISTER, 0]);
    }
}
