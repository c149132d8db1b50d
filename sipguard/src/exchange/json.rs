//! Our own form, with all that a rule has; and lists of addresses.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};

use super::{End, Entry, Mistake, parse_time, show_time};
use crate::store::{RuleMode, RuleRow, RuleVerb, parse_origin, parse_reason};

const ACCEPTED: &str = "accepted is a list of addresses, a list of objects with `source` and, if wanted, `rule`, `mode`, `reason`, `origin`, \
`author`, `created`, `ends`, or such a list as `rows` of an object";

#[derive(Deserialize)]
struct File<const WIDE: bool> {
    rows: Vec<Item<WIDE>>,
}

/// An entry; with `WIDE` also one of a prefix that holds much of the internet.
struct Item<const WIDE: bool>(Entry);

#[derive(Deserialize)]
struct Fields {
    #[serde(alias = "address", alias = "target", alias = "ip", alias = "cidr")]
    source: String,
    rule: Option<String>,
    mode: Option<String>,
    #[serde(alias = "comment")]
    reason: Option<String>,
    origin: Option<String>,
    author: Option<String>,
    created: Option<String>,
    ends: Option<String>,
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
        f.write_str("an address or an object with `source`")
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
    let mut entry = Entry::block(fields.source.parse()?);
    if let Some(rule) = fields.rule {
        entry.verb =
            RuleVerb::of(&rule).ok_or_else(|| format!("`{rule}` is no rule: write block or allow"))?;
    }
    if let Some(mode) = fields.mode {
        entry.mode =
            RuleMode::of(&mode).ok_or_else(|| format!("`{mode}` is no mode: write enforce or monitor"))?;
    }
    entry.reason = fields.reason.as_deref().map(parse_reason).transpose()?;
    entry.origin = fields.origin.as_deref().map(parse_origin).transpose()?;
    entry.author = fields.author;
    entry.created_ms = fields.created.as_deref().map(parse_time).transpose()?;
    entry.end = match fields.ends.as_deref() {
        None => End::Unsaid,
        Some(text) => End::At(parse_time(text)?),
    };
    Ok(entry)
}

pub fn read<const WIDE: bool>(text: &str) -> Result<Vec<Entry>, Mistake> {
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

/// Schema of the document.
pub const SCHEMA: &str = "sipguard.rules/1";

/// The JSON form of a rule.
#[must_use]
pub fn json_of(row: &RuleRow) -> Value {
    json!({
        "source": row.target.to_string(), "rule": row.verb.name(), "mode": row.mode.name(), "origin": row.origin,
        "author": row.author, "reason": row.reason, "created": show_time(row.created_ms),
        "ends": row.expires_ms.map(show_time),
    })
}
