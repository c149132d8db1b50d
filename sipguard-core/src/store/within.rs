//! What lies in a prefix, by the order of the table: it is in the order of texts, in which addresses of one network begin alike.

use anyhow::{Result, anyhow};
use rusqlite::params;

use super::rows::{PAGE, StoreTables};
use crate::address::Source;
use crate::target::Target;

impl StoreTables<'_> {
    /// Hands on the targets that lie in a prefix, itself and devices included.
    pub(super) fn each_within(&self, net: &Source, take: &mut dyn FnMut(Target) -> Result<()>) -> Result<()> {
        for (kind, from, to) in ranges(net) {
            let mut after = from;
            loop {
                let sql = "SELECT DISTINCT target FROM rules WHERE kind = ?1 AND target >= ?2 AND target < ?3 ORDER BY target LIMIT ?4";
                let mut statement = self.db().prepare_cached(sql)?;
                let found = statement
                    .query_map(params![kind, after, to, PAGE as i64], |row| row.get::<_, String>(0))?;
                let page = found.collect::<Result<Vec<_>, _>>()?;
                let Some(last) = page.last() else { break };
                // The next text in the order of bytes.
                after = format!("{last}\0");
                for text in &page {
                    let target = text
                        .parse::<Target>()
                        .map_err(|error| anyhow!("the store has a rule about: {error}"))?;
                    if target.source().is_some_and(|source| net.covers(&source)) {
                        take(target)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether there are more rows than that which may lie in a prefix.
    pub(super) fn are_more_within(&self, net: &Source, count: i64) -> Result<bool> {
        let mut left = count;
        for (kind, from, to) in ranges(net) {
            let sql = "SELECT count(*) FROM (SELECT 1 FROM rules WHERE kind = ?1 AND target >= ?2 AND target < ?3 LIMIT ?4)";
            left -=
                self.db().query_row(sql, params![kind, from, to, left + 1], |row| row.get::<_, i64>(0))?;
            if left < 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Kinds and texts between which the targets stand that lie in a prefix, besides others: the table is in the order of texts, in which addresses of one
/// network begin alike.
fn ranges(net: &Source) -> [(&'static str, String, String); 3] {
    let begin = beginning(net);
    let range = |kind, begin: String| {
        // Behind all texts that begin so: no text of a target has a byte above `~`.
        let end = format!("{begin}~");
        (kind, begin, end)
    };
    let device = if net.is_ipv4() { begin.clone() } else { format!("[{begin}") };
    [range("device", device), range("host", begin.clone()), range("prefix", begin)]
}

/// How the text of every address in a prefix begins: with its whole octets, or its whole groups up to the first that is zero, since `::` may begin
/// there (RFC 5952).
fn beginning(net: &Source) -> String {
    let bytes = net.bytes();
    let bits = net.bits() as usize;
    if net.is_ipv4() {
        return bytes[12..].iter().take((bits - 96) / 8).take(3).map(|octet| format!("{octet}.")).collect();
    }
    let groups = bytes.chunks(2).map(|group| u16::from_be_bytes([group[0], group[1]]));
    groups
        .take(bits / 16)
        .take(7)
        .take_while(|group| *group != 0)
        .map(|group| format!("{group:x}:"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::super::rows::key;
    use super::*;

    proptest! {
        #[test]
        fn all_that_lies_in_a_prefix_stands_in_its_ranges(
            v4 in any::<bool>(), words in any::<[u16; 8]>(), mask in any::<u8>(), bits in 0u32..=128, longer in 0u32..=128, port in 1u16..
        ) {
            // Zero groups are what makes texts short.
            let words: Vec<u16> = (0..8).map(|at| if mask >> at & 1 == 0 { 0 } else { words[at] }).collect();
            let words: [u16; 8] = words.try_into().unwrap();
            let address = if v4 { [0, 0, 0, 0, 0, 0xffff, words[6], words[7]] } else { words };
            let bytes = Ipv6Addr::from(address).octets();
            let least = if Source::from_map(bytes, 128).is_some_and(|host| host.is_ipv4()) { 96 } else { 0 };
            let net = Source::network(bytes, bits.max(least)).unwrap();
            let inner = Source::network(bytes, longer.max(net.bits())).unwrap();
            let host = Source::network(bytes, 128).unwrap();
            let device = if host.is_ipv4() { format!("{host}:{port}") } else { format!("[{host}]:{port}") };
            for target in [inner.into(), host.into(), device.parse::<Target>().unwrap()] {
                let (kind, text) = key(&target);
                let stands = ranges(&net).iter().any(|(of, from, to)| *of == kind && *from <= text && text < *to);
                prop_assert!(stands, "{target} in {net}: {:?}", ranges(&net));
                prop_assert!(target.source().is_some_and(|source| net.covers(&source)));
            }
        }
    }
}
