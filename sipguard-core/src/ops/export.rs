//! `export`: rules as a list.

use anyhow::Result;

use super::Context;
use crate::clock::Clock;
use crate::store::RuleQuery;
pub use crate::store::RuleRow;

/// Rows that are handed on together: of a long list no more are held at once.
const CHUNK: usize = 1000;

/// A list that is about to be read.
#[derive(Debug)]
pub struct Export<'e> {
    host: &'e Context,
    origin: Option<&'e str>,
    /// How many rows there are.
    pub count: usize,
    /// The moment (milliseconds since 1970, UTC).
    pub now_ms: i64,
}

/// Begins a list of the rules of one origin or of all.
///
/// # Errors
/// When the store can't be read.
pub fn begin<'e>(host: &'e Context, origin: Option<&'e str>) -> Result<Export<'e>> {
    let now_ms = Clock::now()?.wall_ms();
    let wanted = RuleQuery { verb: None, origin, now_ms, ends_by_ms: None };
    let count = host.read(|rows| rows.count(&wanted))?.unwrap_or(0);
    Ok(Export { host, origin, count, now_ms })
}

impl Export<'_> {
    /// Hands the rules on, chunk by chunk, in the order of their targets; the rows of one target stay together.
    ///
    /// # Errors
    /// When the store can't be read, and what `take` fails with.
    pub fn each(self, take: &mut dyn FnMut(&[RuleRow]) -> Result<()>) -> Result<()> {
        let wanted = RuleQuery { verb: None, origin: self.origin, now_ms: self.now_ms, ends_by_ms: None };
        let mut chunk: Vec<RuleRow> = Vec::new();
        let mut hand_on = |chunk: &mut Vec<RuleRow>| {
            chunk.sort_by(|one, other| (one.target, &one.origin).cmp(&(other.target, &other.origin)));
            take(chunk)?;
            chunk.clear();
            anyhow::Ok(())
        };
        self.host.read(|rows| {
            rows.each(&wanted, usize::MAX, &mut |row| {
                if chunk.len() >= CHUNK && chunk.last().is_some_and(|last| last.target != row.target) {
                    hand_on(&mut chunk)?;
                }
                chunk.push(row);
                Ok(())
            })
        })?;
        hand_on(&mut chunk)
    }
}
