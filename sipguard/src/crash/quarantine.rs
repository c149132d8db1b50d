//! Whom to block after a crash: the narrowest rule that surely holds, and only when it is clear who it was.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::oddness::{Suspect, SuspectDevice as Seen};
use super::report::QuarantineReport;
use crate::claim::Identity;
use crate::pins::Pins;
use crate::protect::{Protected, hit};
use crate::store::{RuleMode, RuleSpec, RuleVerb, change};
use crate::target::{Device, Target};

/// Who blocks.
const ORIGIN: &str = "crash";
/// The least that speaks against a device, in bits.
const LEAST: f64 = 10.0;
/// By how many bits the first must lead.
pub const CLEARLY: f64 = 4.0;

/// What to block, or why nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This.
    Block(Target, String),
    /// Nothing.
    Nobody(String),
}

/// Whether the first suspect stands out.
#[must_use]
pub fn is_clear(suspects: &[Suspect]) -> bool {
    let Some(first) = suspects.first() else { return false };
    first.assessment.score >= LEAST
        && suspects.get(1).is_none_or(|second| first.assessment.score - second.assessment.score >= CLEARLY)
}

/// Chooses what to block; `around` are all devices of the recorder, those before an earlier crash too: the address when nobody else was seen behind it, else the SIP identity, which holds by whatever port the device
/// comes, else over UDP its port.
#[must_use]
pub fn choose(suspects: &[Suspect], around: &[Seen], protected: &[Protected]) -> Choice {
    let nobody = |why: &str| Choice::Nobody(why.to_owned());
    let Some(first) = suspects.first() else { return nobody("for nobody sent anything") };
    if !is_clear(suspects) {
        return nobody("for no device stands out clearly enough");
    }
    if let Some(trunk) = &first.assessment.trunk {
        return Choice::Nobody(format!("for it is the trunk {trunk}, which nothing automatic blocks"));
    }
    let address = first.device.address;
    if let Target::Source(source) = Target::from(address)
        && let Some(entry) = hit(&source, protected)
    {
        return Choice::Nobody(format!("for {} is {}", entry.address, entry.role));
    }
    if !has_neighbours(suspects, around, address) {
        return Choice::Block(address.into(), "for no other device was seen behind its address".to_owned());
    }
    let elsewhere = |identity: &str| {
        suspects.iter().any(|other| {
            other.device.address != address && other.assessment.identity.as_deref() == Some(identity)
        }) || around.iter().any(|other| other.address != address && other.name == identity)
    };
    if let Some(identity) = first.assessment.identity.as_deref().filter(|identity| !elsewhere(identity))
        && let Ok(identity) = Identity::parse(identity)
    {
        return Choice::Block(
            Target::Identity(identity),
            "for there are others behind its address".to_owned(),
        );
    }
    if !first.tcp && first.port != 0 {
        let device = Device::from(SocketAddr::new(address, first.port));
        return Choice::Block(
            device.into(),
            "for there are others behind its address, and its identity is not its own".to_owned(),
        );
    }
    nobody("for there are others behind its address, and a new connection of it can't be told from theirs")
}

/// Whether others were seen behind an address; of those before an earlier crash, whoever has an identity of its own.
fn has_neighbours(suspects: &[Suspect], around: &[Seen], address: IpAddr) -> bool {
    let own = &suspects[0].device.name;
    suspects[1..].iter().any(|other| other.device.address == address)
        || around
            .iter()
            .any(|other| other.address == address && other.name.contains(':') && other.name != *own)
}

/// Blocks what was chosen, unless it is allowed or a trunk.
pub fn apply(
    choice: &Choice,
    address: Option<IpAddr>,
    report: &str,
    span: Duration,
    pins: &Pins,
    store: &Path,
) -> Result<QuarantineReport> {
    let (target, why) = match choice {
        Choice::Nobody(why) => return Ok(QuarantineReport { target: None, why: why.clone() }),
        Choice::Block(target, why) => (target, why),
    };
    let reason = format!("likely cause of {report}: `sipguard crash show {report}`");
    let blocked = change(store, pins, |change| {
        // An identity lies in no allowance, but whoever has it may.
        if address.is_some_and(|address| change.exempts(&address.into())) {
            return Ok(false);
        }
        let spec = RuleSpec {
            mode: RuleMode::Enforce,
            reason: Some(reason.clone()),
            expires_ms: change.clock.wall_ms_after(Some(span)),
            ..RuleSpec::new(ORIGIN, RuleVerb::Block)
        };
        change.upsert(target, &spec)?;
        change.record("block", ORIGIN, &[*target], &reason)?;
        Ok(change.counts.skipped == 0)
    })?;
    if !blocked.value {
        return Ok(QuarantineReport {
            target: None,
            why: "for its address is allowed, or a trunk's".to_owned(),
        });
    }
    let later = if blocked.in_force { "" } else { ", once the guard is attached" };
    Ok(QuarantineReport {
        target: Some(target.to_string()),
        why: format!("for {}, {why}{later}", humantime::format_duration(span)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Assessment, SuspectDevice};
    use super::*;

    fn suspect(address: &str, identity: Option<&str>, port: u16, score: f64) -> Suspect {
        Suspect {
            device: SuspectDevice {
                address: address.parse().unwrap(),
                name: identity.unwrap_or("").to_owned(),
            },
            port,
            tcp: port == 0,
            assessment: Assessment {
                identity: identity.map(str::to_owned),
                score,
                oddness: score,
                ..Assessment::default()
            },
            packets: Vec::new(),
        }
    }

    fn chosen(suspects: &[Suspect]) -> String {
        match choose(suspects, &[], &[Protected { address: "192.0.2.9".parse().unwrap(), role: "a gateway" }])
        {
            Choice::Block(target, _) => target.to_string(),
            Choice::Nobody(why) => why,
        }
    }

    #[test]
    fn the_narrowest_rule_that_holds() {
        let other = suspect("192.0.2.2", Some("sip:b@x"), 5, 3.0);
        let neighbour = suspect("192.0.2.1", Some("sip:c@x"), 7, 3.0);
        let first = suspect("192.0.2.1", Some("sip:a@x"), 0, 20.0);
        assert_eq!(chosen(&[first.clone(), other.clone()]), "192.0.2.1");
        assert_eq!(chosen(&[first.clone(), neighbour.clone()]), "sip:a@x");
        let around = [Seen { address: "192.0.2.1".parse().unwrap(), name: "sip:d@x".to_owned() }];
        let alone = choose(&[first.clone(), other.clone()], &around, &[]);
        assert!(matches!(&alone, Choice::Block(target, _) if target.to_string() == "sip:a@x"), "{alone:?}");
        let shared = suspect("192.0.2.1", Some("sip:b@x"), 4, 20.0);
        assert_eq!(chosen(&[shared, neighbour.clone(), other.clone()]), "192.0.2.1:4");
        let nameless = suspect("192.0.2.1", None, 0, 20.0);
        assert!(chosen(&[nameless, neighbour.clone()]).contains("can't be told"));
        let close = suspect("192.0.2.2", Some("sip:b@x"), 5, 17.0);
        assert!(chosen(&[first.clone(), close]).contains("clearly"));
        assert!(chosen(&[suspect("192.0.2.1", None, 4, 9.0)]).contains("clearly"));
        assert!(chosen(&[]).contains("nobody"));
        assert!(chosen(&[suspect("192.0.2.9", None, 4, 20.0)]).contains("is a gateway"));
        let mut trunk = first;
        trunk.assessment.trunk = Some("carrier".to_owned());
        assert!(chosen(&[trunk, other]).contains("the trunk carrier"));
    }
}
