//! What `ipset save` writes: `add NAME 192.0.2.0/24 timeout 3600 comment "why"`. `nomatch` is an allowance.

use std::fmt::Write as _;

use super::{End, Entry, Mistake, words};
use crate::address::Source;
use crate::rule::{RuleMode, RuleVerb};
use crate::store::{RuleRow, parse_reason};
use crate::target::Target;

/// The longest timeout that ipset takes, in seconds.
const LONGEST: i64 = 2_147_483;

pub(super) fn read(text: &str, wide: bool) -> Result<Vec<Entry>, Mistake> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |(column, text): (usize, String)| Mistake { line: number + 1, column, text };
        let mut words = words(line);
        match words.next() {
            None => {}
            Some((_, "create" | "flush")) => {}
            Some((_, word)) if word.starts_with('#') => {}
            Some((column, "add" | "-A")) => {
                let (at, entry) = entry(column, words, line).map_err(wrong)?;
                entries.push(entry.narrow(wide).map_err(|text| wrong((at, text)))?);
            }
            Some((column, word)) => {
                return Err(wrong((
                    column,
                    format!("`{word}` is not understood: a line is `create ...` or `add NAME ADDR|CIDR`"),
                )));
            }
        }
    }
    Ok(entries)
}

fn entry<'l>(
    start: usize,
    mut words: impl Iterator<Item = (usize, &'l str)>,
    line: &str,
) -> Result<(usize, Entry), (usize, String)> {
    let _set = words.next();
    let (place, target) =
        words.next().ok_or((start, "the address is missing: write `add NAME ADDR|CIDR`".to_owned()))?;
    if target.contains([',', '-']) {
        return Err((
            place,
            format!(
                "`{target}` is no address or prefix alone: only sets of the types hash:ip and hash:net are taken"
            ),
        ));
    }
    let mut entry = Entry::block(target.parse::<Source>().map_err(|text| (place, text))?.into());
    while let Some((at, word)) = words.next() {
        match word {
            "nomatch" => entry.verb = RuleVerb::Allow,
            "timeout" => {
                let (at, seconds) = words.next().unwrap_or((at, ""));
                let seconds = seconds.parse().map_err(|_| (at, "timeout wants whole seconds".to_owned()))?;
                entry.end = if seconds == 0 { End::Never } else { End::After(seconds) };
            }
            "comment" => {
                // The comment is all between the first and the last quotation mark: ipset allows none within.
                let quoted = line.find('"').zip(line.rfind('"')).filter(|(first, last)| first < last);
                let (first, last) =
                    quoted.ok_or((at, "comment wants \"text\" in quotation marks".to_owned()))?;
                entry.reason = Some(parse_reason(&line[first + 1..last]).map_err(|text| (at, text))?);
                return Ok((place, entry));
            }
            "packets" | "bytes" | "skbmark" | "skbprio" | "skbqueue" => drop(words.next()),
            _ => return Err((at, format!("`{word}` is not understood: timeout, comment and nomatch are"))),
        }
    }
    Ok((place, entry))
}

/// One set a family, with room for `count` rules and as many more.
pub(super) fn head(count: usize) -> String {
    let room = (count * 2).next_power_of_two().max(65_536);
    let mut text = String::new();
    for (set, family) in [("sipguard4", "inet"), ("sipguard6", "inet6")] {
        let _infallible =
            writeln!(text, "create {set} hash:net family {family} maxelem {room} timeout 0 comment");
    }
    text
}

/// Blocks that stop, and allowances as `nomatch`.
pub(super) fn lines(rows: &[RuleRow], now_ms: i64) -> String {
    let name = |target: &Source| if target.is_ipv4() { "sipguard4" } else { "sipguard6" };
    let mut text = String::new();
    let mut last: Option<Source> = None;
    for row in rows.iter().filter(|row| row.verb == RuleVerb::Allow || row.mode == RuleMode::Enforce) {
        // A set of networks has no place for a port.
        let Target::Source(target) = row.target else { continue };
        if last.replace(target) == Some(target) {
            continue;
        }
        let _infallible = write!(text, "add {} {}", name(&target), target);
        if let Some(end) = row.expires_ms {
            let _infallible = write!(text, " timeout {}", ((end - now_ms + 999) / 1000).clamp(1, LONGEST));
        }
        if row.verb == RuleVerb::Allow {
            text += " nomatch";
        }
        if !row.reason.is_empty() {
            let _infallible = write!(text, " comment \"{}\"", row.reason.replace('"', "'"));
        }
        text += "\n";
    }
    text
}
