//! The tables, and how an older store becomes one of today. What comes later gets tables of its own.

use anyhow::Result;
use rusqlite::{Connection, TransactionBehavior};

use super::{limits, mapped};

/// Marks the file as ours: `sipg`.
pub(super) const APPLICATION_ID: i32 = 0x7369_7067;

/// Steps from each schema version to the next; their number is the version of today.
const STEPS: &[&str] = &[
    // `version` counts the changes; `applied` is the version that the maps were reconciled with. At 0 no change was ever made.
    // One row a source and target: what that source said last. `kind` leaves room for targets that are no addresses.
    // Times are milliseconds since 1970, UTC; no `expires` is permanent; `word` is the version at which the row was set.
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, applied INTEGER NOT NULL) STRICT;
     INSERT INTO state VALUES (1, 0, 0);
     CREATE TABLE rules (
         kind TEXT NOT NULL CHECK (kind IN ('host', 'prefix')),
         target TEXT NOT NULL,
         origin TEXT NOT NULL,
         verb TEXT NOT NULL CHECK (verb IN ('block', 'allow')),
         mode TEXT NOT NULL CHECK (mode IN ('enforce', 'monitor')),
         reason TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         expires INTEGER,
         word INTEGER NOT NULL,
         PRIMARY KEY (kind, target, origin)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX rules_expires ON rules (expires) WHERE expires IS NOT NULL;
     CREATE INDEX rules_allowed ON rules (verb) WHERE verb = 'allow';
     CREATE TABLE audit (
         id INTEGER PRIMARY KEY,
         at INTEGER NOT NULL,
         author TEXT NOT NULL,
         origin TEXT NOT NULL,
         verb TEXT NOT NULL,
         what TEXT NOT NULL,
         reason TEXT NOT NULL,
         added INTEGER NOT NULL,
         moved INTEGER NOT NULL,
         removed INTEGER NOT NULL,
         unchanged INTEGER NOT NULL
     ) STRICT;",
    // What a class of senders may not send. An empty `method` is the transport as a whole.
    "CREATE TABLE denials (
         whom TEXT NOT NULL,
         method TEXT NOT NULL,
         transport TEXT NOT NULL CHECK (transport IN ('tcp', 'tls', 'udp')),
         reason TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         PRIMARY KEY (whom, method, transport)
     ) STRICT, WITHOUT ROWID;",
    // Rules of devices, by address and port.
    "CREATE TABLE wider (
         kind TEXT NOT NULL CHECK (kind IN ('device', 'host', 'prefix')),
         target TEXT NOT NULL,
         origin TEXT NOT NULL,
         verb TEXT NOT NULL CHECK (verb IN ('block', 'allow')),
         mode TEXT NOT NULL CHECK (mode IN ('enforce', 'monitor')),
         reason TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         expires INTEGER,
         word INTEGER NOT NULL,
         PRIMARY KEY (kind, target, origin)
     ) STRICT, WITHOUT ROWID;
     INSERT INTO wider SELECT * FROM rules ORDER BY kind, target, origin;
     DROP TABLE rules;
     ALTER TABLE wider RENAME TO rules;
     CREATE INDEX rules_expires ON rules (expires) WHERE expires IS NOT NULL;
     CREATE INDEX rules_allowed ON rules (verb) WHERE verb = 'allow';",
    // Trunks by name; `number` is the index in the kernel's map. What a trunk may send, as text: `all`, or names with commas between.
    "CREATE TABLE trunks (
         name TEXT NOT NULL PRIMARY KEY,
         number INTEGER NOT NULL UNIQUE CHECK (number BETWEEN 1 AND 255),
         transports TEXT NOT NULL,
         methods TEXT NOT NULL,
         profile TEXT NOT NULL CHECK (profile IN ('inherit', 'default', 'strict')),
         mode TEXT NOT NULL CHECK (mode IN ('inherit', 'enforce', 'monitor')),
         reason TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE peers (peer TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
    // How much a trunk may send, or with an empty `trunk` each source that is no trunk's.
    "CREATE TABLE limits (
         trunk TEXT NOT NULL,
         kind TEXT NOT NULL CHECK (kind IN ('packets', 'messages', 'register', 'invite', 'connections')),
         per_second INTEGER NOT NULL,
         burst INTEGER NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         PRIMARY KEY (trunk, kind)
     ) STRICT, WITHOUT ROWID;",
    // Bans that the kernel has made, and when it makes them (times in milliseconds; `reason` is a number of `Reason`).
    "CREATE TABLE bans (
         target TEXT NOT NULL PRIMARY KEY,
         since INTEGER NOT NULL,
         until INTEGER NOT NULL,
         times INTEGER NOT NULL,
         reason INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE ban_policy (
         id INTEGER PRIMARY KEY CHECK (id = 1),
         after INTEGER NOT NULL,
         address_after INTEGER NOT NULL,
         within INTEGER NOT NULL,
         first INTEGER NOT NULL,
         longest INTEGER NOT NULL,
         quiet INTEGER NOT NULL
     ) STRICT;
     INSERT INTO ban_policy VALUES (1, 3, 10, 30000, 60000, 3600000, 3600000);",
    // What the configuration file named last, so that what it names no more can go: a setting, trunk, limit or denial, by name.
    "CREATE TABLE configured (kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID;",
    // How many connections a trunk may have open at once, or with an empty `trunk` each source that is no trunk's.
    "CREATE TABLE open_limits (
         trunk TEXT NOT NULL PRIMARY KEY,
         most INTEGER NOT NULL CHECK (most > 0),
         author TEXT NOT NULL,
         created INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;",
    // Rules of SIP identities and user agents.
    "CREATE TABLE wider (
         kind TEXT NOT NULL CHECK (kind IN ('device', 'host', 'identity', 'prefix', 'user-agent')),
         target TEXT NOT NULL,
         origin TEXT NOT NULL,
         verb TEXT NOT NULL CHECK (verb IN ('block', 'allow')),
         mode TEXT NOT NULL CHECK (mode IN ('enforce', 'monitor')),
         reason TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         expires INTEGER,
         word INTEGER NOT NULL,
         PRIMARY KEY (kind, target, origin)
     ) STRICT, WITHOUT ROWID;
     INSERT INTO wider SELECT * FROM rules ORDER BY kind, target, origin;
     DROP TABLE rules;
     ALTER TABLE wider RENAME TO rules;
     CREATE INDEX rules_expires ON rules (expires) WHERE expires IS NOT NULL;
     CREATE INDEX rules_allowed ON rules (verb) WHERE verb = 'allow';",
    // IPv4 that is written as IPv6 is in the store no more: `mapped.rs`.
    "",
    // A source may say both verbs of a target: the later one decides, and the earlier one holds again when it goes.
    "CREATE TABLE wider (
         kind TEXT NOT NULL CHECK (kind IN ('device', 'host', 'identity', 'prefix', 'user-agent')),
         target TEXT NOT NULL,
         origin TEXT NOT NULL,
         verb TEXT NOT NULL CHECK (verb IN ('block', 'allow')),
         mode TEXT NOT NULL CHECK (mode IN ('enforce', 'monitor')),
         reason TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         expires INTEGER,
         word INTEGER NOT NULL,
         PRIMARY KEY (kind, target, origin, verb)
     ) STRICT, WITHOUT ROWID;
     INSERT INTO wider SELECT * FROM rules ORDER BY kind, target, origin;
     DROP TABLE rules;
     ALTER TABLE wider RENAME TO rules;
     CREATE INDEX rules_expires ON rules (expires) WHERE expires IS NOT NULL;
     CREATE INDEX rules_allowed ON rules (verb) WHERE verb = 'allow';",
    // `dirty`: how many times all of the maps must be compared with the store. `guard`: the maps in which `blocks` entries block.
    // `bulk`: the words of the rows of a long list that is under way, and 0 since its begin; `undo`: the rows that it replaced or removed.
    "ALTER TABLE state ADD COLUMN dirty INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE state ADD COLUMN guard TEXT NOT NULL DEFAULT '';
     ALTER TABLE state ADD COLUMN blocks INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE bulk (word INTEGER PRIMARY KEY) STRICT;
     CREATE TABLE undo (
         kind TEXT NOT NULL,
         target TEXT NOT NULL,
         origin TEXT NOT NULL,
         verb TEXT NOT NULL,
         mode TEXT NOT NULL,
         reason TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         expires INTEGER,
         word INTEGER NOT NULL,
         PRIMARY KEY (kind, target, origin, verb)
     ) STRICT, WITHOUT ROWID;",
    // Trunks whose peers are balancers that send a PROXY header.
    "CREATE TABLE balancers (trunk TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;",
    // How many unfinished messages a trunk may have at once, or with an empty `trunk` each source that is no trunk's.
    "CREATE TABLE unfinished_limits (
         trunk TEXT NOT NULL PRIMARY KEY,
         most INTEGER NOT NULL CHECK (most > 0),
         author TEXT NOT NULL,
         created INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;",
    // The switches of checks: `scope` is a trunk, `devices`, or empty for the guard.
    "CREATE TABLE checks (
         scope TEXT NOT NULL,
         reason TEXT NOT NULL,
         state TEXT NOT NULL CHECK (state IN ('refuse', 'monitor', 'off')),
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         PRIMARY KEY (scope, reason)
     ) STRICT, WITHOUT ROWID;",
    // Limits that only count what is over them. Those that there are stop it, as before.
    "ALTER TABLE limits ADD COLUMN mode TEXT NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'monitor'));
     ALTER TABLE open_limits ADD COLUMN mode TEXT NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'monitor'));
     ALTER TABLE unfinished_limits ADD COLUMN mode TEXT NOT NULL DEFAULT 'enforce'
         CHECK (mode IN ('enforce', 'monitor'));",
    // Feeds: lists of others that are read again and again. `every` and `keep` are milliseconds; an empty `key_file` is none; `tried`, `refreshed`
    // and `whole` are when it was read, when that worked, and when all of it was read; an empty `failure` is that the last reading worked.
    "CREATE TABLE feeds (
         name TEXT NOT NULL PRIMARY KEY,
         source TEXT NOT NULL,
         form TEXT NOT NULL,
         every INTEGER NOT NULL,
         keep INTEGER NOT NULL,
         key_file TEXT NOT NULL,
         author TEXT NOT NULL,
         created INTEGER NOT NULL,
         tried INTEGER,
         refreshed INTEGER,
         whole INTEGER,
         failure TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;",
    // Readings of a feed that began and came to no end, one after the other: each took its process with it.
    "ALTER TABLE feeds ADD COLUMN unfinished INTEGER NOT NULL DEFAULT 0;",
];

