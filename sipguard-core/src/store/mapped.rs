//! What older versions kept of IPv4 written as IPv6 (`::ffff:192.0.2.0/120`). They took it for a prefix of IPv6, so nothing had asked
//! whether such a block holds an address of this machine; the kernel, which has both families in one map, stopped IPv4 by it.

use anyhow::{Result, anyhow};
use rusqlite::{Connection, params};

use super::GUARD;
use super::audit::{self, AuditRecord};
use super::edit::Counts;
use super::rows::{StoreTables, is_mapped};
use crate::address::Source;
use crate::clock::Clock;
use crate::notice;
use crate::rule::RuleVerb;

/// Gives allowances and peers of trunks their one form, and takes blocks away: they may cut the way to the machine. Says so.
pub(super) fn migrate(db: &Connection) -> Result<()> {
    let rows = StoreTables::new(db);
    let mut taken = Vec::new();
    for (text, row) in rows.mapped()? {
        db.execute("DELETE FROM rules WHERE target = ?1 AND origin = ?2", [&text, &row.origin])?;
        let same = |other: &super::RuleRow| other.origin == row.origin;
        if row.verb == RuleVerb::Block {
            taken.push(row.target.to_string());
        } else if !rows.of(&row.target)?.iter().any(same) {
            rows.write(&row)?;
        }
    }
    peers(db)?;
    if taken.is_empty() {
        return Ok(());
    }
    taken.sort_unstable();
    taken.dedup();
    // The kernel may have them: all of its maps are reconciled with the store.
    db.execute("UPDATE state SET applied = -1", [])?;
    let reason = "blocks written as ::ffff:ADDR/LEN, which may hold addresses of this machine";
    audit::write(
        db,
        &AuditRecord {
            at_ms: Clock::now()?.wall_ms(),
            author: GUARD.to_owned(),
            origin: GUARD.to_owned(),
            verb: "migrate".to_owned(),
            what: audit::what(&taken),
            reason: reason.to_owned(),
            counts: Counts { removed: taken.len(), ..Counts::default() },
        },
    )?;
    notice::send(format!(
        "taken away were {reason}. To block again what is meant: `sipguard block {}`",
        taken.join(" ")
    ));
    Ok(())
}

fn peers(db: &Connection) -> Result<()> {
    let mut statement = db.prepare("SELECT peer, number FROM peers")?;
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let all: Vec<(String, u16)> = all.collect::<Result<_, _>>()?;
    for (text, number) in all.iter().filter(|(text, _)| is_mapped(text)) {
        let peer: Source =
            text.parse().map_err(|error| anyhow!("the store has a peer of a trunk: {error}"))?;
        db.execute("DELETE FROM peers WHERE peer = ?1", [text])?;
        db.execute("INSERT OR IGNORE INTO peers VALUES (?1, ?2)", params![peer.to_string(), number])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn what_was_written_as_ipv6_becomes_ipv4_and_blocks_go() {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db, 0).unwrap();
        for (kind, target, verb, word) in [
            ("prefix", "::ffff:0.0.0.0/96", "block", 1),
            ("host", "::ffff:192.0.2.1", "block", 1),
            ("prefix", "::ffff:198.51.100.0/120", "allow", 1),
            ("prefix", "::ffff:203.0.113.0/120", "allow", 1),
            ("prefix", "203.0.113.0/24", "block", 2),
            ("prefix", "::ffff:0:0:0/96", "block", 1),
        ] {
            let sql = "INSERT INTO rules VALUES (?1, ?2, 'cli', ?3, 'enforce', '', 'me', 1, NULL, ?4)";
            db.execute(sql, params![kind, target, verb, word]).unwrap();
        }
        db.execute_batch("INSERT INTO peers VALUES ('::ffff:10.0.0.0/104', 1), ('2001:db8::/32', 2)")
            .unwrap();
        db.execute_batch("UPDATE state SET version = 3, applied = 3").unwrap();
        let shown = |rows: &StoreTables<'_>| -> Vec<String> {
            rows.all().unwrap().iter().map(|row| format!("{} {}", row.verb.name(), row.target)).collect()
        };
        let rest = ["block 203.0.113.0/24", "block ::ffff:0:0:0/96"];
        // Whoever only reads an older store passes over them.
        assert_eq!(shown(&StoreTables::new(&db)), rest);
        migrate(&db).unwrap();
        let rows = StoreTables::new(&db);
        assert_eq!(shown(&rows), ["allow 198.51.100.0/24", rest[0], rest[1]]);
        let mut peers: Vec<String> =
            rows.peers().unwrap().iter().map(|(peer, trunk)| format!("{peer} {trunk}")).collect();
        peers.sort();
        assert_eq!(peers, ["10.0.0.0/8 1", "2001:db8::/32 2"]);
        let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(one("SELECT what FROM audit WHERE verb = 'migrate'"), "0.0.0.0/0 192.0.2.1");
        assert_eq!(one("SELECT version || ' ' || applied FROM state"), "3 -1");
    }
}
