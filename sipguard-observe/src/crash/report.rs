//! What is said of a crash: for machines, and for people.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sipguard_core::clock::Clock;
use sipguard_core::escape::escaped_lines;

use super::oddness::CLEARLY;
use super::oddness::{Assessment, Earlier, Suspect, SuspectDevice};
use super::watch::Crash;
use crate::redact::RedactedPacket;
use crate::tap::TapPacket;

/// The schema of a report.
pub const SCHEMA: &str = "sipguard.crash/2";
/// Suspects that a report names.
const NAMED: usize = 10;
/// Suspects whose packets are shown.
const SHOWN: usize = 3;

/// A crash, and who may have been the cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CrashReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// Its name, which the files have.
    pub name: String,
    /// When the PBX died (RFC 3339, UTC); `time` in a report of an older version.
    #[serde(alias = "time")]
    pub crashed_at: String,
    /// How.
    pub how: String,
    /// Which process it was.
    pub pid: Option<i32>,
    /// Its core.
    pub core: Option<String>,
    /// Devices of which there were packets.
    pub devices: usize,
    /// Packets that came before the death.
    pub packets: usize,
    /// How many earlier reports were looked at.
    pub earlier_reports: usize,
    /// Whether the last packets of each device were kept when it was made; null in a report of an older version.
    pub recording: Option<bool>,
    /// Whether the first suspect stands out.
    pub clear: bool,
    /// Who may have been the cause, the likeliest first.
    pub suspects: Vec<SuspectReport>,
    /// What was done about the first.
    pub quarantine: QuarantineReport,
}

/// A suspect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuspectReport {
    /// Address and port, as a rule names them; `source` in a report of an older version.
    #[serde(alias = "source")]
    pub target: String,
    /// Address; `address` in a report of an older version.
    #[serde(alias = "address")]
    pub src_ip: String,
    /// What it is known by beside its address: its identity, or its port.
    pub device: String,
    /// `tcp` or `udp`.
    pub transport: String,
    /// What speaks against it, and what it has told of itself.
    #[serde(flatten)]
    pub assessment: Assessment,
    /// Its last packets, of the first suspects.
    pub packets: Vec<PacketReport>,
}

/// A packet of a suspect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PacketReport {
    /// When it came (RFC 3339, UTC); `time` in a report of an older version.
    #[serde(alias = "time")]
    pub seen_at: String,
    /// Its payload with credentials overwritten; bytes that can't be shown are escaped.
    pub payload: String,
}

/// What was done about the first suspect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuarantineReport {
    /// What is blocked, when anything is.
    pub target: Option<String>,
    /// Why that, or why nothing.
    pub why: String,
}

impl CrashReport {
    /// Of what was found.
    #[must_use]
    pub fn new(
        crash: &Crash,
        clock: &Clock,
        suspects: &[Suspect],
        packets: &[TapPacket],
        earlier: usize,
        clear: bool,
    ) -> CrashReport {
        let time = clock.wall_exactly(crash.at_ns);
        let before = packets.iter().filter(|packet| packet.time_ns <= crash.at_ns).count();
        CrashReport {
            schema: SCHEMA.to_owned(),
            name: format!("crash-{}", time.strftime("%Y%m%dT%H%M%S.%3fZ")),
            crashed_at: time.to_string(),
            how: crash.how.clone(),
            pid: crash.pid,
            core: crash.core.as_ref().map(|path| path.display().to_string()),
            devices: suspects.len(),
            packets: before,
            earlier_reports: earlier,
            clear,
            suspects: suspects
                .iter()
                .take(NAMED)
                .enumerate()
                .map(|(at, suspect)| SuspectReport::new(suspect, packets, at < SHOWN))
                .collect(),
            recording: None,
            quarantine: QuarantineReport::default(),
        }
    }

