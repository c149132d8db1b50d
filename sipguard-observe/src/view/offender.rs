//! Who sent what was malformed or over a limit: by address, and by port.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sipguard_core::by_address::AddressRow;
use sipguard_core::claim::UserAgent;
use sipguard_core::container;
use sipguard_core::escape::escaped;
use sipguard_core::offenders::OffenderRow;
use sipguard_core::view::{SourceView, thousandths};

use crate::fault::Fault;

/// Ports of an address that are shown.
const PORTS: usize = 20;

/// Who, first: an address that sent what was malformed or over a limit, by whatever ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressView {
    /// The address.
    pub src_ip: String,
    /// Packets that were malformed or over a limit.
    pub packets: u64,
    /// The same a second, over the last 10 s.
    pub packets_per_second: f64,
    /// How many of them passed, since monitor mode or a check that only counts let them; the others were stopped.
    pub passed_packets: u64,
    /// By reason, the most packets first.
    pub reasons: Vec<ReasonCountView>,
    /// How many ports are known of which something malformed came. Of more than the kernel remembers, those that were quiet longest are not counted.
    pub ports_seen: usize,
    /// The latest ports with their reasons, 20 at the most.
    pub ports: Vec<OffenderView>,
    /// Well-formed messages that came from the address (of IPv6 from its /64; of a peer of a trunk from the whole trunk); null where nobody counts
    /// them, as of who is allowed.
    pub good_messages: Option<u64>,
    /// Their share of these and the malformed packets, 0 to 1; null where neither came or nobody counts.
    pub good_share: Option<f64>,
    /// From of the first malformed message, of the reason with the most packets that has one.
    pub from: Option<String>,
    /// User-Agent, likewise.
    pub user_agent: Option<String>,
    /// The first malformed message of the reason with the most packets; null where all was over a limit.
    pub fault: Option<FaultView>,
    /// When the first packet came.
    pub first_seen_at: Option<String>,
    /// When the last one came.
    pub last_seen_at: Option<String>,
    /// What the address is: `unknown`, `own`, `allowed`, `trunk`, `blocked`, `watched` (a block that only counts) or `banned`.
    pub standing: String,
    /// The same in words, such as `a peer of trunk carrier`, or why no block is proposed; empty where one is.
    pub standing_text: String,
    /// Packets that its block or ban counted, which are in no other number here; null without one.
    pub block_packets: Option<u64>,
    /// The command that would block it; null where `standing_text` says why.
    pub block: Option<String>,
    /// What speaks against that block, in words; empty where nothing does.
    #[serde(default)]
    pub block_caution: String,
}

/// How many packets had a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCountView {
    /// Name of the reason.
    pub reason: String,
    /// Name of the reason's class.
    pub class: String,
    /// Packets.
    pub packets: u64,
}

/// The fault of a malformed message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultView {
    /// Name of the reason.
    pub reason: String,
    /// Offset in bytes of the line at fault from the first byte of the segment or datagram; negative where the line began in an earlier one; null
    /// where it is not known.
    pub offset: Option<i64>,
    /// The line at fault, without its end, escaped; empty at the end of the headers, and where it is not known.
    pub line: String,
    /// Both in words; how the message begins where neither is known.
    pub text: String,
    /// The lines of the message as far as it is kept, 1024 bytes at the most; other bytes than printable ones as `\xNN`, a LF without CR too.
    pub message: Vec<String>,
    /// Index of the line at fault in `message`; null where it is not known.
    pub message_line: Option<usize>,
}

/// A sender and a reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OffenderView {
    /// The sender, the reason, and how many packets.
    #[serde(flatten)]
    pub source: SourceView,
    /// The packets a second, over the last 10 s.
    pub packets_per_second: f64,
    /// How many of them passed, since monitor mode or a check that only counts let them; the others were stopped.
    pub passed_packets: u64,
    /// When the first one came.
    pub first_seen_at: Option<String>,
    /// When the last one came.
    pub last_seen_at: Option<String>,
    /// From of the first one.
    pub from: Option<String>,
    /// User-Agent of the first one.
    pub user_agent: Option<String>,
    /// Offset in bytes of the line at fault from the first byte of the segment or datagram; null where it is not known.
    pub fault_offset: Option<i64>,
    /// The line at fault, without its end, escaped; empty where it is not known.
    pub fault_line: String,
    /// The same in words, with its offset.
    pub fault_text: String,
}

impl AddressView {
    /// With what was sent as it came, for whoever may read the kernel's maps.
    #[must_use]
    pub fn of_row(row: &AddressRow) -> AddressView {
        AddressView::new(row, &Fault::of)
    }

    /// With credentials overwritten, for whoever reads it over HTTP.
    #[must_use]
    pub fn redacted(row: &AddressRow) -> AddressView {
        AddressView::new(row, &Fault::redacted)
    }

