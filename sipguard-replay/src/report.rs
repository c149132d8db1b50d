//! What a replay tells, as JSON (`sipguard.replay/2`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use sipguard_common::Reason;
use sipguard_core::address::unmapped;
use sipguard_core::counters::Action;
use sipguard_core::escape::escaped;
use sipguard_core::settings::list;
use sipguard_core::view::SourceView;

use super::answer;
use super::side::{Marks, Side};
use super::tally::{SourceKey, Stopped, Tally};
use super::{ReplayRequest, link, side};
use crate::view::{AnswerView, ExplanationView, ReasonView, ReplaySourceView, ReplayView, TrunkReasonView};

/// What an attached guard would not let pass.
pub(super) const STOPS: [Action; 2] = [Action::Drop, Action::Reset];

/// What became of one capture.
#[derive(Debug, Default)]
pub struct ReplayReport {
    /// The file.
    file: PathBuf,
    /// Packets in it.
    pub packets: u64,
    /// Packets that the PBX sent.
    pub(super) sent: u64,
    /// Packets of link types of which no frame can be made, by link type.
    pub(super) links: BTreeMap<u32, u64>,
    /// What was judged.
    pub(super) tally: Tally,
    /// Whether any packet is to or from the PBX.
    pub of_pbx: bool,
    /// Segments that say a length of 0.
    pub without_length: u64,
    /// What is wrong with the file, and where; the report is of what comes before.
    pub damage: Option<String>,
    pbx: Vec<String>,
    guessed: bool,
    marks: Marks,
    doubtful: Vec<[IpAddr; 2]>,
    explain: bool,
    trunks: BTreeMap<u8, String>,
    ports: String,
    notes: Vec<String>,
}

impl ReplayReport {
    /// Fills in what is known at the end.
    pub(super) fn finish(&mut self, path: &Path, request: &ReplayRequest, side: &Side) {
        path.clone_into(&mut self.file);
        self.pbx = side.addresses().map(|address| address.to_string()).collect();
        (self.guessed, self.marks) = (side.guessed, side.marks);
        self.doubtful.clone_from(&side.doubtful);
        self.explain = request.explain;
        let names = request
            .rules
            .trunks
            .iter()
            .filter_map(|trunk| Some((u8::try_from(trunk.number).ok()?, trunk.name.clone())));
        self.trunks = names.collect();
        self.ports = list(request.settings.ports.sip.iter().chain(&request.settings.ports.tls));
        self.notes = self.noted(request);
        if self.packets > 0 && !self.is_judged() {
            let links: Vec<String> = self.links.keys().map(|link| link::shown(*link)).collect();
            self.damage = Some(format!(
                "{}: its packets are of link type {}, which can't be judged: capture on an interface of the PBX (`tcpdump -i eth0 -w FILE`), \
                 or where these are Ethernet frames say so (`editcap -T ether FILE OTHER`)",
                path.display(),
                links.join(" and ")
            ));
        }
    }

