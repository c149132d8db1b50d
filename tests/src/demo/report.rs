//! The two nights side by side.

use std::fmt;

use serde_json::{Value, json};

use super::{
    act::{Figures, LONG_LIVED, Testimony},
    errant::USER_AGENT,
};
use crate::network;

/// Both acts.
#[derive(Debug)]
pub struct Report {
    pub without: Figures,
    pub with: Option<Figures>,
}

impl Figures {
    const fn crashes(&self) -> u32 {
        self.server.crashes + self.dialler.crashes
    }

    fn unbroken_phones(&self) -> usize {
        self.phones.iter().filter(|phone| phone.lost == 0 && phone.registered).count()
    }

    fn refreshes(&self) -> (u32, u32) {
        let sum = |pick: fn(&super::phones::Phone) -> u32| self.phones.iter().map(pick).sum();
        (sum(|phone| phone.answered), sum(|phone| phone.asked))
    }

    fn reached_an_application(&self) -> usize {
        self.read.values().sum::<u32>() as usize + self.reached_kamailio()
    }

    /// What its TCP reader or parser gave up on, and what came as far as its script (where sanity is checked).
    const fn reached_kamailio(&self) -> usize {
        self.complaints.framing_errors + self.complaints.parse_errors + self.accepted
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let (answered, asked) = self.refreshes();
        let cores = self.server.core_dumps + self.dialler.core_dumps;
        let core_bytes = self.server.core_bytes + self.dialler.core_bytes;
        let own = if self.kamailio_survived { "still running" } else { "DEAD" };
        vec![
            ("malformed messages sent", self.sent.to_string()),
            ("malformed messages that an application read", self.reached_an_application().to_string()),
            ("  by the fragile PBX", self.read.values().sum::<u32>().to_string()),
            ("  by Kamailio", self.reached_kamailio().to_string()),
            ("    of which it noticed", self.complaints.total().to_string()),
            ("crashes of the fragile PBX", self.crashes().to_string()),
            ("  as a server of phones", self.server.crashes.to_string()),
            ("  as a client of the trunk", self.dialler.crashes.to_string()),
            ("core dumps", cores.to_string()),
            (
                "  on disk",
                format!("{:.1} MB", f64::from(u32::try_from(core_bytes / 1000).unwrap_or(u32::MAX)) / 1000.0),
            ),
            ("Kamailio", own.to_owned()),
            ("calls completed", format!("{} of {}", self.calls_completed, self.calls)),
            ("contacts registered at Kamailio", format!("{} of {}", self.contacts, self.contacts_expected)),
            (
                "phones that never lost the fragile PBX",
                format!("{} of {}", self.unbroken_phones(), self.phones.len()),
            ),
            ("registrations that it answered", format!("{answered} of {asked}")),
        ]
    }

    fn json(&self) -> Value {
        let (answered, asked) = self.refreshes();
        json!({
            "malformed_sent": self.sent,
            "malformed_read_by_fragile_pbx": self.read,
            "kamailio": {
                "malformed_read": self.reached_kamailio(),
                "alive": self.kamailio_survived,
                "parse_errors": self.complaints.parse_errors,
                "sanity_failures": self.complaints.sanity_failures,
                "framing_errors": self.complaints.framing_errors,
                "contacts": self.contacts,
                "contacts_expected": self.contacts_expected,
            },
            "crashes": self.crashes(),
            "crashes_as_server": self.server.crashes,
            "crashes_as_trunk_client": self.dialler.crashes,
            "core_dumps": self.server.core_dumps + self.dialler.core_dumps,
            "core_bytes": self.server.core_bytes + self.dialler.core_bytes,
            "calls_attempted": self.calls,
            "calls_completed": self.calls_completed,
            "phones": self.phones.len(),
            "phones_unbroken": self.unbroken_phones(),
            "refreshes_answered": answered,
            "refreshes_asked": asked,
            "sipguard": self.guard.as_ref().map(Testimony::json),
        })
    }
}

impl Testimony {
    /// Whether the device behind the office's address is known by its name.
    fn names_the_device(&self) -> bool {
        let office = self.offenders.get(&network::OFFICE.to_string());
        office.is_some_and(|offender| offender.user_agent.as_deref() == Some(USER_AGENT))
    }