    fn new(row: &AddressRow, read: &dyn Fn(&OffenderRow) -> Fault) -> AddressView {
        let malformed = row.reasons.iter().filter(|reason| reason.reason.is_malformed());
        let faults: Vec<(&OffenderRow, Fault)> = malformed.map(|reason| (reason, read(reason))).collect();
        let said = |of: fn(&Fault) -> &Option<String>| faults.iter().find_map(|(_, fault)| of(fault).clone());
        let count = |reason: &OffenderRow| ReasonCountView {
            reason: reason.reason.name().to_owned(),
            class: reason.reason.class().name().to_owned(),
            packets: reason.packets,
        };
        let user_agent = said(|fault| &fault.user_agent);
        AddressView {
            src_ip: row.address.to_string(),
            packets: row.packets,
            packets_per_second: row.per_sec(),
            passed_packets: row.passed,
            reasons: row.reasons.iter().map(count).collect(),
            ports_seen: row.ports_seen(),
            ports: row.ports.iter().take(PORTS).map(|port| OffenderView::new(port, &read(port))).collect(),
            good_messages: row.good,
            good_share: row.good_share().map(thousandths),
            from: said(|fault| &fault.from),
            fault: faults.first().map(|(reason, fault)| FaultView::new(reason, fault)),
            first_seen_at: row.first_seen.map(|seen| seen.to_string()),
            last_seen_at: row.last_seen.map(|seen| seen.to_string()),
            standing: row.standing.name().to_owned(),
            standing_text: why_not(row, user_agent.as_deref()),
            block_packets: row.at_block,
            block: row.block().map(|target| format!("sipguard block{} {target}", container::option())),
            block_caution: row.caution(),
            user_agent,
        }
    }
}

/// Why no block is proposed; where others are behind the address, what would reach the device alone.
fn why_not(row: &AddressRow, user_agent: Option<&str>) -> String {
    let why = row.why_not();
    // A stranger says it, and the command is pasted: what a shell could take for its own is not repeated.
    let is_plain = |agent: &&str| !agent.contains(['\'', '"', '`', '$', '\\', '!']);
    match user_agent.and_then(UserAgent::longest_beginning).filter(is_plain) {
        Some(agent) if row.is_shared() => {
            let option = container::option();
            format!(
                "{why}. `sipguard block{option} --user-agent '{agent}'` stops every device that says so, wherever it is"
            )
        }
        _ => why,
    }
}

impl FaultView {
    fn new(row: &OffenderRow, fault: &Fault) -> FaultView {
        let (message, message_line) = fault.lines();
        FaultView {
            reason: row.reason.name().to_owned(),
            offset: fault.offset,
            line: escaped(&fault.line),
            text: fault.text(),
            message,
            message_line,
        }
    }
}

impl OffenderView {
    /// With what was sent as it came, for whoever may read the kernel's maps.
    #[must_use]
    pub fn of_row(row: &OffenderRow) -> OffenderView {
        OffenderView::new(row, &Fault::of(row))
    }

    fn new(row: &OffenderRow, fault: &Fault) -> OffenderView {
        let from = SocketAddr::new(row.address, row.port);
        OffenderView {
            source: SourceView::new(from, row.reason, row.packets, &fault.sample),
            packets_per_second: row.lately as f64 / 10.0,
            passed_packets: row.passed,
            first_seen_at: row.first_seen.map(|seen| seen.to_string()),
            last_seen_at: row.last_seen.map(|seen| seen.to_string()),
            from: fault.from.clone(),
            user_agent: fault.user_agent.clone(),
            fault_offset: fault.offset,
            fault_line: escaped(&fault.line),
            fault_text: fault.text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sipguard_common::Reason;
    use sipguard_core::by_address::{Standing, group};
    use sipguard_core::offenders::OffenderTable;
    use sipguard_core::view::json;

    use super::*;

    fn row(port: u16) -> OffenderRow {
        let sample = b"REGISTER sip:a SIP/2.0\nFrom: <sip:201@a>\nUser-Agent: Yealink T46S\nAuthorization: Digest a=1\r\n\r\n";
        OffenderRow {
            address: "203.0.113.7".parse().unwrap(),
            port,
            reason: Reason::BareLf,
            packets: 2,
            lately: 1,
            passed: 0,
            first_seen: Timestamp::from_millisecond(1_767_225_600_600).ok(),
            last_seen: None,
            sample: sample.to_vec(),
            sample_at: 0,
            fault_at: Some(23),
        }
    }

    fn address() -> AddressRow {
        let ports = vec![row(4001), row(4002)];
        let mut rows = group(OffenderTable { ports, addresses: Vec::new() });
        AddressRow { good: Some(4), ..rows.remove(0) }
    }

    #[test]
    fn documents() {
        insta::assert_snapshot!("offender", format!("{:#}", json(&OffenderView::of_row(&row(4001)))));
        insta::assert_snapshot!("address", format!("{:#}", json(&AddressView::of_row(&address()))));
    }

    #[test]
    fn credentials_are_in_the_document_of_the_kernel_and_not_in_that_of_http() {
        let told = |view: AddressView| json(&view).to_string();
        assert!(told(AddressView::of_row(&address())).contains("Digest a=1"));
        let redacted = told(AddressView::redacted(&address()));
        assert!(redacted.contains("Digest xxx") && redacted.contains("Yealink"), "{redacted}");
        assert!(!redacted.contains("a=1") && !redacted.contains("613d31"), "{redacted}");
    }

    #[test]
    fn who_is_not_to_be_blocked_has_no_command() {
        let view =
            AddressView::of_row(&AddressRow { standing: Standing::Trunk("carrier".to_owned()), ..address() });
        assert_eq!((view.block, view.standing.as_str()), (None, "trunk"));
        assert_eq!(view.standing_text, "a peer of trunk carrier");
        // Others are behind it: what reaches the device alone is said.
        let view = AddressView::of_row(&address());
        assert_eq!(view.block, None);
        let remedy = "4 good messages came from it too. `sipguard block --user-agent 'Yealink T46S'` stops every device";
        assert!(view.standing_text.starts_with(remedy), "{}", view.standing_text);
        for agent in ["a' ; id ; '", "a `id` b", "a $(id)", "a \\ b", "a \" b"] {
            let told = why_not(&address(), Some(agent));
            assert_eq!(told, "4 good messages came from it too", "{agent}");
        }
    }
}
