//! Which rule decided about a packet, in words, where its reason is a rule's. Asked when the event is told: of a rule that has gone since the trail
//! may tell, and one that was set after the event did not decide about it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::abi::{TCP, TRANSPORTS, UDP};
use sipguard_common::framer::identity_of;
use sipguard_core::check::CheckScope;
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
    found: HashMap<RuleSubject, Option<Answer>>,
    since: Instant,
    asked: usize,
}

/// The rule that decides now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    /// In words.
    rule: String,
    /// Since when it is as it is (milliseconds since 1970, UTC); `None` where that is not known.
    since_ms: Option<i64>,
    /// What is certain of what was decided before.
    before: Option<String>,
}

impl Answer {
    /// Of a rule about which nothing is certain before it was set.
    fn since(rule: String, since_ms: i64) -> Answer {
        Answer { rule, since_ms: Some(since_ms), before: None }
    }

    /// What decided at a time.
    fn at(&self, time_ms: i64) -> Option<String> {
        let is_younger = self.since_ms.is_some_and(|since_ms| time_ms < since_ms);
        if is_younger { self.before.clone() } else { Some(self.rule.clone()) }
    }
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
        let time_ms = packet.time.as_millisecond();
        if let Some(found) = self.found.get(&subject) {
            return found.as_ref().and_then(|answer| answer.at(time_ms));
        }
        if self.asked >= MOST_ASKED || self.found.len() >= MOST_KEPT {
            return None;
        }
        self.asked += 1;
        // An event is told also when the store can't be read.
        let answer = self.ask(&subject).ok().flatten();
        let rule = answer.as_ref().and_then(|answer| answer.at(time_ms));
        self.found.insert(subject, answer);
        rule
    }

    fn ask(&self, subject: &RuleSubject) -> Result<Option<Answer>> {
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

    fn decider(&self, asked: &LookupQuery) -> Result<Option<Answer>> {
        let found = find(&self.pins, &self.store, asked, &Clock::now()?)?;
        let Some(one) = &found.decider else { return self.lifted(asked) };
        // Of a ban, and of what was found in the kernel, it is not known since when there is one.
        let is_known = !one.is_ban && one.row.origin != store::RECOVERED;
        let since_ms = is_known.then_some(one.row.created_ms);
        Ok(Some(Answer { rule: words(one), since_ms, before: None }))
    }

    /// A block that decided and holds no more, as far as the trail names it.
    fn lifted(&self, asked: &LookupQuery) -> Result<Option<Answer>> {
        let target = match (asked.device(), asked.address()) {
            (Some(device), _) => device.into(),
            (None, Some(address)) => Target::from(address),
            (None, None) => return Ok(None),
        };
        let last = store::read(&self.store, |rows| rows.last_block(target))?.flatten();
        Ok(last.map(|(origin, reason)| {
            let rule = with_reason(format!("block {target} ({origin}), lifted since"), &reason);
            Answer { rule, since_ms: None, before: None }
        }))
    }

    /// Compares with the rules there are: to look up whatever a message says would keep its texts for ever.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    fn claim(&self, [from, contact, agent]: &[Option<String>; 3]) -> Result<Option<Answer>> {
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
    fn denial(&self, trunk: Option<&str>, tcp: bool, method: Option<&str>) -> Result<Option<Answer>> {
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
            return Ok(Some(Answer::since(with_reason(text, &denial.reason), denial.created_ms)));
        }
        let way = TRANSPORTS[if tcp { TCP } else { UDP }];
        let what = method.map_or(way.to_owned(), |method| format!("{method}/{way}"));
        let rule = trunk.map(|trunk| format!("trunk {trunk} may not send {what}"));
        Ok(rule.map(|rule| Answer { rule, since_ms: None, before: None }))
    }

    fn limit(&self, trunk: Option<&str>, kind: LimitKind) -> Result<Option<Answer>> {
        let found = store::read(&self.store, |rows| {
            Ok(match kind {
                LimitKind::Rate(kind) => {
                    let limits = rows.limits()?;
                    let limit = limits.iter().find(|one| one.kind == kind && one.trunk.as_deref() == trunk);
                    limit.map(|one| (one.limit.to_string(), one.author.clone(), one.created_ms))
                }
                LimitKind::AtOnce(kind) => {
                    let limits = rows.at_once_limits()?;
                    let limit = limits.iter().find(|one| one.kind == kind && one.trunk.as_deref() == trunk);
                    limit.map(|one| (one.limit.to_string(), one.author.clone(), one.created_ms))
                }
            })
        })?;
        Ok(found.flatten().map(|(most, author, since_ms)| limited(trunk, &most, &author, since_ms)))
    }
}

/// A limit that holds since a time. How large it was before is not known.
fn limited(trunk: Option<&str>, most: &str, author: &str, since_ms: i64) -> Answer {
    let whom = CheckScope::of_limit(trunk);
    let rule = format!("limit {most} for {whom} ({author})");
    Answer {
        rule,
        since_ms: Some(since_ms),
        before: Some(format!("limit for {whom}, which was set anew since")),
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
pub(crate) fn uri_of(value: &str) -> &str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_set_later_did_not_decide() {
        let answer = limited(None, "20/s burst 40", "root", 1000);
        assert_eq!(answer.at(1000).unwrap(), "limit 20/s burst 40 for devices (root)");
        assert_eq!(answer.at(999).unwrap(), "limit for devices, which was set anew since");
        let block = Answer::since("block 203.0.113.7 (cli)".to_owned(), 1000);
        assert_eq!(block.at(1000).unwrap(), "block 203.0.113.7 (cli)");
        assert_eq!(block.at(999), None);
        let ban = Answer { since_ms: None, ..block };
        assert!(ban.at(0).is_some());
    }
}
