//! Whom to block after a crash: the narrowest rule that surely holds, and only when it is clear who it was.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use sipguard_core::claim::Identity;
use sipguard_core::duration;
use sipguard_core::ops::rule::{HeldBack, OnProtected, SetRules, WhyProtected, set};
use sipguard_core::ops::{Context, RuleVerb};
use sipguard_core::protect::Protected;
use sipguard_core::target::{Device, Target};

use super::oddness::{CLEARLY, Suspect, SuspectDevice as Seen};
use super::report::QuarantineReport;

/// Who blocks.
const ORIGIN: &str = "crash";
/// The least that speaks against a device, in bits.
const LEAST: f64 = 10.0;

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
pub(super) fn is_clear(suspects: &[Suspect]) -> bool {
    let Some(first) = suspects.first() else { return false };
    first.assessment.score >= LEAST
        && suspects.get(1).is_none_or(|second| first.assessment.score - second.assessment.score >= CLEARLY)
}

/// Chooses what to block; `around` are all devices of the recorder, those before an earlier crash too: the address when nobody else was seen behind it, else the SIP identity, which holds by whatever port the device
/// comes, else over UDP its port.
#[must_use]
pub fn choose(suspects: &[Suspect], around: &[Seen]) -> Choice {
    let nobody = |why: &str| Choice::Nobody(why.to_owned());
    let Some(first) = suspects.first() else { return nobody("for nobody sent anything") };
    if !is_clear(suspects) {
        return nobody("for no device stands out clearly enough");
    }
    if let Some(trunk) = &first.assessment.trunk {
        return Choice::Nobody(format!("for it is the trunk {trunk}, which nothing automatic blocks"));
    }
    let address = first.device.address;
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

/// Blocks what was chosen for `span`, unless it or its sender is protected, allowed or a trunk's; `sender` is who has the device or identity.
///
/// # Errors
/// When the store or the kernel refuses.
pub(super) fn apply(
    choice: &Choice,
    sender: Option<IpAddr>,
    report: &str,
    span: Duration,
    host: &Context,
) -> Result<QuarantineReport> {
    let nobody = |why: String| Ok(QuarantineReport { target: None, why });
    let (target, why) = match choice {
        Choice::Nobody(why) => return nobody(why.clone()),
        Choice::Block(target, why) => (target, why),
    };
    let request = SetRules {
        lasts: Some(span),
        comment: Some(format!("likely cause of {report}: `sipguard crash show {report}`")),
        origin: ORIGIN.to_owned(),
        on_protected: OnProtected::Skip,
        sender,
        ..SetRules::new(RuleVerb::Block, vec![*target])
    };
    let done = set(host, &request)?;
    if let Some(HeldBack { why, .. }) = done.held_back.first() {
        return nobody(match why {
            WhyProtected::Machine(Protected { address, role }) => format!("for {address} is {role}"),
            WhyProtected::Exempt => "for its address is allowed, or a trunk's".to_owned(),
            why => format!("for it {why}"),
        });
    }
    if done.counts().skipped > 0 {
        return nobody("for its address is allowed, or a trunk's".to_owned());
    }
    let later = if done.change.in_force { "" } else { ", once the guard is attached" };
    Ok(QuarantineReport {
        target: Some(target.to_string()),
        why: format!("for {}, {why}{later}", duration::shown(span)),
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
        match choose(suspects, &[]) {
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
        let alone = choose(&[first.clone(), other.clone()], &around);
        assert!(matches!(&alone, Choice::Block(target, _) if target.to_string() == "sip:a@x"), "{alone:?}");
        let shared = suspect("192.0.2.1", Some("sip:b@x"), 4, 20.0);
        assert_eq!(chosen(&[shared, neighbour.clone(), other.clone()]), "192.0.2.1:4");
        let nameless = suspect("192.0.2.1", None, 0, 20.0);
        assert!(chosen(&[nameless, neighbour.clone()]).contains("can't be told"));
        let close = suspect("192.0.2.2", Some("sip:b@x"), 5, 17.0);
        assert!(chosen(&[first.clone(), close]).contains("clearly"));
        assert!(chosen(&[suspect("192.0.2.1", None, 4, 9.0)]).contains("clearly"));
        assert!(chosen(&[]).contains("nobody"));
        let mut trunk = first;
        trunk.assessment.trunk = Some("carrier".to_owned());
        assert!(chosen(&[trunk, other]).contains("the trunk carrier"));
    }

    #[test]
    fn a_protected_sender_is_not_blocked_by_any_of_its_names() {
        let directory = std::env::temp_dir().join(format!("sipguard-quarantine-{}", std::process::id()));
        let host = Context::new(directory.join("pins"), directory.join("sipguard.db"));
        let blocked = |target: &str, sender: &str| {
            let choice = Choice::Block(target.parse().unwrap(), "for it is clear".to_owned());
            let (sender, span) = (Some(sender.parse().unwrap()), Duration::from_secs(3600));
            apply(&choice, sender, "a crash", span, &host).unwrap()
        };
        for target in ["127.0.0.1", "127.0.0.1:5060", "sip:a@x"] {
            let report = blocked(target, "127.0.0.1");
            assert_eq!(report.target, None);
            assert_eq!(report.why, "for 127.0.0.1 is this machine's own address");
        }
        assert_eq!(blocked("sip:a@x", "192.0.2.7").target.as_deref(), Some("sip:a@x"));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