    fn json(&self) -> Value {
        let offenders: Vec<Value> = self
            .offenders
            .iter()
            .map(|(address, offender)| {
                json!({"address": address, "ports": offender.ports, "reasons": offender.reasons,
                   "user_agent": offender.user_agent, "sample": offender.sample})
            })
            .collect();
        let counters: Vec<Value> = self.counters.iter().map(|row| {
            json!({"interface": row.interface, "reason": row.reason, "action": row.action, "packets": row.packets})
        }).collect();
        json!({"offenders": offenders, "counters": counters, "status": self.status,
               "healthy_ports_accused": self.wrongly_accused})
    }
}

impl Report {
    /// The figures for machines.
    pub fn json(&self) -> Value {
        json!({
            "schema": "sipguard.demo/1",
            "without_sipguard": self.without.json(),
            "with_sipguard": self.with.as_ref().map(Figures::json),
            "failed": self.failed_expectations(),
        })
    }

    /// What should have been and was not; empty when sipguard did what it is for.
    pub fn failed_expectations(&self) -> Vec<String> {
        let mut failed = vec![];
        let mut expect = |held: bool, text: String| {
            if !held {
                failed.push(text);
            }
        };
        expect(
            self.without.crashes() > 0,
            "without sipguard the fragile PBX should crash; it did not".to_owned(),
        );
        let Some(with) = &self.with else { return failed };
        expect(
            with.crashes() == 0,
            format!("with sipguard the fragile PBX crashed {} times", with.crashes()),
        );
        let (calls, completed) = (with.calls, with.calls_completed);
        expect(
            completed == u64::from(calls),
            format!("with sipguard {completed} of {calls} calls were completed: {}", with.call_errors),
        );
        let unbroken = with.unbroken_phones();
        expect(
            unbroken == LONG_LIVED,
            format!("with sipguard {unbroken} of {LONG_LIVED} healthy phones kept their connection"),
        );
        let Some(guard) = &with.guard else { return failed };
        expect(
            guard.names_the_device(),
            format!(
                "sipguard should name {USER_AGENT} behind {}; it names {:?}",
                network::OFFICE,
                guard.offenders
            ),
        );
        let accused = &guard.wrongly_accused;
        expect(accused.is_empty(), format!("sipguard accuses healthy phones: ports {accused:?}"));
        failed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = self.with.as_ref().map(Figures::rows).unwrap_or_default();
        writeln!(f, "{:46}{:>18}{:>18}", "", "without sipguard", "with sipguard")?;
        for (number, (label, left)) in self.without.rows().into_iter().enumerate() {
            let right = with.get(number).map_or("", |(_, right)| right.as_str());
            writeln!(f, "{label:46}{left:>18}{right:>18}")?;
        }
        match self.with.as_ref().and_then(|figures| figures.guard.as_ref()) {
            Some(guard) => guard.fmt(f),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Testimony {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nwhat sipguard kept from the PBX")?;
        for row in self.counters.iter().filter(|row| row.action != "pass" && row.packets > 0) {
            writeln!(f, "  {:10}{:34}{:8}{:>8} packets", row.interface, row.reason, row.action, row.packets)?;
        }
        writeln!(f, "\nwho it was")?;
        for (address, offender) in &self.offenders {
            let shown: Vec<String> = offender.ports.iter().take(6).map(u16::to_string).collect();
            let more = if offender.ports.len() > shown.len() { ", ..." } else { "" };
            let agent = offender.user_agent.as_deref().unwrap_or("(not in the sample)");
            writeln!(f, "  {address}, {} ports: {}{more}", offender.ports.len(), shown.join(", "))?;
            writeln!(f, "    User-Agent   {agent}")?;
            let reasons: Vec<String> =
                offender.reasons.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
            writeln!(f, "    reasons      {}", reasons.join(", "))?;
            writeln!(f, "    first bytes  {}", offender.sample.escape_debug())?;
        }
        writeln!(
            f,
            "  healthy phones behind the same address that it accused: {}",
            self.wrongly_accused.len()
        )
    }
}
