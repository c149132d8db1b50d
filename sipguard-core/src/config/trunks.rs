//! The trunks of the configuration, and what can be wrong between them.

use sipguard_common::abi::{TRANSPORTS, TRUNK_ENTRIES};
use sipguard_common::framer::methods;

use super::tables::TrunkTable;
use super::text_values::{Methods, Transports};
use super::tree::path;
use super::validate::Validator;
use super::value::Text;
use crate::address::Source;
use crate::denial::{DeniedTraffic, Whom};
use crate::trunk::{TrunkPolicy, TrunkRow};

/// Prefixes within each other that the kernel looks at.
const NESTED: usize = 6;

/// A peer, as it was written.
struct ConfiguredPeer {
    net: Source,
    trunk: String,
    key: String,
}

/// All trunks.
#[derive(Default)]
pub(super) struct TrunkValidation {
    /// As the store has them.
    pub rows: Vec<TrunkRow>,
    peers: Vec<ConfiguredPeer>,
}

impl TrunkValidation {
    /// One more.
    pub(super) fn add(&mut self, validator: &mut Validator<'_>, name: String, trunk: TrunkTable) {
        let key = path("trunks", &name);
        let mut peers = Vec::new();
        for (at, Text(net)) in trunk.peers.iter().flatten().enumerate() {
            peers.push(*net);
            if net.is_wide() {
                let text = format!(
                    "{net} is shorter than /{}: name longer prefixes, or make the trunk by `sipguard trunk add {name} --peer {net} --force`",
                    net.least_bits()
                );
                validator.refuse(&format!("{key}.peers[{at}]"), text);
            }
            self.peers.push(ConfiguredPeer {
                net: *net,
                trunk: name.clone(),
                key: format!("{key}.peers[{at}]"),
            });
        }
        // One whose peers were refused already has none here.
        if peers.is_empty() && (trunk.peers.is_some() || !validator.is_set(&format!("{key}.peers"))) {
            validator.refuse(&key, "it has no peers: write such as peers = [\"198.51.100.0/28\"]");
        }
        peers.sort_unstable();
        peers.dedup();
        let default = TrunkPolicy::default();
        let transports = trunk.transports.as_deref().map(|all| transports(validator, &key, all));
        let policy = TrunkPolicy {
            transports: transports.unwrap_or(default.transports),
            methods: trunk.methods.as_deref().map_or(methods::ALL, |all| method_set(validator, &key, all)),
            profile: trunk.profile.map_or(default.profile, |Text(profile)| profile),
            mode: trunk.mode.map_or(default.mode, |Text(mode)| mode),
            proxy_protocol: trunk.proxy_protocol.unwrap_or(default.proxy_protocol),
        };
        if let Some(warn) = policy.warn() {
            validator.warn(&format!("{key}.methods"), warn);
        }
        let reason = trunk.reason.map(|Text(reason)| reason.0).unwrap_or_default();
        self.rows.push(TrunkRow {
            name,
            number: 0,
            peers,
            policy,
            reason,
            author: String::new(),
            created_ms: 0,
        });
    }

    /// What is wrong between them.
    pub(super) fn check(&self, validator: &mut Validator<'_>, denials: &[(Whom, DeniedTraffic)]) {
        let most = TRUNK_ENTRIES as usize - 1;
        if let Some(row) = self.rows.get(most) {
            let text = format!("there are {} trunks, the kernel has room for {most}", self.rows.len());
            validator.refuse(&path("trunks", &row.name), text);
        }
        for (at, peer) in self.peers.iter().enumerate() {
            self.twice(validator, at, peer);
            self.nested(validator, peer);
        }
        for row in &self.rows {
            mute(validator, row, denials);
        }
    }

    fn twice(&self, validator: &mut Validator<'_>, at: usize, peer: &ConfiguredPeer) {
        let same = |other: &&ConfiguredPeer| other.net == peer.net && other.trunk != peer.trunk;
        if let Some(other) = self.peers[..at].iter().find(same) {
            let text = format!(
                "{} is a peer of the trunk {} as well ({}): a prefix belongs to one trunk",
                peer.net,
                other.trunk,
                validator.location(&other.key)
            );
            validator.refuse(&peer.key, text);
        }
    }

    fn nested(&self, validator: &mut Validator<'_>, peer: &ConfiguredPeer) {
        let mut around: Vec<Source> = self.peers.iter().map(|other| other.net).collect();
        around.retain(|net| !net.is_host() && lies_in(&peer.net, net));
        around.sort_unstable();
        around.dedup();
        if around.len() > NESTED && !peer.net.is_host() {
            let text = format!(
                "{} lies within {} other peers, the kernel looks at {NESTED} prefixes within each other: leave one out",
                peer.net,
                around.len() - 1
            );
            validator.refuse(&peer.key, text);
        }
    }
}

fn lies_in(inner: &Source, outer: &Source) -> bool {
    inner.is_ipv4() == outer.is_ipv4()
        && inner.bits() >= outer.bits()
        && Source::network(inner.bytes(), outer.bits()) == Some(*outer)
}

fn transports(
    validator: &mut Validator<'_>,
    key: &str,
    all: &[Text<Transports>],
) -> [bool; TRANSPORTS.len()] {
    if all.is_empty() {
        validator
            .refuse(&format!("{key}.transports"), "it may use nothing: write what it may use, or [\"all\"]");
    }
    all.iter()
        .fold([false; TRANSPORTS.len()], |may, Text(one)| std::array::from_fn(|at| may[at] || one.0[at]))
}

fn method_set(validator: &mut Validator<'_>, key: &str, all: &[Text<Methods>]) -> u32 {
    if all.is_empty() {
        validator
            .refuse(&format!("{key}.methods"), "it may send nothing: write what it may send, or [\"all\"]");
    }
    all.iter().fold(0, |set, Text(one)| set | one.0)
}

/// A trunk that may use only what is denied to all trunks.
fn mute(validator: &mut Validator<'_>, row: &TrunkRow, denials: &[(Whom, DeniedTraffic)]) {
    let key = format!("{}.transports", path("trunks", &row.name));
    let denied = |at: usize| {
        let takes = |(whom, what): &(Whom, DeniedTraffic)| {
            *whom == Whom::Trunks && what.method.is_none() && what.transport == at
        };
        denials.iter().any(takes)
    };
    let may = row.policy.transports;
    let left = (0..may.len()).any(|at| may[at] && !denied(at));
    if validator.is_set(&key) && may != [false; TRANSPORTS.len()] && !left {
        let text = format!(
            "{} is all that it may use, and `deny.trunks` ({}) takes that from every trunk",
            row.policy.transports_text(),
            validator.location("deny.trunks")
        );
        validator.refuse(&key, text);
    }
}
