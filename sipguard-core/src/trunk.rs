//! Trunks, and the policy of each: what it may send, how its messages are judged, and in which mode. Pure.

use bytemuck::Zeroable;
use sipguard_common::abi::{
    Denied, TLS, TRANSPORTS, TRUNK_ENFORCES, TRUNK_INHERITS, TRUNK_MONITORS, Trunk, is_transport,
};
use sipguard_common::framer::methods::{self, METHODS};
use sipguard_common::framer::{Limits, checks};

use crate::address::Source;
use crate::denial::transport;
use crate::named::named;
use crate::near;

/// By what a trunk's messages are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkProfile {
    /// As everybody's.
    Inherit,
    /// The default profile, whatever the guard has.
    Default,
    /// The strict one.
    Strict,
}

/// Whether a trunk's faults are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkMode {
    /// As the guard's mode says.
    Inherit,
    /// Always.
    Enforce,
    /// Only counted.
    Monitor,
}

/// A trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkRow {
    /// Its name.
    pub name: String,
    /// Its index in the kernel's map.
    pub number: u16,
    /// Whose addresses are its own.
    pub peers: Vec<Source>,
    /// Its policy.
    pub policy: TrunkPolicy,
    /// What it is; may be empty.
    pub reason: String,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// Since when (milliseconds since 1970, UTC).
    pub created_ms: i64,
}

/// The policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrunkPolicy {
    /// Transports that it may use, by position in [`TRANSPORTS`].
    pub transports: [bool; TRANSPORTS.len()],
    /// Methods that it may send, or [`methods::ALL`].
    pub methods: u32,
    /// How its messages are judged.
    pub profile: TrunkProfile,
    /// Its mode.
    pub mode: TrunkMode,
    /// Whether its peers are balancers, whose TCP connections begin with a PROXY header.
    pub proxy_protocol: bool,
}

named!(TrunkProfile { Inherit = "inherit", Default = "default", Strict = "strict" });
named!(TrunkMode { Inherit = "inherit", Enforce = "enforce", Monitor = "monitor" });

impl TrunkProfile {
    /// Reads its name.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<TrunkProfile, String> {
        TrunkProfile::of(text)
            .ok_or_else(|| format!("`{text}` is no profile: write one of {}", TrunkProfile::names()))
    }
}

impl TrunkMode {
    /// Reads its name.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<TrunkMode, String> {
        TrunkMode::of(text).ok_or_else(|| format!("`{text}` is no mode: write one of {}", TrunkMode::names()))
    }
}

impl Default for TrunkPolicy {
    fn default() -> TrunkPolicy {
        TrunkPolicy {
            transports: [true; 3],
            methods: methods::ALL,
            profile: TrunkProfile::Inherit,
            mode: TrunkMode::Inherit,
            proxy_protocol: false,
        }
    }
}

impl TrunkPolicy {
    /// The kernel's form.
    #[must_use]
    pub fn entry(&self) -> Trunk {
        let mut denied: Denied = [0; TRANSPORTS.len()];
        for (bits, may) in denied.iter_mut().zip(self.transports) {
            *bits = if !may {
                methods::ALL
            } else if self.methods == methods::ALL {
                0
            } else {
                METHODS.iter().map(|method| method.bit).fold(0, |all, bit| all | bit) & !self.methods
            };
        }
        let (own_limits, limits) = match self.profile {
            TrunkProfile::Inherit => (0, Limits::zeroed()),
            TrunkProfile::Default => (1, Limits::default()),
            TrunkProfile::Strict => (1, Limits::strict()),
        };
        let mode = match self.mode {
            TrunkMode::Inherit => TRUNK_INHERITS,
            TrunkMode::Enforce => TRUNK_ENFORCES,
            TrunkMode::Monitor => TRUNK_MONITORS,
        };
        let proxy_protocol = u32::from(self.proxy_protocol);
        Trunk { limits, denied, own_limits, mode, proxy_protocol, ..Trunk::zeroed() }
    }

    /// What an entry of the kernel means.
    #[must_use]
    pub fn of(entry: &Trunk) -> TrunkPolicy {
        let one = entry.denied.iter().enumerate().find(|(at, bits)| *at != TLS && !is_transport(**bits));
        let denied = one.map_or(0, |(_, bits)| *bits);
        TrunkPolicy {
            transports: entry.denied.map(|bits| !is_transport(bits)),
            methods: if denied == 0 { methods::ALL } else { every() & !denied },
            profile: match entry.own_limits {
                0 => TrunkProfile::Inherit,
                _ if entry.limits.checks & checks::STRICT == checks::STRICT => TrunkProfile::Strict,
                _ => TrunkProfile::Default,
            },
            mode: match entry.mode {
                TRUNK_ENFORCES => TrunkMode::Enforce,
                TRUNK_MONITORS => TrunkMode::Monitor,
                _ => TrunkMode::Inherit,
            },
            proxy_protocol: entry.proxy_protocol != 0,
        }
    }