    /// The report in one line: who it was, how sure that is, and what was done.
    #[must_use]
    pub fn line(&self) -> String {
        let Some(first) = self.suspects.first() else {
            return "no device sent anything before".to_owned();
        };
        let agent =
            first.assessment.user_agent.as_deref().map(|agent| format!(" ({agent})")).unwrap_or_default();
        let sure =
            if self.clear { "it was most likely" } else { "no device stands out; first among them is" };
        let blocked = self
            .quarantine
            .target
            .as_deref()
            .map(|target| format!("; {target} is blocked"))
            .unwrap_or_default();
        format!("{sure} {}{agent}{blocked}", first.target)
    }

    /// The end of the report: who it was, and what to do.
    #[must_use]
    pub fn answer(&self) -> String {
        let off = self.recording == Some(false);
        let kept = "recording was off, so no packets were kept: `sipguard crash record on` keeps them for the next crash";
        match (self.suspects.first(), &self.quarantine.target) {
            (None, _) if off => format!("answer: nobody can say; {kept}"),
            (None, _) => "answer: nobody can say; no device sent anything before".to_owned(),
            (Some(_), Some(_)) => format!("answer: {}", self.line()),
            (Some(first), None) => {
                let block = format!("`sipguard block {} --for 10m` stops it", first.target);
                let off = if off { "; recording is off now, so the packets may be old" } else { "" };
                format!("answer: {}; {block}{off}", self.line())
            }
        }
    }

    /// Whom it suspects, for the next report: the first, and whoever is close to it.
    #[must_use]
    pub fn earlier(&self) -> Earlier {
        let least = self.suspects.first().map_or(0.0, |first| first.assessment.score - CLEARLY);
        let device = |named: &SuspectReport| {
            Some(SuspectDevice { address: named.src_ip.parse::<IpAddr>().ok()?, name: named.device.clone() })
        };
        self.suspects.iter().filter(|named| named.assessment.score > least).filter_map(device).collect()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}: the PBX crashed at {}: {}\n", self.name, self.crashed_at, self.how);
        if let Some(core) = &self.core {
            let _ = writeln!(text, "core: {core}");
        }
        let _ = writeln!(
            text,
            "{} packets of {} devices came before; {} earlier reports were read",
            self.packets, self.devices, self.earlier_reports
        );
        let verdict = match (self.suspects.first(), self.clear) {
            (None, _) => "no packet of anybody was recorded".to_owned(),
            (Some(first), true) => format!("the likely cause: {}", first.who()),
            (Some(first), false) => format!("no device stands out; first comes {}", first.who()),
        };
        let _ = writeln!(text, "{verdict}\n{}\n", self.quarantine.words());
        for (at, suspect) in self.suspects.iter().enumerate() {
            let _ = writeln!(text, "{}. {}: {:.1} bits", at + 1, suspect.who(), suspect.assessment.score);
            for why in &suspect.assessment.why {
                let _ = writeln!(text, "   - {why}");
            }
        }
        for suspect in self.suspects.iter().filter(|suspect| !suspect.packets.is_empty()) {
            for packet in &suspect.packets {
                let _ = writeln!(text, "\n--- {} at {}", suspect.target, packet.seen_at);
                let _ = writeln!(text, "{}", packet.payload);
            }
        }
        let _ = writeln!(text, "\n{}", self.answer());
        text
    }
}

impl QuarantineReport {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.target {
            Some(target) => format!("quarantine: {target} is blocked, {}", self.why),
            None => format!("quarantine: nobody, {}", self.why),
        }
    }
}

