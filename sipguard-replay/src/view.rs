//! What became of one capture.

use std::path::PathBuf;

use serde::Serialize;
use sipguard_core::view::SourceView;

/// A replay of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayView {
    /// What it comes to.
    pub answer: AnswerView,
    /// The file.
    pub file: PathBuf,
    /// Packets in it.
    pub packets: u64,
    /// Packets that came in and were decided about.
    pub judged: u64,
    /// Packets that an attached guard would stop.
    pub stopped: u64,
    /// Packets that a monitoring trunk or block would let pass.
    pub only_counted: u64,
    /// Packets that the PBX sent.
    pub sent_by_pbx: u64,
    /// Packets that the capture has only in part.
    pub cut: u64,
    /// Packets behind one that is missing in the capture.
    pub lacking: u64,
    /// Packets shorter or longer than a network card brings.
    pub no_frame: u64,
    /// Packets of link types of which no frame can be made.
    pub other_links: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Addresses of the PBX.
    pub pbx: Vec<String>,
    /// Whether they were guessed.
    pub pbx_guessed: bool,
    /// What is wrong with the file; the rest is of what comes before.
    pub damage: Option<String>,
    /// By reason.
    pub reasons: Vec<ReasonView>,
    /// By sender, the one with the most packets first.
    pub sources: Vec<ReplaySourceView>,
    /// By trunk.
    pub trunks: Vec<TrunkReasonView>,
    /// Where the faults of malformed messages are, with `--explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<Vec<ExplanationView>>,
    /// What is to be known of it, a sentence each.
    pub notes: Vec<String>,
}

/// What a replay comes to: whether anything legal would be stopped, whose, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerView {
    /// `nothing-judged`, `nothing-stopped`, `rules-alone` (what blocks and denials stop), `malformed-alone` (of addresses of which nothing
    /// well-formed came), or `perhaps-legal`.
    pub verdict: &'static str,
    /// The same as a sentence.
    pub text: String,
    /// What would be stopped, by address and reason, the most packets first; 50 at the most.
    pub faults: Vec<FaultView>,
    /// Commands that would block who sends nothing but what is malformed, and more than a packet of it.
    pub blocks: Vec<String>,
    /// Commands that would let it pass; none where nothing is stopped.
    pub commands: Vec<String>,
}

/// What would be stopped of an address, for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultView {
    /// The address.
    pub src_ip: String,
    /// The trunk whose it is; null where it is none's.
    pub trunk: Option<String>,
    /// Name of the reason.
    pub reason: &'static str,
    /// How many packets, by any ports.
    pub packets: u64,
    /// How many well-formed ones came from the address.
    pub well_formed: u64,
    /// Number of the first of them in the capture, from 1.
    pub first_packet: u64,
    /// Of which packet offset and line are, which is the first one of which the line is known; null where it is of none.
    pub packet: Option<u64>,
    /// Offset in bytes of the line at fault in that packet's payload; negative where it began in an earlier segment.
    pub offset: Option<i64>,
    /// The line at fault, escaped.
    pub line: Option<String>,
    /// The same for people: in words where it is the end of the headers, or where a message breaks off.
    pub text: Option<String>,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReasonView {
    /// Its name.
    pub reason: &'static str,
    /// Name of its class.
    pub class: &'static str,
    /// What would become of the packets.
    pub action: &'static str,
    /// How many.
    pub packets: u64,
    /// The reason as a sentence.
    pub text: &'static str,
}

/// What became of the packets of a sender with a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplaySourceView {
    /// The sender, the reason, and how many packets.
    #[serde(flatten)]
    pub source: SourceView,
    /// What would become of the packets.
    pub action: &'static str,
    /// Number of the first of them in the capture, from 1.
    pub first_packet: u64,
}

/// Where the fault of a malformed message is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplanationView {
    /// Number of the packet in the capture, from 1.
    pub packet: u64,
    /// Address of the sender.
    pub src_ip: String,
    /// Port of the sender.
    pub src_port: u16,
    /// Name of the reason.
    pub reason: &'static str,
    /// Offset in bytes of the line at fault in the packet's payload; negative where it began in an earlier segment.
    pub offset: Option<i64>,
    /// The line at fault, escaped.
    pub line: String,
    /// The same for people: in words where it is the end of the headers, or where a message breaks off. Empty where it is not known.
    pub text: String,
}

/// A trunk and a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrunkReasonView {
    /// The trunk.
    pub trunk: String,
    /// Name of the reason.
    pub reason: &'static str,
    /// Name of its class.
    pub class: &'static str,
    /// What would become of the packets.
    pub action: &'static str,
    /// How many.
    pub packets: u64,
}