    /// Whether any packet was read that could be judged.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.packets > self.links.values().sum::<u64>()
    }

    /// Packets that an attached guard would stop.
    #[must_use]
    pub fn stopped(&self) -> u64 {
        self.tally.with(&STOPS)
    }

    /// What it comes to.
    #[must_use]
    pub fn answer(&self) -> AnswerView {
        let trunk = |index: u8| (index != 0).then(|| self.trunk(index));
        answer::answer(&self.file, &self.tally, &self.ports, &trunk)
    }

    fn decided(&self) -> u64 {
        self.tally.reasons.values().sum()
    }

    fn noted(&self, request: &ReplayRequest) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |holds: bool, text: String| notes.extend(holds.then_some(text));
        let tally = &self.tally;
        let ports = &self.ports;
        note(
            self.guessed && self.pbx.is_empty() && self.doubtful.is_empty(),
            format!("no packet has a guarded port ({ports}): `--port` or `--config` says which are"),
        );
        note(
            !self.guessed && !self.of_pbx && self.packets > 0,
            format!("no packet is to or from {} (`--pbx`)", self.pbx.join(", ")),
        );
        for [one, other] in &self.doubtful {
            note(
                true,
                format!(
                    "which of {one} and {other} is the PBX can't be told: what both sent was judged; `--pbx ADDR` says it"
                ),
            );
        }
        note(
            self.marks == Marks::Believed,
            "which packets the PBX sent is what the capture says; `--pbx ADDR` says it otherwise".to_owned(),
        );
        note(
            self.guessed && !self.pbx.is_empty() && self.marks != Marks::Believed,
            format!(
                "the PBX was guessed to be {} from the first {} packets; `--pbx ADDR` says it",
                self.pbx.join(", "),
                self.packets.min(side::LOOKED_AT)
            ),
        );
        note(
            self.marks == Marks::Contradicting,
            "packets of both directions are marked as received: the marks were not used".to_owned(),
        );
        note(
            self.without_length > 0,
            format!(
                "without a length in the IP header (segmentation offload): {}, as long as captured",
                packets(self.without_length)
            ),
        );
        note(
            tally.resets > 0,
            format!(
                "resets with data: {}; a guard before whoever captured makes them of malformed segments, and what it dropped is missing: \
                 `sipguard capture` has packets as they came",
                packets(tally.resets)
            ),
        );
        let older = tally.of(Reason::NoConnection);
        note(
            older > 0,
            format!(
                "of connections that began before the capture: {}, passed as no-connection",
                packets(older)
            ),
        );
        note(
            tally.cut > 0,
            format!(
                "not judged: {} that the capture has only in part (`tcpdump -s 0` captures all of each)",
                packets(tally.cut)
            ),
        );
        note(
            tally.lacking > 0,
            format!(
                "not judged: {} behind one that was cut or is missing in the capture, of the same connection or datagram",
                packets(tally.lacking)
            ),
        );
        note(
            tally.connections > u64::from(request.flows),
            format!(
                "{} connections were opened and {} are followed at once: of others some may have passed as no-connection (`--flows`)",
                tally.connections, request.flows
            ),
        );
        for (link, count) in &self.links {
            note(true, format!("not judged: {} of link type {}", packets(*count), link::shown(*link)));
        }
        note(
            tally.no_frame > 0,
            format!("not judged: {} shorter or longer than a network card brings", packets(tally.no_frame)),
        );
        note(
            tally.of_others > 0,
            format!("stopped as well: {} of sources beyond those listed", packets(tally.of_others)),
        );
        note(true, "limits (of rates and open connections) and bans are no part of a replay".to_owned());
        notes
    }

    /// Sources, the one with the most packets first.
    fn sources(&self) -> Vec<(&SourceKey, &Stopped)> {
        let mut all: Vec<_> = self.tally.sources.iter().collect();
        all.sort_by_key(|(_, stopped)| (std::cmp::Reverse(stopped.packets), stopped.first));
        all
    }

    fn trunk(&self, index: u8) -> String {
        self.trunks.get(&index).cloned().unwrap_or_else(|| index.to_string())
    }

    fn explained(&self) -> impl Iterator<Item = ExplanationView> {
        self.tally.explained.iter().map(|explanation| ExplanationView {
            packet: explanation.packet,
            src_ip: unmapped(explanation.from).to_string(),
            src_port: explanation.port,
            reason: explanation.reason.name(),
            offset: explanation.offset,
            line: escaped(&explanation.line),
            text: explanation.shown(),
        })
    }

    /// The form for programs.
    #[must_use]
    pub fn view(&self) -> ReplayView {
        let reasons = self.tally.reasons.iter().map(|((number, action), packets)| {
            let reason = reason(*number);
            ReasonView {
                reason: reason.name(),
                class: reason.class().name(),
                action: action.name(),
                packets: *packets,
                text: reason.text(),
            }
        });
        let sources = self.sources();
        let offenders = sources.iter().map(|((address, port, number, action), stopped)| {
            let from = SocketAddr::new(unmapped(*address), *port);
            let source = SourceView::new(from, reason(*number), stopped.packets, &stopped.sample);
            ReplaySourceView { source, action: action.name(), first_packet: stopped.first }
        });
        let trunks = self.tally.trunks.iter().map(|((trunk, number, action), packets)| TrunkReasonView {
            trunk: self.trunk(*trunk),
            reason: reason(*number).name(),
            class: reason(*number).class().name(),
            action: action.name(),
            packets: *packets,
        });
        ReplayView {
            answer: self.answer(),
            file: self.file.clone(),
            packets: self.packets,
            judged: self.decided(),
            stopped: self.stopped(),
            only_counted: self.tally.with(&[Action::WouldDrop, Action::WouldReset]),
            sent_by_pbx: self.sent,
            cut: self.tally.cut,
            lacking: self.tally.lacking,
            no_frame: self.tally.no_frame,
            other_links: self.links.values().sum::<u64>(),
            connections: self.tally.connections,
            pbx: self.pbx.clone(),
            pbx_guessed: self.guessed,
            damage: self.damage.clone(),
            reasons: reasons.collect(),
            sources: offenders.collect(),
            trunks: trunks.collect(),
            explained: self.explain.then(|| self.explained().collect()),
            notes: self.notes.clone(),
        }
    }
}

fn packets(count: u64) -> String {
    if count == 1 { "1 packet".to_owned() } else { format!("{count} packets") }
}

fn reason(number: u8) -> Reason {
    Reason::from_number(number).unwrap_or(Reason::Internal)
}
