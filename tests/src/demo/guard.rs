//! What sipguard knows in the demo: the counters, and who sent what was malformed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

pub use crate::guard::Counter;
use crate::{
    guard::{self, number, sample, text},
    netns::Netns,
};

/// sipguard on the interfaces of the PBX. Drop detaches it and removes its pins.
#[derive(Debug)]
pub struct Guard(guard::Guard);

/// All that sipguard knows about one remote address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offender {
    /// Its ports, as the PBX sees them.
    pub ports: BTreeSet<u16>,
    /// Packets for each reason.
    pub reasons: BTreeMap<String, u64>,
    /// The most telling of the samples: the first bytes that it sent.
    pub sample: String,
    /// Its User-Agent, when a sample shows it.
    pub user_agent: Option<String>,
}

impl Guard {
    /// `sipguard attach` with pins of its own.
    pub fn attach(namespace: &Netns, program: &Path, interfaces: &[&str]) -> Result<Self> {
        let guard = guard::Guard::new(namespace, program);
        guard.attach(interfaces)?;
        Ok(Self(guard))
    }

    /// `sipguard status`.
    pub fn status(&self) -> Result<Value> {
        self.0.json(&["status"])
    }

    /// `sipguard counters`.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        self.0.counter_rows()
    }

    /// `sipguard counters --by source --ports`, by remote address.
    pub fn offenders(&self) -> Result<BTreeMap<String, Offender>> {
        offenders(&self.0.rows(&["counters", "--by", "source", "--ports"])?)
    }
}

fn offenders(rows: &[Value]) -> Result<BTreeMap<String, Offender>> {
    let mut offenders: BTreeMap<String, Offender> = BTreeMap::new();
    for row in rows {
        let offender = offenders.entry(text(row, "src_ip")?).or_default();
        offender.ports.insert(u16::try_from(number(row, "src_port")?).context("a port beyond 65535")?);
        *offender.reasons.entry(text(row, "reason")?).or_default() += number(row, "packets")?;
        let sample = String::from_utf8_lossy(&sample(row)?).into_owned();
        let user_agent = user_agent(&sample);
        if offender.sample.is_empty() || (offender.user_agent.is_none() && user_agent.is_some()) {
            offender.sample = sample;
        }
        offender.user_agent = offender.user_agent.take().or(user_agent);
    }
    Ok(offenders)
}

/// The User-Agent (or Server) of a sample, when its line is complete.
fn user_agent(sample: &str) -> Option<String> {
    let at = ["User-Agent: ", "Server: "].iter().find_map(|name| Some(sample.find(name)? + name.len()))?;
    let (value, _) = sample[at..].split_once(['\r', '\n'])?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn connections_of_one_address_are_one_offender() {
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let rows = json!([
            {"src_ip": "10.77.0.2", "src_port": 5, "reason": "bad-version", "packets": 2, "sample_hex": hex("X")},
            {"src_ip": "10.77.0.2", "src_port": 4, "reason": "bad-version", "packets": 1,
             "sample_hex": hex("REGISTER sip:a SIP/2.0\r\nUser-Agent: BrokenPhone/1.0\r\nVi")},
            {"src_ip": "10.77.1.3", "src_port": 5060, "reason": "nul", "packets": 1, "sample_hex": hex("SIP/2.0")},
        ]);
        let offenders = offenders(rows.as_array().unwrap()).unwrap();
        let office = &offenders["10.77.0.2"];
        assert_eq!(office.reasons["bad-version"], 3);
        assert_eq!(Vec::from_iter(&office.ports), [&4, &5]);
        assert_eq!(office.user_agent.as_deref(), Some("BrokenPhone/1.0"));
        assert!(office.sample.starts_with("REGISTER"));
        assert_eq!(offenders["10.77.1.3"].user_agent, None);
    }

    #[test]
    fn a_user_agent_that_is_cut_off_is_none() {
        assert_eq!(user_agent("REGISTER\r\nUser-Agent: Brok"), None);
        assert_eq!(user_agent("x\r\nServer: T/1\r\n").as_deref(), Some("T/1"));
    }
}
