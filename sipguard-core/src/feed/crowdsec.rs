//! The stream of decisions of a CrowdSec LAPI (`/v1/decisions/stream`).

use std::borrow::Cow;

use serde::Deserialize;

use super::plan::DesiredBlock;
use crate::address::Source;

/// The last moment that can be shown.
const LAST_MS: i64 = 1000 * 253_402_207_200;

/// What the stream says.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// Bans of addresses and prefixes, with their ends in milliseconds of the wall time.
    pub new: Vec<DesiredBlock>,
    /// Whose ban is over.
    pub gone: Vec<Source>,
    /// How many decisions can't be blocks: of other scopes (countries, AS numbers, users) or remedies (captchas), or prefixes that hold much of
    /// the internet.
    pub passed_over: usize,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    new: Option<Vec<Decision<'a>>>,
    #[serde(borrow)]
    deleted: Option<Vec<Decision<'a>>>,
}

/// Of a hundred thousand nothing is copied.
#[derive(Deserialize)]
struct Decision<'a> {
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(borrow)]
    scope: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    remedy: Cow<'a, str>,
    #[serde(borrow)]
    duration: Cow<'a, str>,
}

impl Decision<'_> {
    fn source(&self) -> Option<Source> {
        let is_source = ["ip", "range"].iter().any(|scope| self.scope.eq_ignore_ascii_case(scope));
        let is_ban = self.remedy.eq_ignore_ascii_case("ban");
        // A range may be written with bits behind its length.
        let source = if is_source && is_ban { network(&self.value) } else { None };
        source.filter(|source| !source.is_wide())
    }
}

fn network(text: &str) -> Option<Source> {
    text.parse().ok().or_else(|| {
        let (address, bits) = text.split_once('/')?;
        let host: Source = address.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        Source::network(host.bytes(), if host.is_ipv4() { bits.checked_add(96)? } else { bits })
    })
}

/// Reads an answer at a wall time in milliseconds.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(text: &str, now_ms: i64) -> Result<Decisions, String> {
    let answer: Answer<'_> = serde_json::from_str(text)
        .map_err(|error| format!("this is no stream of decisions, with `new` and `deleted`: {error}"))?;
    let mut decisions = Decisions::default();
    for decision in answer.deleted.unwrap_or_default() {
        decisions.gone.extend(decision.source());
    }
    for decision in answer.new.unwrap_or_default() {
        let Some(source) = decision.source() else {
            decisions.passed_over += 1;
            continue;
        };
        let lasts_ms = duration_ms(&decision.duration)
            .ok_or_else(|| format!("`{}` is no duration of Go", decision.duration.escape_default()))?;
        if lasts_ms > 0 {
            // What ends beyond all calendars ends with them.
            let end_ms = now_ms.saturating_add(lasts_ms).min(LAST_MS);
            decisions.new.push(DesiredBlock { source, end_ms: Some(end_ms) });
        }
    }
    // Of several decisions about one address the one that ends last holds.
    decisions.new.sort_unstable_by_key(|block| (block.source, std::cmp::Reverse(block.end_ms)));
    decisions.new.dedup_by_key(|block| block.source);
    Ok(decisions)
}

/// Milliseconds of what Go writes, such as `3h59m49.264032632s` or `-1m2s`.
fn duration_ms(text: &str) -> Option<i64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let value: f64 = rest[..number].parse().ok()?;
        let unit = rest[number..]
            .find(|character: char| character.is_ascii_digit())
            .map_or(rest.len(), |end| number + end);
        let ms = match &rest[number..unit] {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            "µs" | "us" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        sum += value * ms;
        rest = &rest[unit..];
    }
    (!text.is_empty() && sum < 1e15).then_some((sign * sum) as i64)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, ms) in [
            ("3h59m49.5s", Some(14_389_500)),
            ("-1m2s", Some(-62_000)),
            ("250ms", Some(250)),
            ("167h59m59.999999999s", Some(604_799_999)),
            ("12µs", Some(0)),
            ("1d", None),
            ("", None),
            ("h", None),
        ] {
            assert_eq!(duration_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn decisions_become_blocks() {
        let text = r#"{"deleted":[{"duration":"-5s","id":1,"origin":"cscli","scenario":"x","scope":"Ip","type":"ban","value":"198.51.100.9"}],
            "new":[{"duration":"4h","scope":"Ip","type":"ban","value":"203.0.113.7","origin":"CAPI","scenario":"x"},
                   {"duration":"8h","scope":"ip","type":"ban","value":"203.0.113.7","origin":"cscli","scenario":"x"},
                   {"duration":"4h","scope":"Range","type":"ban","value":"203.0.113.9/24","origin":"CAPI","scenario":"x"},
                   {"duration":"4h","scope":"Range","type":"ban","value":"0.0.0.0/0","origin":"CAPI","scenario":"x"},
                   {"duration":"4h","scope":"Ip","type":"captcha","value":"203.0.113.8","origin":"CAPI","scenario":"x"},
                   {"duration":"4h","scope":"Country","type":"ban","value":"XX","origin":"CAPI","scenario":"x"}]}"#;
        let decisions = read(text, 1000).unwrap();
        let new: Vec<_> =
            decisions.new.iter().map(|block| (block.source.to_string(), block.end_ms)).collect();
        let (four, eight) = (Some(14_401_000), Some(28_801_000));
        assert_eq!(new, [("203.0.113.0/24".to_owned(), four), ("203.0.113.7".to_owned(), eight)]);
        assert_eq!((decisions.gone.len(), decisions.passed_over), (1, 3));
        assert!(read(r#"{"new":null,"deleted":null}"#, 0).unwrap().new.is_empty());
    }

    #[test]
    fn a_width_that_is_none_is_passed_over() {
        for width in ["33", "129", "4294967295", "4294967200", "4294967296", "-1", "", "x"] {
            for address in ["203.0.113.0", "2001:db8::"] {
                let text = format!(
                    r#"{{"new":[{{"duration":"4h","scope":"Range","type":"ban","value":"{address}/{width}"}}],"deleted":null}}"#
                );
                let decisions = read(&text, 0).unwrap();
                let is_none = width != "33" || address == "203.0.113.0";
                assert_eq!(
                    (decisions.new.len(), decisions.passed_over),
                    if is_none { (0, 1) } else { (1, 0) },
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn an_end_beyond_all_calendars_is_their_last_moment() {
        for (duration, end_ms) in
            [("4h", Some(14_400_000)), ("90000000h", Some(LAST_MS)), ("277777777h", Some(LAST_MS))]
        {
            let text = format!(
                r#"{{"new":[{{"duration":"{duration}","scope":"Ip","type":"ban","value":"203.0.113.7"}}],"deleted":null}}"#
            );
            let read = read(&text, 0).unwrap();
            assert_eq!(read.new[0].end_ms, end_ms, "{duration}");
            // To the second, as it is shown.
            assert!(Timestamp::from_second((LAST_MS + 500).div_euclid(1000)).is_ok(), "it has no text");
        }
        assert!(read("<html>", 0).is_err());
    }
}
