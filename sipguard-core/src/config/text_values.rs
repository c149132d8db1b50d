//! The values that are written as text.

use std::time::Duration;

use serde_json::{Value, json};
use sipguard_common::abi::TRANSPORTS;
use sipguard_common::framer::methods::METHODS;

use super::value::Written;
use crate::address::Source;
use crate::claim::UserAgent;
use crate::denial::DeniedTraffic;
use crate::duration::parse_duration;
use crate::service::{Keep, Listen};
use crate::{ban_rule, rate, store, trunk};

/// How long; it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub Duration);

impl Written for Span {
    const FORM: &'static str = "a duration such as \"60s\"";

    fn read(text: &str) -> Result<Self, String> {
        let span = parse_duration(text)?.0;
        span.map(Span).ok_or_else(|| "it can't be permanent: write such as 60s or 5m".to_owned())
    }
}

/// A time of the bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BanSpan(pub Duration);

impl Written for BanSpan {
    const FORM: &'static str = "a duration such as \"60s\"";

    fn read(text: &str) -> Result<Self, String> {
        ban_rule::parse_span(text).map(BanSpan)
    }
}

/// How many a second and how many at once, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(pub Option<rate::RateLimit>);

impl Written for Rate {
    const FORM: &'static str =
        "a limit such as \"200/s burst 3000\" or \"200/s burst 3000 monitor\", or \"none\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Rate(None));
        }
        let (limit, mode) = rate::split_mode(text);
        rate::parse(limit, mode).map(|rate| Rate(Some(rate))).map_err(|error| format!("{error}, or none"))
    }

    fn schema() -> Value {
        json!({ "pattern": "^(none|[0-9]+/s( burst [0-9]+)?( monitor)?)$" })
    }
}

impl Written for Source {
    const FORM: &'static str = "an address or a prefix such as \"198.51.100.0/28\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Written for Listen {
    const FORM: &'static str = "an address and a port such as \"127.0.0.1:9506\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl Written for Keep {
    const FORM: &'static str = "a file with its whole path, or \"none\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl Written for UserAgent {
    const FORM: &'static str = "how a User-Agent begins, such as \"friendly-scanner\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

/// What may not be sent: one word may mean several things.
#[derive(Clone, Debug)]
pub(super) struct Denials(pub Vec<DeniedTraffic>);

impl Written for Denials {
    const FORM: &'static str =
        "a transport such as \"tcp\", a method such as \"register\", or both: \"register/tcp\"";

    fn read(text: &str) -> Result<Self, String> {
        DeniedTraffic::parse(text).map(Denials)
    }
}

/// Transports that may be used, by position in [`TRANSPORTS`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Transports(pub [bool; TRANSPORTS.len()]);

impl Written for Transports {
    const FORM: &'static str = "a transport: \"udp\", \"tcp\", \"tls\" or \"all\"";

    fn read(text: &str) -> Result<Self, String> {
        trunk::transports(text).map(Transports)
    }

    fn schema() -> Value {
        json!({ "enum": ["udp", "tcp", "tls", "all"] })
    }
}

/// Methods that may be sent, as a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Methods(pub u32);

impl Written for Methods {
    const FORM: &'static str = "a method such as \"INVITE\", or \"all\"";

    fn read(text: &str) -> Result<Self, String> {
        trunk::method_set(text).map(Methods)
    }

    fn schema() -> Value {
        let names: Vec<_> = METHODS.iter().map(|method| method.name).chain(["all"]).collect();
        json!({ "enum": names })
    }
}

impl Written for trunk::TrunkProfile {
    const FORM: &'static str = "\"inherit\", \"default\" or \"strict\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn schema() -> Value {
        json!({ "enum": Self::ALL.iter().map(|one| one.name()).collect::<Vec<_>>() })
    }
}

impl Written for trunk::TrunkMode {
    const FORM: &'static str = "\"inherit\", \"enforce\" or \"monitor\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn schema() -> Value {
        json!({ "enum": Self::ALL.iter().map(|one| one.name()).collect::<Vec<_>>() })
    }
}

/// The name of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TrunkName(pub String);

impl Written for TrunkName {
    const FORM: &'static str = "the name of a trunk";

    fn read(text: &str) -> Result<Self, String> {
        trunk::name(text).map(TrunkName)
    }
}

/// A reason: one line.
#[derive(Clone, Debug)]
pub(super) struct Reason(pub String);

impl Written for Reason {
    const FORM: &'static str = "a reason in one line";

    fn read(text: &str) -> Result<Self, String> {
        store::parse_reason(text).map(Reason)
    }
}

/// The name of an interface.
#[derive(Clone, Debug)]
pub(super) struct Interface(pub String);

impl Written for Interface {
    const FORM: &'static str = "the name of an interface";

    fn read(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if (1..=15).contains(&text.len()) && text.bytes().all(fits) {
            return Ok(Interface(text.to_owned()));
        }
        Err(format!("`{text}` is no name of an interface: 1 to 15 characters without blanks and `/`"))
    }
}
