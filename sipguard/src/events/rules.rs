//! Which rule decided about a packet, in words, where its reason is a rule's. Asked when the event is told: a rule that has gone since is not
//! found any more.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::{TCP, TRANSPORTS, UDP};
use sipguard_common::framer::identity_of;
use sipguard_core::clock::Clock;
use sipguard_core::denial::Whom;
use sipguard_core::lookup::{ListedRule, LookupQuery, find};
use sipguard_core::pins::Pins;
use sipguard_core::rate::LimitKind;
use sipguard_core::store::{self, RuleRow};
use sipguard_core::target::{Device, Target};

use super::Sip;
use crate::redact::RedactedPacket;

/// How long an answer holds.
const KEPT: Duration = Duration::from_secs(2);
/// Answers that are kept at once.
const MOST_KEPT: usize = 1024;
/// Questions within [`KEPT`]. What is asked beyond them is not answered, so that a flood costs little.
const MOST_ASKED: usize = 64;

/// Answers which rule decided.
#[derive(Debug)]
pub struct RuleLookup {
    pins: Pins,
    store: PathBuf,
    found: HashMap<RuleSubject, Option<String>>,
    since: Instant,
    asked: usize,
}

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RuleSubject {
    Address(IpAddr),
    Device(SocketAddr),
    Claims([Option<String>; 3]),
    /// The trunk, whether it is TCP, and the method where it matters.
    Denied(Option<String>, bool, Option<String>),
    Limit(Option<String>, LimitKind),
}

impl RuleLookup {
    /// Of the guard with these pins and this store.
    #[must_use]
    pub fn new(pins: &Pins, store: &Path) -> RuleLookup {
        let (pins, store) = (pins.clone(), store.to_owned());
        RuleLookup { pins, store, found: HashMap::new(), since: Instant::now(), asked: 0 }
    }

    /// The rule that decided; `None` where the reason is no rule's, or the rule is not found.
    pub fn of(&mut self, packet: &RedactedPacket) -> Option<String> {
        let subject = subject(packet)?;
        if self.since.elapsed() > KEPT {
            self.found.clear();
            (self.since, self.asked) = (Instant::now(), 0);
        }
        if let Some(found) = self.found.get(&subject) {
            return found.clone();
        }
        if self.asked >= MOST_ASKED || self.found.len() >= MOST_KEPT {
            return None;
        }
        self.asked += 1;
        // An event is told also when the store can't be read.
        let rule = self.ask(&subject).ok().flatten();
        self.found.insert(subject, rule.clone());
        rule
    }

    fn ask(&self, subject: &RuleSubject) -> Result<Option<String>> {
        match subject {
            RuleSubject::Address(address) => self.decider(&LookupQuery::Address(*address, None)),
            RuleSubject::Device(device) => {
                self.decider(&LookupQuery::Address(device.ip(), Some(Device::from(*device))))
            }
            RuleSubject::Claims(claims) => self.claim(claims),
            RuleSubject::Denied(trunk, tcp, method) => self.denial(trunk.as_deref(), *tcp, method.as_deref()),
            RuleSubject::Limit(trunk, kind) => self.limit(trunk.as_deref(), *kind),
        }
    }

    fn decider(&self, asked: &LookupQuery) -> Result<Option<String>> {
        let found = find(&self.pins, &self.store, asked, &Clock::now()?)?;
        Ok(found.decider.as_ref().map(words))
    }