impl SuspectReport {
    fn new(suspect: &Suspect, packets: &[TapPacket], with_packets: bool) -> SuspectReport {
        let round = |bits: f64| (bits * 100.0).round() / 100.0;
        let found = &suspect.assessment;
        let positions = if with_packets { &suspect.packets[..] } else { &[] };
        SuspectReport {
            target: std::net::SocketAddr::new(suspect.device.address, suspect.port).to_string(),
            src_ip: suspect.device.address.to_string(),
            device: suspect.device.name.clone(),
            transport: if suspect.tcp { "tcp" } else { "udp" }.to_owned(),
            assessment: Assessment {
                score: round(found.score),
                oddness: round(found.oddness),
                recency: round(found.recency),
                earlier: round(found.earlier),
                before_ms: round(found.before_ms),
                ..found.clone()
            },
            packets: positions.iter().map(|at| PacketReport::new(&packets[*at])).collect(),
        }
    }

    fn who(&self) -> String {
        let mut who = format!("{}/{}", self.target, self.transport);
        let Assessment { identity, user_agent, trunk, .. } = &self.assessment;
        for (word, value) in [("", identity), ("", user_agent), ("trunk ", trunk)] {
            if let Some(value) = value {
                let _ = write!(who, ", {word}{value}");
            }
        }
        who
    }
}

impl PacketReport {
    fn new(packet: &TapPacket) -> PacketReport {
        let packet = RedactedPacket::new(packet);
        PacketReport { seen_at: packet.time.to_string(), payload: escaped_lines(packet.payload()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back() {
        let named = SuspectReport {
            src_ip: "192.0.2.1".to_owned(),
            device: "sip:a@b".to_owned(),
            ..SuspectReport::default()
        };
        let report =
            CrashReport { schema: SCHEMA.to_owned(), suspects: vec![named], ..CrashReport::default() };
        let text = serde_json::to_string(&report).unwrap();
        let back: CrashReport = serde_json::from_str(&text).unwrap();
        assert_eq!(back, report);
        assert_eq!(back.earlier()[0].name, "sip:a@b");
        assert!(back.text().contains("no device stands out"));
    }

    #[test]
    fn a_report_ends_with_its_answer_and_says_that_recording_was_off() {
        let last = |report: &CrashReport| report.text().lines().last().unwrap_or_default().to_owned();
        let none = CrashReport { recording: Some(false), ..CrashReport::default() };
        assert!(
            last(&none).contains("recording was off") && last(&none).contains("crash record on"),
            "{}",
            last(&none)
        );
        let on = CrashReport { recording: Some(true), ..CrashReport::default() };
        assert_eq!(last(&on), "answer: nobody can say; no device sent anything before");
        let named = SuspectReport { target: "192.0.2.1:5060".to_owned(), ..SuspectReport::default() };
        let mut report = CrashReport { clear: true, suspects: vec![named], ..on };
        assert_eq!(
            last(&report),
            "answer: it was most likely 192.0.2.1:5060; `sipguard block 192.0.2.1:5060 --for 10m` stops it"
        );
        report.quarantine.target = Some("192.0.2.1:5060".to_owned());
        assert_eq!(last(&report), "answer: it was most likely 192.0.2.1:5060; 192.0.2.1:5060 is blocked");
    }

    #[test]
    fn a_report_of_an_older_version_is_read() {
        let old = r#"{"schema": "sipguard.crash/1", "name": "crash-1", "time": "2026-01-31T12:00:00Z", "how": "SIGSEGV", "suspects": [
            {"source": "192.0.2.1:5060", "address": "192.0.2.1", "device": "5060", "packets": [
                {"time": "2026-01-31T11:59:59Z", "payload": "OPTIONS"}]}], "quarantine": {"target": null, "why": "off"}}"#;
        let report: CrashReport = serde_json::from_str(old).unwrap();
        assert_eq!(report.crashed_at, "2026-01-31T12:00:00Z");
        let suspect = &report.suspects[0];
        assert_eq!((suspect.target.as_str(), suspect.src_ip.as_str()), ("192.0.2.1:5060", "192.0.2.1"));
        assert_eq!(suspect.packets[0].seen_at, "2026-01-31T11:59:59Z");
        assert!(report.text().contains("--- 192.0.2.1:5060 at 2026-01-31T11:59:59Z"));
    }
}
