//! What is in effect: the settings of the files and the defaults of the others.

use std::fmt;

use serde_json::Value;
use sipguard_common::framer::LIMITS;

use super::example::{schema, tables, toml, trunk_of};
use super::order::order;
use super::source::{Location, Sources};
use super::tables::{RatesTable, TrunkTable};
use super::tree::{Locations, path};
use crate::settings::Profile;

/// Instead of a secret.
const HIDDEN: &str = "(hidden)";

/// A setting that is in effect when nothing but the files speaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Its table.
    pub table: String,
    /// Its key there.
    pub key: String,
    /// Its value; of a secret, that there is one.
    pub value: Value,
    /// Where it is said; `None` for a default.
    pub location: Option<Location>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { key, value, location, .. } = self;
        let from = location.as_ref().map_or("default".to_owned(), |location| {
            format!("{}:{}", location.path.display(), location.line)
        });
        write!(f, "{key} = {}  # {from}", toml(value))
    }
}

/// Every setting, with its value in the files or its default. Trunks are shown as they are said.
#[must_use]
pub(super) fn show(sources: &Sources, values: &Value, locations: &Locations) -> Vec<Shown> {
    let schema = schema();
    let mut all = Vec::new();
    let profile = if values["guard"]["profile"] == "strict" { Profile::Strict } else { Profile::Default };
    let mut push = |table: &str, key: &str, value: Option<&Value>, default: Option<Value>| {
        let location = value.map(|_| sources.location(locations.position(&path(table, key))));
        let is_secret = schema["properties"][table]["properties"][key]["writeOnly"] == true;
        let value = value.map(|value| if is_secret && *value != "" { HIDDEN.into() } else { value.clone() });
        if let Some(value) = value.or(default) {
            all.push(Shown { table: table.to_owned(), key: key.to_owned(), value, location });
        }
    };
    for (table, keys) in tables() {
        for key in keys {
            let limit = LIMITS.iter().find(|limit| table == "checks" && limit.name == key);
            let default = limit
                .map(|limit| Value::from(limit.get(&profile.limits())))
                .or_else(|| schema["properties"][table]["properties"][key].get("default").cloned());
            push(table, key, values[table].get(key), default);
        }
    }
    for (name, trunk) in values["trunks"].as_object().into_iter().flatten() {
        let table = path("trunks", name);
        let properties = &trunk_of(&schema["properties"]["trunks"])["properties"];
        for key in order::<TrunkTable>().into_iter().filter(|key| *key != "limits") {
            push(&table, key, trunk.get(key), properties[key].get("default").cloned());
        }
        let table = format!("{table}.limits");
        for key in order::<RatesTable>() {
            push(&table, key, trunk["limits"].get(key), None);
        }
    }
    all
}
