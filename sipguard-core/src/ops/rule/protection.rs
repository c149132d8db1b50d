//! Whom a block may not hit: the way to this machine, the trunks, whoever is allowed, and what would stop half the internet or a whole family of phones.
//!
//! | target | a person's block | with `force` | a list | what blocks by itself |
//! |---|---|---|---|---|
//! | an own address, a gateway, the peer of an SSH session, or a prefix around one | refused | blocked | skipped | skipped |
//! | a prefix shorter than /8 (IPv6: /16) | refused | blocked | refused; with `force` blocked | skipped |
//! | a family of phones or PBXs | refused | blocked | skipped | skipped |
//! | a trunk, for an operator's origin | refused | blocked | skipped | skipped |
//! | a trunk or an allowed address, for any other origin | skipped; with `no_skip` refused | skipped | skipped | skipped |
//!
//! An operator's origins are `cli` and `config`. What lies in an allowance an operator may block: the last word decides.

use std::fmt;
use std::net::IpAddr;

use anyhow::Result;

use crate::error::{Failure, FailureKind};
use crate::protect::{Protected, hit, protected};
use crate::rule::RuleVerb;
use crate::store::{Change, RuleSpec};
use crate::target::Target;

/// What becomes of a protected target. Nothing that blocks by itself may override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnProtected {
    /// Nothing is blocked at all, and the failure names the target.
    Refuse,
    /// It is left out, and told.
    Skip,
    /// It is blocked: an operator's `force`.
    Override,
}

/// Why a target is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyProtected {
    /// It is a prefix shorter than this.
    Wide(u8),
    /// It is or holds an address by which this machine is reached.
    Machine(Protected),
    /// It would stop a family of phones or PBXs.
    Family(&'static str),
    /// It is or holds a peer of this trunk.
    Trunk(String),
    /// It is allowed, or a trunk's.
    Exempt,
    /// It is or holds addresses that are not of the internet, which a list of the internet says nothing of.
    Special,
}

impl fmt::Display for WhyProtected {
    /// The rest of a sentence that begins with the target.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyProtected::Wide(bits) => write!(f, "is shorter than /{bits}"),
            WhyProtected::Machine(Protected { address, role }) => write!(f, "is {role} ({address})"),
            WhyProtected::Family(family) => write!(f, "would stop every user agent of the family {family}"),
            WhyProtected::Trunk(name) => write!(f, "stops the trunk {name}"),
            WhyProtected::Exempt => f.write_str("is allowed, or a trunk's"),
            WhyProtected::Special => f.write_str("is not of the internet"),
        }
    }
}

/// The protected addresses of this machine at one moment.
#[derive(Clone, Debug)]
pub struct Protection {
    machine: Vec<Protected>,
}

impl Protection {
    /// As it is now: reads routes, addresses and the SSH sessions.
    #[must_use]
    pub fn now() -> Protection {
        Protection { machine: protected() }
    }

    /// With these addresses.
    #[must_use]
    pub fn of(machine: Vec<Protected>) -> Protection {
        Protection { machine }
    }

    /// Why a block of a target needs `force`. A device or identity is blocked on guarded ports alone, so that no way to the machine is cut with it.
    #[must_use]
    pub fn why(&self, target: &Target) -> Option<WhyProtected> {
        match target {
            Target::Source(source) if source.is_wide() => Some(WhyProtected::Wide(source.least_bits())),
            Target::Source(_) => self.why_of_machine(target),
            Target::UserAgent(agent) => agent.family().map(WhyProtected::Family),
            Target::Device(_) | Target::Identity(_) => None,
        }
    }

    /// Whether a target is or holds an address by which this machine is reached.
    fn why_of_machine(&self, target: &Target) -> Option<WhyProtected> {
        let Target::Source(source) = target else { return None };
        hit(source, &self.machine).cloned().map(WhyProtected::Machine)
    }

    /// Why a block of a list is skipped. That a prefix is too wide is a mistake of the list, which [`crate::exchange::read`] finds.
    #[must_use]
    pub(crate) fn why_in_list(&self, target: &Target) -> Option<WhyProtected> {
        self.why_of_machine(target).or_else(|| match self.why(target) {
            Some(WhyProtected::Wide(_)) | None => None,
            why => why,
        })
    }

    /// Why a block of somebody needs `force` who sends what a target stands for, such as the phone of an identity.
    #[must_use]
    pub(crate) fn why_of_sender(&self, sender: IpAddr) -> Option<WhyProtected> {
        self.why(&Target::from(sender))
    }
}

/// Why a rule about a target would be against what the store has: an operator's block of a trunk. All other origins leave trunks and allowed
/// addresses alone by [`Change::upsert`] itself.
///
/// # Errors
/// When the store can't be read.
pub(crate) fn why_in_store(
    change: &Change<'_>,
    target: &Target,
    spec: &RuleSpec,
) -> Result<Option<WhyProtected>> {
    if spec.verb != RuleVerb::Block {
        return Ok(None);
    }
    Ok(change.blocked_trunk(target, spec)?.map(WhyProtected::Trunk))
}

/// The failure of a block that needs `force`, or that nothing automatic may do.
pub(super) fn refusal(target: &Target, why: &WhyProtected) -> anyhow::Error {
    let way = match why {
        WhyProtected::Exempt => "nothing automatic blocks it",
        _ => "`--force` blocks it all the same",
    };
    let text = format!("{target} {why}: nothing was blocked; {way}");
    Failure::with(FailureKind::Failed, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(target: &str) -> Option<String> {
        let machine = vec![Protected { address: "192.0.2.9".parse().unwrap(), role: "a gateway" }];
        let target: Target = target.parse().unwrap();
        Protection::of(machine).why(&target).map(|why| format!("{target} {why}"))
    }

    #[test]
    fn what_is_protected_says_why() {
        for (target, why) in [
            ("192.0.2.9", "192.0.2.9 is a gateway (192.0.2.9)"),
            ("192.0.2.0/24", "192.0.2.0/24 is a gateway (192.0.2.9)"),
            ("128.0.0.0/7", "128.0.0.0/7 is shorter than /8"),
            ("user-agent:yealink", "user-agent:yealink would stop every user agent of the family Yealink"),
        ] {
            let said = said(target).unwrap_or_default();
            assert!(said.eq_ignore_ascii_case(why), "{target}: {said}");
        }
        for target in ["192.0.2.8", "192.0.2.9:4001", "sip:1@192.0.2.9", "user-agent:friendly-scanner"] {
            assert_eq!(said(target), None);
        }
    }
}
