//! The rows of `trunks` and `peers`.

use std::collections::HashMap;

use anyhow::{Result, anyhow};
use rusqlite::params;
use sipguard_common::abi::TRUNK_ENTRIES;

use super::RuleSpec;
use super::apply::DirtyEntry;
use super::at_once;
use super::edit::Change;
use super::origin::is_operators;
use super::rows::{FromRow, StoreTables, text};
use crate::address::Source;
use crate::error::{Failure, FailureKind};
use crate::rate::AtOnce;
use crate::rule::RuleVerb;
use crate::target::Target;
use crate::trunk::{TrunkMode, TrunkPolicy, TrunkProfile, TrunkRow, method_set, transports};

/// Peers, with the index of their trunk.
pub type Peers = HashMap<Source, u16>;

impl StoreTables<'_> {
    /// Every trunk, by name.
    pub fn trunks(&self) -> Result<Vec<TrunkRow>> {
        let mut peers: HashMap<u16, Vec<Source>> = HashMap::new();
        for (peer, number) in self.peers()? {
            peers.entry(number).or_default().push(peer);
        }
        let mut trunks: Vec<TrunkRow> = self.read_all()?;
        let balancers = self.balancers()?;
        for trunk in &mut trunks {
            trunk.peers = peers.remove(&trunk.number).unwrap_or_default();
            trunk.peers.sort_unstable();
            trunk.policy.proxy_protocol = balancers.contains(&trunk.name);
        }
        Ok(trunks)
    }

    /// Names of the trunks whose peers are balancers.
    fn balancers(&self) -> Result<Vec<String>> {
        if !self.has("balancers")? {
            return Ok(Vec::new());
        }
        let mut statement = self.db().prepare("SELECT trunk FROM balancers")?;
        let names = statement.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// The peers of all trunks.
    pub fn peers(&self) -> Result<Peers> {
        let mut peers = Peers::new();
        if !self.has("trunks")? {
            return Ok(peers);
        }
        let mut statement = self.db().prepare("SELECT peer, number FROM peers")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let text = row.get_ref(0)?.as_str()?;
            let peer = text.parse().map_err(|error| anyhow!("the store has a peer of a trunk: {error}"))?;
            peers.insert(peer, row.get(1)?);
        }
        Ok(peers)
    }
}

impl FromRow for TrunkRow {
    const TABLE: &'static str = "trunks";
    const SELECT: &'static str = "SELECT name, number, transports, methods, profile, mode, reason, author, created FROM trunks ORDER BY name";

    /// Without its peers and whether they are balancers, which have tables of their own.
    fn from_row(row: &rusqlite::Row<'_>) -> Result<TrunkRow> {
        let strange = |error| anyhow!("the store has a trunk that this sipguard does not know: {error}");
        Ok(TrunkRow {
            name: text(row, 0)?.to_owned(),
            number: row.get(1)?,
            peers: Vec::new(),
            policy: TrunkPolicy {
                transports: transports(text(row, 2)?).map_err(strange)?,
                methods: method_set(text(row, 3)?).map_err(strange)?,
                profile: TrunkProfile::parse(text(row, 4)?).map_err(strange)?,
                mode: TrunkMode::parse(text(row, 5)?).map_err(strange)?,
                ..TrunkPolicy::default()
            },
            reason: text(row, 6)?.to_owned(),
            author: text(row, 7)?.to_owned(),
            created_ms: row.get(8)?,
        })
    }
}

