//! sipguard as an operator uses it: its command line, inside the namespace of the PBX.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{netns::Netns, process};

/// sipguard on the interfaces of the PBX. Drop detaches it and removes its pins.
#[derive(Debug)]
pub struct Guard<'a> {
    namespace: &'a Netns,
    program: &'a Path,
    pins: PathBuf,
}

/// One line of `sipguard counters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    pub interface: String,
    pub reason: String,
    pub action: String,
    pub packets: u64,
}

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

impl<'a> Guard<'a> {
    /// `sipguard attach` with pins of this process.
    pub fn attach(namespace: &'a Netns, program: &'a Path, interfaces: &[&str]) -> Result<Self> {
        let pins = PathBuf::from(format!("/sys/fs/bpf/sipguard-demo-{}", std::process::id()));
        let guard = Self { namespace, program, pins };
        guard.run(&[&["attach"], interfaces].concat())?;
        Ok(guard)
    }

    /// `sipguard status`.
    pub fn status(&self) -> Result<Value> {
        self.json(&["status"])
    }

    /// `sipguard counters`.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        parse_counters(&self.json(&["counters"])?)
    }

    /// `sipguard counters --by source`, by remote address.
    pub fn offenders(&self) -> Result<BTreeMap<String, Offender>> {
        parse_sources(&self.json(&["counters", "--by", "source"])?)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.run(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("sipguard {} printed no JSON", words.join(" ")))
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        process::output(self.command().args(words))
    }

    fn command(&self) -> Command {
        // None of its verbs takes long; one that waits for ever must not keep the demo from cleaning up.
        let mut command = self.namespace.command("timeout");
        command.arg("30").arg(self.program).env("SIPGUARD_PINS", &self.pins);
        command
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["detach", "--all"]) {
            eprintln!("demo: {error:#}");
        }
        // Also when detaching failed: a pin would keep the program alive.
        if self.pins.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.pins)
        {
            eprintln!("demo: {} stays behind: {error}", self.pins.display());
        }
    }
}

fn rows(answer: &Value) -> Result<&Vec<Value>> {
    answer["rows"].as_array().with_context(|| format!("no rows in {answer}"))
}

fn text(row: &Value, key: &str) -> Result<String> {
    Ok(row[key].as_str().with_context(|| format!("no {key} in {row}"))?.to_owned())
}

fn number(row: &Value, key: &str) -> Result<u64> {
    row[key].as_u64().with_context(|| format!("no {key} in {row}"))
}

fn parse_counters(answer: &Value) -> Result<Vec<Counter>> {
    let parse = |row: &Value| {
        Ok(Counter {
            interface: text(row, "interface")?,
            reason: text(row, "reason")?,
            action: text(row, "action")?,
            packets: number(row, "packets")?,
        })
    };
    rows(answer)?.iter().map(parse).collect()
}

fn parse_sources(answer: &Value) -> Result<BTreeMap<String, Offender>> {
    let mut offenders: BTreeMap<String, Offender> = BTreeMap::new();
    for row in rows(answer)? {
        let offender = offenders.entry(text(row, "address")?).or_default();
        offender.ports.insert(u16::try_from(number(row, "port")?).context("a port beyond 65535")?);
        *offender.reasons.entry(text(row, "reason")?).or_default() += number(row, "packets")?;
        let sample = sample(row)?;
        let user_agent = user_agent(&sample);
        if offender.sample.is_empty() || (offender.user_agent.is_none() && user_agent.is_some()) {
            offender.sample = sample;
        }
        offender.user_agent = offender.user_agent.take().or(user_agent);
    }
    Ok(offenders)
}

/// The bytes of a sample as they were: the hexadecimal form keeps the line ends, the text is made for people.
fn sample(row: &Value) -> Result<String> {
    let hex = text(row, "sample_hex")?;
    let byte = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    let bytes = bytes.with_context(|| format!("{hex:?} is not hexadecimal"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
        let answer = json!({"schema": "sipguard.sources/1", "rows": [
            {"address": "10.77.0.2", "port": 5, "reason": "bad-version", "packets": 2, "sample_hex": hex("X")},
            {"address": "10.77.0.2", "port": 4, "reason": "bad-version", "packets": 1,
             "sample_hex": hex("REGISTER sip:a SIP/2.0\r\nUser-Agent: BrokenPhone/1.0\r\nVi")},
            {"address": "10.77.1.3", "port": 5060, "reason": "nul", "packets": 1, "sample_hex": hex("SIP/2.0")},
        ]});
        let offenders = parse_sources(&answer).unwrap();
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

    #[test]
    fn counters_need_their_fields() {
        let good = json!({"rows": [{"interface": "office", "reason": "ok", "action": "pass", "packets": 4}]});
        assert_eq!(parse_counters(&good).unwrap()[0].packets, 4);
        assert!(parse_counters(&json!({"rows": [{"interface": "office"}]})).is_err());
        assert!(parse_counters(&json!({})).is_err());
    }
}
