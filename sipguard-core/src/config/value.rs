//! How values of the configuration file are read: text by the functions of the command line, and numbers. Each has its schema.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::rate::{self, AtOnceMost, MOST_AT_ONCE};
use crate::rule::RuleMode;

/// A value that is written as text.
pub(super) trait Written: Sized {
    /// What it is, for `expected ...`.
    const FORM: &'static str;

    /// Reads it.
    fn read(text: &str) -> Result<Self, String>;

    /// What the schema says beside that it is text.
    fn schema() -> Value {
        json!({})
    }
}

/// A value that is written as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<T>(pub T);

impl<'de, T: Written> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: Written> Visitor<'_> for Reader<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::FORM)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
                T::read(text).map(Text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Reader(PhantomData))
    }
}

impl<T: Written> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::FORM.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string" });
        if let Value::Object(more) = T::schema() {
            more.into_iter().for_each(|(key, value)| drop(schema.insert(key, value)));
        }
        schema
    }
}

/// A whole number from `LOW` to `HIGH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number<const LOW: u32, const HIGH: u32>(pub u32);

fn within<E: Error>(number: i64, low: u32, high: u32) -> Result<u32, E> {
    let found = u32::try_from(number).ok().filter(|number| (low..=high).contains(number));
    let expected = format!("a number from {low} to {high}");
    found.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &expected.as_str()))
}

/// Reads a number of a range, both ends included.
pub(super) struct NumberReader(pub u32, pub u32);

impl Visitor<'_> for NumberReader {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {} to {}", self.0, self.1)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        within(number, self.0, self.1)
    }
}

impl<'de, const LOW: u32, const HIGH: u32> Deserialize<'de> for Number<LOW, HIGH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(NumberReader(LOW, HIGH)).map(Number)
    }
}

impl<const LOW: u32, const HIGH: u32> JsonSchema for Number<LOW, HIGH> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("number from {LOW} to {HIGH}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": LOW, "maximum": HIGH })
    }
}

/// So many at once, which may be written as text with `monitor` behind it, or `none` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Most(pub Option<AtOnceMost>);

impl<'de> Deserialize<'de> for Most {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Most;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "a number from 1 to {MOST_AT_ONCE}, such a number and monitor as in \"500 monitor\", or \"none\""
                )
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Most, E> {
                let most = within(number, 1, MOST_AT_ONCE)?;
                Ok(Most(Some(AtOnceMost { most, mode: RuleMode::Enforce })))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Most, E> {
                if text == "none" {
                    return Ok(Most(None));
                }
                // A limit that stops is a number.
                let monitored = match rate::split_mode(text) {
                    (count, RuleMode::Monitor) => rate::parse_at_once(count, RuleMode::Monitor),
                    (_, RuleMode::Enforce) => None,
                };
                monitored
                    .map(|most| Most(Some(most)))
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Most {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "number or none".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"], "minimum": 1, "maximum": MOST_AT_ONCE, "pattern": "^(none|[0-9]+ monitor)$"
        })
    }
}
