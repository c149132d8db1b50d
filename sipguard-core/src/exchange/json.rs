//! Our own form, with all that a rule has; and lists of addresses.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::{End, Entry, Mistake, parse_time};
use crate::rule::{RuleMode, RuleVerb};
use crate::store::{parse_origin, parse_reason};

const ACCEPTED: &str = "accepted is a list of addresses, a list of objects with `target` and, if wanted, `rule`, `mode`, `comment`, `origin`, \
`author`, `created_at`, `expires_at`, or such a list as `rows` of an object";

#[derive(Deserialize)]
struct File<const WIDE: bool> {
    rows: Vec<Item<WIDE>>,
}

/// An entry; with `WIDE` also one of a prefix that holds much of the internet.
struct Item<const WIDE: bool>(Entry);

/// What an object may say. The other names are those of `sipguard.rules/1`, and those of lists of others.
#[derive(Deserialize)]
struct Fields {
    #[serde(alias = "source", alias = "address", alias = "ip", alias = "cidr")]
    target: String,
    rule: Option<String>,
    mode: Option<String>,
    #[serde(alias = "reason")]
    comment: Option<String>,
    origin: Option<String>,
    author: Option<String>,
    #[serde(alias = "created")]
    created_at: Option<String>,
    #[serde(alias = "ends")]
    expires_at: Option<String>,
}

impl<'de, const WIDE: bool> Deserialize<'de> for Item<WIDE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfItem::<WIDE>)
    }
}

struct OfItem<const WIDE: bool>;

impl<'de, const WIDE: bool> Visitor<'de> for OfItem<WIDE> {
    type Value = Item<WIDE>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address or an object with `target`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Item<WIDE>, E> {
        let entry = text.parse().and_then(|target| Entry::block(target).narrow(WIDE));
        entry.map(Item).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item<WIDE>, A::Error> {
        let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
        entry(fields).and_then(|entry| entry.narrow(WIDE)).map(Item).map_err(A::Error::custom)
    }
}

fn entry(fields: Fields) -> Result<Entry, String> {
    let mut entry = Entry::block(fields.target.parse()?);
    if let Some(rule) = fields.rule {
        entry.verb =
            RuleVerb::of(&rule).ok_or_else(|| format!("`{rule}` is no rule: write block or allow"))?;
    }
    if let Some(mode) = fields.mode {
        entry.mode =
            RuleMode::of(&mode).ok_or_else(|| format!("`{mode}` is no mode: write enforce or monitor"))?;
    }
    entry.reason = fields.comment.as_deref().map(parse_reason).transpose()?;
    entry.origin = fields.origin.as_deref().map(parse_origin).transpose()?;
    entry.author = fields.author;
    entry.created_ms = fields.created_at.as_deref().map(parse_time).transpose()?;
    entry.end = match fields.expires_at.as_deref() {
        None => End::Unsaid,
        Some(text) => End::At(parse_time(text)?),
    };
    Ok(entry)
}

pub(super) fn read<const WIDE: bool>(text: &str) -> Result<Vec<Entry>, Mistake> {
    let items = if text.trim_start().starts_with('{') {
        serde_json::from_str::<File<WIDE>>(text).map(|file| file.rows)
    } else {
        serde_json::from_str::<Vec<Item<WIDE>>>(text)
    };
    let items = items.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        Mistake { line, column, text: format!("{text}; {ACCEPTED}") }
    })?;
    Ok(items.into_iter().map(|Item(entry)| entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::RuleView;

    #[test]
    fn what_older_versions_exported_is_read() {
        let old = r#"{"schema": "sipguard.rules/1", "rows": [{"source": "192.0.2.7", "rule": "allow", "mode": "enforce",
            "origin": "feed", "author": "ann", "reason": "office", "created": "2026-01-31T12:00:00.5Z",
            "ends": "2026-02-01T12:00:00Z"}]}"#;
        let new = r#"{"schema": "sipguard.rules/2", "rows": [{"target": "192.0.2.7", "rule": "allow", "mode": "enforce",
            "origin": "feed", "author": "ann", "comment": "office", "created_at": "2026-01-31T12:00:00.5Z",
            "expires_at": "2026-02-01T12:00:00Z"}]}"#;
        let entries = read::<false>(new).unwrap();
        assert_eq!(read::<false>(old).unwrap(), entries);
        assert_eq!(entries[0].reason.as_deref(), Some("office"));
        assert_eq!(entries[0].created_ms, Some(1_769_860_800_500));
        assert_eq!(entries[0].end, End::At(1_769_947_200_000));
    }

    #[test]
    fn what_is_exported_comes_back() {
        let row = crate::store::RuleRow {
            target: "192.0.2.0/24".parse().unwrap(),
            origin: "feed".to_owned(),
            verb: RuleVerb::Block,
            mode: RuleMode::Monitor,
            reason: "scans".to_owned(),
            author: "ann".to_owned(),
            created_ms: 1_769_860_800_123,
            expires_ms: Some(1_769_947_200_456),
            version: 7,
        };
        let text = serde_json::to_string(&[RuleView::exported(&row)]).unwrap();
        let entry = read::<false>(&text).unwrap().remove(0);
        assert_eq!((entry.target, entry.verb, entry.mode), (row.target, row.verb, row.mode));
        assert_eq!(
            (entry.origin, entry.author, entry.reason),
            (Some(row.origin), Some(row.author), Some(row.reason))
        );
        assert_eq!((entry.created_ms, entry.end), (Some(row.created_ms), End::At(1_769_947_200_456)));
    }
}
