//! How limits and switches of checks are read, and their schema.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use sipguard_common::Reason;
use sipguard_common::framer::{LIMITS, Limits, NamedLimit};

use super::value::{NumberReader, Text, Written};
use crate::check::{self, CheckState};

/// The key of the switches of devices.
const DEVICES: &str = "devices";

/// Single limits of the framer, and switches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    /// Limits: position in [`LIMITS`] and value.
    pub limits: Vec<(usize, u32)>,
    /// What becomes of faults, whoever sends them.
    pub switches: Switches,
    /// The same for devices.
    pub devices: Switches,
}

/// What becomes of the faults of single checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Switches(pub Vec<(Reason, CheckState)>);

impl<'de> Deserialize<'de> for Checks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Checks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of limits such as line-bytes = 8192, and of checks such as bad-number = \"monitor\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checks, A::Error> {
                let mut checks = Checks::default();
                while let Some(Text(key)) = map.next_key::<Text<CheckKey>>()? {
                    match key {
                        CheckKey::Limit(index) => {
                            let (low, high) = LIMITS[index].range;
                            checks.limits.push((index, map.next_value_seed(InRange(low, high))?));
                        }
                        CheckKey::Switch(reason) => {
                            checks.switches.0.push((reason, map.next_value_seed(StateOf(reason))?));
                        }
                        CheckKey::Devices => checks.devices = map.next_value()?,
                    }
                }
                Ok(checks)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl<'de> Deserialize<'de> for Switches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Switches;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of checks such as bad-number = \"monitor\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Switches, A::Error> {
                let mut switches = Switches::default();
                while let Some(Text(CheckName(reason))) = map.next_key()? {
                    switches.0.push((reason, map.next_value_seed(StateOf(reason))?));
                }
                Ok(switches)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

struct InRange(u32, u32);

impl<'de> DeserializeSeed<'de> for InRange {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_i64(NumberReader(self.0, self.1))
    }
}

/// Reads the state of a check, which not every one can have.
struct StateOf(Reason);

impl<'de> DeserializeSeed<'de> for StateOf {
    type Value = CheckState;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<CheckState, D::Error> {
        let Text(state) = Text::<CheckState>::deserialize(deserializer)?;
        check::is_possible(self.0, state).map_err(D::Error::custom)?;
        Ok(state)
    }
}

impl Written for CheckState {
    const FORM: &'static str = "\"refuse\", \"monitor\" or \"off\"";

    fn read(text: &str) -> Result<Self, String> {
        check::parse_state(text)
    }
}

/// A key of the table of checks.
enum CheckKey {
    /// Position in [`LIMITS`].
    Limit(usize),
    Switch(Reason),
    Devices,
}

impl Written for CheckKey {
    const FORM: &'static str = "the name of a limit or of a check";

    fn read(text: &str) -> Result<Self, String> {
        if text == DEVICES {
            return Ok(CheckKey::Devices);
        }
        if let Some(index) = LIMITS.iter().position(|limit| limit.name == text) {
            return Ok(CheckKey::Limit(index));
        }
        if let Ok(reason) = check::parse(text) {
            return Ok(CheckKey::Switch(reason));
        }
        let names: Vec<_> =
            LIMITS.iter().map(|limit| limit.name).chain(check::checks().map(Reason::name)).collect();
        Err(format!("no limit and no check `{text}`; there are {}", names.join(", ")))
    }
}

/// The name of a check.
struct CheckName(Reason);

impl Written for CheckName {
    const FORM: &'static str = "the name of a check";

    fn read(text: &str) -> Result<Self, String> {
        check::parse(text).map(CheckName)
    }
}

/// The keys of the table of checks, in the order in which they are shown.
pub(super) fn keys() -> Vec<&'static str> {
    let limits = LIMITS.iter().map(|limit| limit.name);
    limits.chain(check::checks().map(Reason::name)).chain([DEVICES]).collect()
}

impl JsonSchema for Checks {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Checks".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties: Map<String, Value> = LIMITS.iter().map(limit).collect();
        properties.extend(check::checks().map(switch));
        let mut devices = Switches::json_schema(generator);
        devices.insert("description".to_owned(), "The same for devices alone, which is whoever is no trunk; else they are held to what is said above. Such as { bad-number = \"off\" }.".into());
        properties.insert(DEVICES.to_owned(), devices.to_value());
        json_schema!({ "type": "object", "additionalProperties": false, "properties": properties })
    }
}

impl JsonSchema for Switches {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Switches".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = check::checks().map(Reason::name).collect();
        json_schema!({
            "type": "object",
            "propertyNames": { "enum": names },
            "additionalProperties": { "enum": CheckState::ALL.iter().map(|one| one.name()).collect::<Vec<_>>() },
            "default": {},
        })
    }
}

fn limit(limit: &NamedLimit) -> (String, Value) {
    let (default, strict) = (Limits::default(), Limits::strict());
    let (low, high) = limit.range;
    let (usual, other) = (limit.get(&default), limit.get(&strict));
    let strict = if usual == other { String::new() } else { format!("; {other} in the profile strict") };
    let mut text = limit.text.to_owned();
    text[..1].make_ascii_uppercase();
    let value = json!({
        "type": "integer", "minimum": low, "maximum": high, "default": usual, "description": format!("{text}{strict}."),
    });
    (limit.name.to_owned(), value)
}

/// The schema of the switch of a check, described by the first sentence about it.
fn switch(reason: Reason) -> (String, Value) {
    let states = CheckState::ALL.iter().filter(|state| check::is_possible(reason, **state).is_ok());
    let states: Vec<&str> = states.map(|state| state.name()).collect();
    let text = reason.text();
    let text = text.find(". ").map_or(text, |end| &text[..=end]);
    let off = if reason.loses_framing() { " It can't be off." } else { "" };
    let value = json!({ "enum": states, "default": "refuse", "description": format!("{text}{off}") });
    (reason.name().to_owned(), value)
}
