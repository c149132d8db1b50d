//! Keeping the file small.

use anyhow::Result;
use rusqlite::Connection;

use super::{KEPT_SECS, THIN_SECS};

/// Puts what is older than a day together in slots of five minutes, and forgets what is older than a week.
pub(super) fn thin(db: &Connection, now: i64) -> Result<()> {
    let kept = now - KEPT_SECS;
    for table in ["counts", "spans"] {
        db.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [kept])?;
    }
    // A plot of a day asks for slots of ten seconds, so a little more than a day keeps them.
    let day = (now - 86_400 - THIN_SECS).div_euclid(THIN_SECS) * THIN_SECS;
    // Slots that are put together already lie on whole five minutes: of such a group nothing is left to be done.
    let fine = format!("at < {day} AND at % {THIN_SECS} <> 0");
    let some: bool =
        db.query_row(&format!("SELECT EXISTS (SELECT 1 FROM spans WHERE {fine})"), [], |row| row.get(0))?;
    if !some {
        return Ok(());
    }
    let coarse = format!("at - at % {THIN_SECS}");
    db.execute_batch(&format!(
        "INSERT INTO counts SELECT {coarse}, series, sum(packets) FROM counts WHERE {fine} GROUP BY 1, 2 \
           ON CONFLICT (at, series) DO UPDATE SET packets = packets + excluded.packets; \
         INSERT INTO spans SELECT {coarse}, sum(watched_ms) FROM spans WHERE {fine} GROUP BY 1 \
           ON CONFLICT (at) DO UPDATE SET watched_ms = watched_ms + excluded.watched_ms; \
         DELETE FROM counts WHERE {fine}; DELETE FROM spans WHERE {fine}; \
         DELETE FROM series WHERE id NOT IN (SELECT series FROM counts);"
    ))?;
    Ok(())
}

/// Forgets the oldest tenth when the file is nearly as large as it may be.
pub(super) fn bound(db: &Connection, most_bytes: i64) -> Result<()> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let used = (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?;
    if used <= most_bytes / 10 * 9 {
        return Ok(());
    }
    let sql = "SELECT at FROM spans ORDER BY at LIMIT 1 OFFSET (SELECT count(*) / 10 + 1 FROM spans)";
    let end: i64 = db.query_row(sql, [], |row| row.get(0))?;
    for table in ["counts", "spans"] {
        db.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [end])?;
    }
    Ok(())
}