    /// Compares with the rules there are: to look up whatever a message says would keep its texts for ever.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    fn claim(&self, [from, contact, agent]: &[Option<String>; 3]) -> Result<Option<String>> {
        let rows = store::read(&self.store, |rows| rows.claims())?.unwrap_or_default();
        let uris = [from, contact].map(|text| text.as_deref().map(uri_of));
        let is = |row: &&RuleRow| match &row.target {
            Target::Identity(identity) => {
                let key = |uri: &str| identity_of(uri).map(|(key, _)| bytemuck::cast(key));
                uris.iter().flatten().any(|uri| key(uri) == Some(identity.key()))
            }
            Target::UserAgent(begin) => {
                let head = agent.as_ref().and_then(|agent| agent.get(..begin.text().len()));
                head.is_some_and(|head| head.eq_ignore_ascii_case(begin.text()))
            }
            Target::Source(_) | Target::Device(_) => false,
        };
        match rows.iter().find(is) {
            Some(row) => {
                let shown = row.target.to_string();
                self.decider(&LookupQuery::Claim { shown, targets: vec![row.target] })
            }
            None => Ok(None),
        }
    }

    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    fn denial(&self, trunk: Option<&str>, tcp: bool, method: Option<&str>) -> Result<Option<String>> {
        let whom = if trunk.is_some() { Whom::Trunks } else { Whom::Devices };
        let denials = store::read(&self.store, |rows| rows.denials())?.unwrap_or_default();
        // TLS is TCP, and by which port it came is the guard's to know.
        let way = |transport: usize| if tcp { transport != UDP } else { transport == UDP };
        let is = |denial: &&store::Denial| {
            let what = &denial.what;
            denial.whom == whom && way(what.transport) && what.method.map(|method| method.name) == method
        };
        if let Some(denial) = denials.iter().find(is) {
            let text = format!("deny {} from {} ({})", denial.what, whom.name(), denial.author);
            return Ok(Some(with_reason(text, &denial.reason)));
        }
        let way = TRANSPORTS[if tcp { TCP } else { UDP }];
        let what = method.map_or(way.to_owned(), |method| format!("{method}/{way}"));
        Ok(trunk.map(|trunk| format!("trunk {trunk} may not send {what}")))
    }

    fn limit(&self, trunk: Option<&str>, kind: LimitKind) -> Result<Option<String>> {
        let per = trunk.map_or("source".to_owned(), |trunk| format!("trunk {trunk}"));
        let found = store::read(&self.store, |rows| {
            Ok(match kind {
                LimitKind::Rate(kind) => {
                    let limits = rows.limits()?;
                    let limit = limits.iter().find(|one| one.kind == kind && one.trunk.as_deref() == trunk);
                    limit.map(|one| (one.limit.to_string(), one.author.clone()))
                }
                LimitKind::AtOnce(kind) => {
                    let limits = rows.at_once_limits()?;
                    let limit = limits.iter().find(|one| one.kind == kind && one.trunk.as_deref() == trunk);
                    limit.map(|one| (one.limit.to_string(), one.author.clone()))
                }
            })
        })?;
        Ok(found.flatten().map(|(most, author)| format!("limit {most} per {per} ({author})")))
    }
}

/// What to ask about a packet; `None` where its reason is no rule's.
fn subject(packet: &RedactedPacket) -> Option<RuleSubject> {
    let trunk = || packet.trunk.clone();
    let tcp = packet.header.as_ref().is_some_and(|header| header.tcp);
    let sip = || Sip::read(packet.payload());
    let reason = packet.reason;
    if matches!(reason, Reason::BlockedHost | Reason::BlockedPrefix | Reason::BannedAddress) {
        return packet.address().map(RuleSubject::Address);
    }
    if matches!(reason, Reason::BlockedDevice | Reason::BannedDevice) {
        return packet.source().map(RuleSubject::Device);
    }
    if reason == Reason::BlockedIdentity {
        return Some(RuleSubject::Claims([sip().from, sip().contact, None]));
    }
    if reason == Reason::BlockedUserAgent {
        return Some(RuleSubject::Claims([None, None, sip().user_agent]));
    }
    if matches!(reason, Reason::TransportDenied | Reason::MethodDenied) {
        let method = if reason == Reason::MethodDenied { sip().method } else { None };
        return Some(RuleSubject::Denied(trunk(), tcp, method));
    }
    Some(RuleSubject::Limit(trunk(), LimitKind::of_reason(reason)?))
}

/// The SIP URI in the value of a From or Contact, without what follows its host.
fn uri_of(value: &str) -> &str {
    let begin = value.find("sip").or_else(|| value.find("SIP")).unwrap_or(0);
    let uri = &value[begin..];
    &uri[..uri.find(['>', ';', ',', ' ', '?']).unwrap_or(uri.len())]
}

/// Such as `block 203.0.113.0/24 (cli): scanner`.
fn words(one: &ListedRule) -> String {
    with_reason(format!("{} {} ({})", one.name(), one.row.target, one.row.origin), &one.row.reason)
}

fn with_reason(text: String, reason: &str) -> String {
    if reason.is_empty() { text } else { format!("{text}: {reason}") }
}