    /// What was hardly meant, for people.
    #[must_use]
    pub fn warn(&self) -> Option<&'static str> {
        const DIALOG: u32 = methods::ACK | methods::BYE | methods::CANCEL;
        let calls = self.methods & methods::INVITE != 0 && self.methods & DIALOG != DIALOG;
        calls.then_some("it may send INVITE, and not all of ACK, BYE and CANCEL: its calls will fail")
    }

    /// `udp,tls` or `all`.
    #[must_use]
    pub fn transports_text(&self) -> String {
        let may = TRANSPORTS.iter().zip(self.transports).filter(|(_, may)| *may).map(|(name, _)| *name);
        if self.transports == [true; 3] { "all".to_owned() } else { may.collect::<Vec<_>>().join(",") }
    }

    /// `INVITE,ACK` or `all`.
    #[must_use]
    pub fn methods_text(&self) -> String {
        if self.methods == methods::ALL {
            return "all".to_owned();
        }
        let may = METHODS.iter().filter(|method| self.methods & method.bit != 0).map(|method| method.name);
        may.collect::<Vec<_>>().join(",")
    }
}

/// Every method.
fn every() -> u32 {
    METHODS.iter().fold(0, |all, method| all | method.bit)
}

/// Reads `udp,tls` or `all`.
///
/// # Errors
/// What is wrong, for people.
pub fn transports(text: &str) -> Result<[bool; TRANSPORTS.len()], String> {
    if text == "all" {
        return Ok([true; TRANSPORTS.len()]);
    }
    let mut may = [false; TRANSPORTS.len()];
    for word in text.split(',') {
        let at = transport(word)
            .ok_or_else(|| format!("`{word}` is no transport: write such as udp,tcp,tls, or all"))?;
        may[at] = true;
    }
    Ok(may)
}

/// Reads `INVITE,ACK` or `all`.
///
/// # Errors
/// What is wrong, for people.
pub fn method_set(text: &str) -> Result<u32, String> {
    if text == "all" {
        return Ok(methods::ALL);
    }
    text.split(',').try_fold(0, |all, word| {
        let found = METHODS.iter().find(|method| method.name.eq_ignore_ascii_case(word));
        let names = || METHODS.iter().map(|method| method.name).collect::<Vec<_>>().join(",");
        found.map(|method| all | method.bit).ok_or_else(|| {
            format!("`{word}` is no method: write all, or of {} those that it may send", names())
        })
    })
}

/// Reads a trunk's name.
///
/// # Errors
/// What is wrong, for people.
pub fn name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if !(1..=32).contains(&text.len()) || !text.bytes().all(fits) {
        return Err(format!("`{text}` is no name of a trunk: 1 to 32 of a-z, 0-9 and -_."));
    }
    if ["trunks", "devices"].contains(&text) {
        return Err(format!("`{text}` names a class of senders: choose another name"));
    }
    Ok(text.to_owned())
}

/// Trunks that are named where one is unknown; more are in `trunk list`.
const MOST_NAMED: usize = 8;

/// That there is no trunk of a name, with those that may have been meant.
#[must_use]
pub fn unknown<'n>(name: &str, trunks: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = trunks.into_iter().collect();
    if names.is_empty() {
        return format!("there is no trunk {name}, nor any other: `sipguard trunk add` makes one");
    }
    let hint = near::hint(name, names.iter().copied());
    if names.len() > MOST_NAMED {
        return format!("there is no trunk {name}{hint}: `sipguard trunk list` shows those that there are");
    }
    format!("there is no trunk {name}{hint}; known are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_no_trunk_is_told_who_is() {
        let told = |names: &[&'static str]| unknown("carier", names.iter().copied());
        assert_eq!(told(&[]), "there is no trunk carier, nor any other: `sipguard trunk add` makes one");
        assert_eq!(
            told(&["lb", "carrier"]),
            "there is no trunk carier (did you mean carrier?); known are lb, carrier"
        );
        assert_eq!(told(&["lb"]), "there is no trunk carier; known are lb");
        let list = "there is no trunk carier: `sipguard trunk list` shows those that there are";
        assert_eq!(told(&["lb"; MOST_NAMED + 1]), list);
    }

    #[test]
    fn what_it_may_send_is_all_that_is_not_denied() {
        let policy = TrunkPolicy {
            transports: transports("udp,TLS").unwrap(),
            methods: method_set("INVITE,ack,other").unwrap(),
            profile: TrunkProfile::Strict,
            mode: TrunkMode::Monitor,
            proxy_protocol: true,
        };
        let entry = policy.entry();
        let [tcp, tls, udp] = entry.denied;
        assert_eq!((tcp, tls), (methods::ALL, udp));
        assert_eq!(udp & (methods::INVITE | methods::ACK | methods::OTHER), 0);
        assert_eq!(udp & methods::REGISTER, methods::REGISTER);
        assert!(!is_transport(udp));
        assert_eq!(TrunkPolicy::of(&entry), policy);
        assert_eq!(
            (policy.transports_text(), policy.methods_text()),
            ("tls,udp".into(), "INVITE,ACK,OTHER".into())
        );
        assert_eq!(TrunkPolicy::default().entry(), Trunk::zeroed());
        assert_eq!(TrunkPolicy::of(&Trunk::zeroed()), TrunkPolicy::default());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(transports("udp,sctp").unwrap_err().contains("`sctp`"));
        assert!(method_set("INVITE,CALL").unwrap_err().contains("`CALL`"));
        for text in ["", "Carrier", "two words", "trunks", "a-name-that-has-thirty-three-bytes"] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