/// The first version without IPv4 that is written as IPv6.
const UNMAPPED: i64 = 10;

/// The schema version of today.
pub(super) fn newest() -> i64 {
    STEPS.len() as i64
}

/// Takes a store of version `from` to today's, whole or not at all.
pub(super) fn migrate(db: &mut Connection, from: i64) -> Result<()> {
    if from == newest() {
        return Ok(());
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &STEPS[usize::try_from(from)?..] {
        tx.execute_batch(step)?;
    }
    if from == 0 {
        limits::begin(&tx)?;
    } else if from < UNMAPPED {
        mapped::migrate(&tx)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", newest())?;
    Ok(tx.commit()?)
}

#[cfg(test)]
mod tests {
    use super::super::rows::StoreTables;
    use super::*;
    use crate::ban_rule;
    use crate::rule::RuleMode;

    #[test]
    fn a_new_store_has_limits() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, 0).unwrap();
        let kinds = "SELECT group_concat(kind || per_second) FROM (SELECT * FROM limits ORDER BY kind)";
        let kinds: String = db.query_row(kinds, [], |row| row.get(0)).unwrap();
        assert_eq!(kinds, "connections500,invite300,register500");
        let at_once: i64 = db.query_row("SELECT most FROM unfinished_limits", [], |row| row.get(0)).unwrap();
        assert_eq!(at_once, 256);
    }

    #[test]
    fn a_new_store_bans_as_is_usual() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, 0).unwrap();
        assert_eq!(StoreTables::new(&db).ban_rule().unwrap(), Some(ban_rule::DEFAULT));
    }

    #[test]
    fn an_older_store_becomes_one_of_today_with_its_rules() {
        for from in 1..STEPS.len() {
            let mut db = Connection::open_in_memory().unwrap();
            STEPS[..from].iter().for_each(|step| db.execute_batch(step).unwrap());
            let rule = "('host', '192.0.2.7', 'cli', 'block', 'enforce', 'why', 'me', 1, NULL, 1)";
            db.execute_batch(&format!("INSERT INTO rules VALUES {rule}; UPDATE state SET version = 7"))
                .unwrap();
            migrate(&mut db, from as i64).unwrap();
            let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(one("SELECT user_version FROM pragma_user_version"), newest(), "from {from}");
            assert_eq!(one("SELECT count(*) FROM rules WHERE reason = 'why'"), 1, "from {from}");
            assert_eq!(one("SELECT version FROM state"), 7, "from {from}");
            assert_eq!(one("SELECT count(*) FROM denials"), 0, "from {from}");
            assert_eq!(one("SELECT count(*) FROM limits"), 0, "from {from}: limits that nobody set");
            assert_eq!(one("SELECT count(*) FROM open_limits"), 0, "from {from}");
            assert_eq!(one("SELECT count(*) FROM balancers"), 0, "from {from}");
            assert_eq!(one("SELECT count(*) FROM unfinished_limits"), 0, "from {from}");
            assert_eq!(one("SELECT count(*) FROM checks"), 0, "from {from}");
            assert_eq!(one("SELECT count(*) FROM feeds"), 0, "from {from}");
            for kind in ["device", "identity", "user-agent"] {
                db.execute_batch(&format!("INSERT INTO rules VALUES {}", rule.replace("host", kind)))
                    .unwrap();
            }
        }
    }

    #[test]
    fn the_limits_of_an_older_store_stop_what_is_over_them() {
        let rows = [
            ("limits", "('', 'register', 20, 40, 'me', 1)"),
            ("open_limits", "('', 500, 'me', 1)"),
            ("unfinished_limits", "('carrier', 7, 'me', 1)"),
        ];
        let read = |db: &Connection| {
            let rows = StoreTables::new(db);
            (rows.limits().unwrap(), rows.at_once_limits().unwrap())
        };
        let mut most = 0;
        let modes = STEPS.iter().position(|step| step.contains("limits ADD COLUMN mode")).unwrap();
        for from in 1..=modes {
            let mut db = Connection::open_in_memory().unwrap();
            STEPS[..from].iter().for_each(|step| db.execute_batch(step).unwrap());
            let found = rows.iter().filter(|(table, _)| StoreTables::new(&db).has(table).unwrap());
            most = found.clone().count();
            found.for_each(|(table, row)| {
                db.execute(&format!("INSERT INTO {table} VALUES {row}"), []).map(drop).unwrap();
            });
            // Who only reads does not migrate.
            let before = read(&db);
            migrate(&mut db, from as i64).unwrap();
            let (rates, at_once) = read(&db);
            assert_eq!((rates.len() + at_once.len(), &(rates.clone(), at_once.clone())), (most, &before));
            let modes =
                rates.iter().map(|one| one.limit.mode).chain(at_once.iter().map(|one| one.limit.mode));
            assert!(modes.into_iter().all(|mode| mode == RuleMode::Enforce), "from {from}: {before:?}");
            for (table, _) in rows {
                let set = |mode| db.execute(&format!("UPDATE {table} SET mode = '{mode}'"), []);
                let changed = set("monitor").unwrap();
                assert!(changed == 0 || set("off").is_err(), "{table} from {from}");
            }
            let (rates, at_once) = read(&db);
            let modes =
                rates.iter().map(|one| one.limit.mode).chain(at_once.iter().map(|one| one.limit.mode));
            assert!(modes.into_iter().all(|mode| mode == RuleMode::Monitor), "from {from}");
        }
        assert_eq!(most, rows.len(), "the last one has all of the tables");
    }
}