impl Change<'_> {
    /// Makes a trunk be what is wanted; it is made where there is none, with counters that begin at zero. Whether anything changed.
    ///
    /// # Errors
    /// When a peer belongs to another trunk, all indices are taken, or the store refuses.
    pub(crate) fn set_trunk(&mut self, desired: &TrunkRow) -> Result<bool> {
        let before: Vec<Source> = self.rows.peers()?.into_keys().collect();
        let trunks = self.rows.trunks()?;
        let old = trunks.iter().find(|trunk| trunk.name == desired.name);
        for peer in &desired.peers {
            let owner = trunks.iter().find(|trunk| trunk.name != desired.name && trunk.peers.contains(peer));
            if let Some(owner) = owner {
                return Err(refused(format!(
                    "{peer} is a peer of the trunk {}: nothing was changed",
                    owner.name
                )));
            }
        }
        let number = match old {
            Some(old) => old.number,
            None => free(&trunks)?,
        };
        if old.is_some_and(|old| {
            (&old.peers, old.policy, &old.reason) == (&desired.peers, desired.policy, &desired.reason)
        }) {
            self.counts.same += 1;
            return Ok(false);
        }
        let (author, created_ms) = old
            .map_or((self.author.clone(), self.clock.wall_ms()), |old| (old.author.clone(), old.created_ms));
        let policy = &desired.policy;
        self.rows.db().execute(
            "INSERT OR REPLACE INTO trunks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                desired.name,
                number,
                policy.transports_text(),
                policy.methods_text(),
                policy.profile.name(),
                policy.mode.name(),
                desired.reason,
                author,
                created_ms
            ],
        )?;
        self.rows.db().execute("DELETE FROM balancers WHERE trunk = ?1", [&desired.name])?;
        if policy.proxy_protocol {
            self.rows.db().execute("INSERT INTO balancers VALUES (?1)", [&desired.name])?;
        }
        self.rows.db().execute("DELETE FROM peers WHERE number = ?1", [number])?;
        for peer in &desired.peers {
            self.rows.db().execute("INSERT INTO peers VALUES (?1, ?2)", params![peer.to_string(), number])?;
        }
        if old.is_some() {
            self.counts.moved += 1;
        } else {
            self.counts.added += 1;
            let is_same = |(name, old): &(String, u16)| *name == desired.name && *old == number;
            if !self.removed_trunks.iter().any(is_same) {
                self.new_trunks.push(number);
            }
        }
        self.repeer(&before)?;
        Ok(true)
    }

    /// Removes a trunk. Whether there was one.
    pub(crate) fn remove_trunk(&mut self, name: &str) -> Result<bool> {
        let before: Vec<Source> = self.rows.peers()?.into_keys().collect();
        let old = self.rows.trunks()?.into_iter().find(|trunk| trunk.name == name);
        self.removed_trunks.extend(old.map(|trunk| (trunk.name, trunk.number)));
        let sql = "DELETE FROM peers WHERE number = (SELECT number FROM trunks WHERE name = ?1)";
        self.rows.db().execute(sql, [name])?;
        self.rows.db().execute("DELETE FROM limits WHERE trunk = ?1", [name])?;
        self.rows.db().execute("DELETE FROM balancers WHERE trunk = ?1", [name])?;
        for kind in AtOnce::ALL {
            let sql = format!("DELETE FROM {} WHERE trunk = ?1", at_once::table(kind));
            self.rows.db().execute(&sql, [name])?;
        }
        self.rows.db().execute("DELETE FROM checks WHERE scope = ?1", [name])?;
        let removed = self.rows.db().execute("DELETE FROM trunks WHERE name = ?1", [name])?;
        self.counts.removed += removed;
        self.counts.same += 1 - removed.min(1);
        self.repeer(&before)?;
        Ok(removed > 0)
    }

    /// What is automatic holds back within peers and around them, so all is looked at that lies in those that came or went, or has them in it.
    fn repeer(&mut self, before: &[Source]) -> Result<()> {
        let peers = self.rows.peers()?;
        for net in before.iter().chain(peers.keys()) {
            if before.contains(net) != peers.contains_key(net) {
                let around = (0..=net.bits()).filter_map(|bits| Source::network(net.bytes(), bits));
                self.dirty.some.extend(around.map(|net| DirtyEntry { target: net.into(), known: None }));
                self.dirty.within.push(*net);
            }
        }
        self.allowed.set_peers(peers);
        Ok(())
    }

    /// The name of the trunk that a block by the operator would stop.
    pub(crate) fn blocked_trunk(&self, target: &Target, spec: &RuleSpec) -> Result<Option<String>> {
        if spec.verb != RuleVerb::Block || !is_operators(&spec.origin) {
            return Ok(None);
        }
        let number = self.allowed.trunk_of(target);
        let trunks = if number.is_some() { self.rows.trunks()? } else { Vec::new() };
        Ok(trunks.into_iter().find(|trunk| Some(trunk.number) == number).map(|trunk| trunk.name))
    }
}

/// The next index, so that one that was used is not used again at once.
fn free(trunks: &[TrunkRow]) -> Result<u16> {
    let last = TRUNK_ENTRIES as u16 - 1;
    let taken = |number: &u16| trunks.iter().any(|trunk| trunk.number == *number);
    let highest = trunks.iter().map(|trunk| trunk.number).max().unwrap_or(0);
    let found = (highest + 1..=last).chain(1..=last).find(|number| !taken(number));
    found.ok_or_else(|| {
        refused(format!("there are {last} trunks, which is all that the kernel's map has room for"))
    })
}

fn refused(text: String) -> anyhow::Error {
    Failure::with(FailureKind::Failed, text)
}
