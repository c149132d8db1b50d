//! Schema and example, made of `tables.rs`.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use super::check_values;
use super::order::order;
use super::tables::{
    BansTable, Block, Cores, CrashTable, Deny, GuardTable, RatesTable, Serve, Tables, TrunkTable,
};

/// Name of the trunk of the example.
const CARRIER: &str = "carrier";
/// Tables that are commented out: they name what is not everywhere, and do nothing without it.
const OFF: [&str; 2] = ["crash", "cores"];
/// Longest line of a comment.
const WIDTH: usize = 120;

/// JSON schema of the configuration file.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Tables>();
    // TOML has no null.
    RecursiveTransform(without_null).transform(&mut schema);
    schema.to_value()
}

fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|one| !one.is_null());
    }
    if let Some(Value::Array(ways)) = schema.get_mut("anyOf") {
        ways.retain(|one| one["type"] != "null");
        if let [Value::Object(one)] = ways.as_slice() {
            let one = one.clone();
            schema.remove("anyOf");
            for (key, value) in one {
                if schema.get(&key).is_none() {
                    schema.insert(key, value);
                }
            }
        }
    }
}

/// The example: every setting with its description, at its default, or where there is none with a value as it may be.
#[must_use]
pub fn example() -> String {
    let schema = schema();
    let mut text = comment(schema["description"].as_str().unwrap_or_default());
    for (table, keys) in tables() {
        let of_table = &schema["properties"][table];
        let lines = format!("[{table}]\n{}", entries(&of_table["properties"], &keys));
        text += &format!("\n{}", comment(of_table["description"].as_str().unwrap_or_default()));
        text += &if OFF.contains(&table) { out(&lines) } else { lines };
    }
    text + &trunk(&schema["properties"]["trunks"])
}

/// A trunk, commented out: it is nobody's.
fn trunk(trunks: &Value) -> String {
    let text = trunks["description"].as_str().unwrap_or_default();
    let properties = &trunk_of(trunks)["properties"];
    let mut keys = order::<TrunkTable>();
    keys.retain(|key| *key != "limits");
    let limits = &properties["limits"];
    let about = limits["description"].as_str().unwrap_or_default();
    let lines = format!(
        "[trunks.{CARRIER}]\n{}\n{}[trunks.{CARRIER}.limits]\n{}",
        entries(properties, &keys),
        comment(about),
        entries(&limits["properties"], &order::<RatesTable>())
    );
    format!("\n{}{}", comment(text), out(&lines))
}

/// Commented out.
fn out(lines: &str) -> String {
    let one = |line: &str| match line {
        "" => "\n".to_owned(),
        line if line.starts_with('#') => format!("{line}\n"),
        line => format!("#{line}\n"),
    };
    lines.lines().map(one).collect()
}

/// The schema of a trunk, whatever its name.
pub(super) fn trunk_of(trunks: &Value) -> &Value {
    &trunks["additionalProperties"]
}

/// docs/reference/configuration.md.
#[must_use]
pub fn markdown() -> String {
    format!(
        "# The configuration file\n\nGenerated from the schema (`sipguard config schema`) by\n\
         `SIPGUARD_WRITE_DOCS=1 cargo test -p sipguard-tests --test host config`.\n\
         `sipguard config example` prints the file below. [How to use it](../guide/configuration.md).\n\n```toml\n{}```\n",
        example()
    )
}

/// Every table but the trunks, with its keys, in the order in which they are shown.
pub(super) fn tables() -> Vec<(&'static str, Vec<&'static str>)> {
    let of = |table| match table {
        "guard" => order::<GuardTable>(),
        "checks" => check_values::keys(),
        "limits" => order::<RatesTable>(),
        "bans" => order::<BansTable>(),
        "block" => order::<Block>(),
        "deny" => order::<Deny>(),
        "serve" => order::<Serve>(),
        "crash" => order::<CrashTable>(),
        "cores" => order::<Cores>(),
        _ => Vec::new(),
    };
    order::<Tables>().into_iter().filter(|table| *table != "trunks").map(|table| (table, of(table))).collect()
}

fn entries(properties: &Value, keys: &[&str]) -> String {
    let entry = |key: &&str| {
        let property = &properties[*key];
        let mut text = comment(property["description"].as_str().unwrap_or_default());
        text += &choices(property);
        let value = property["examples"].get(0).unwrap_or(&property["default"]);
        text + &format!("{key} = {}\n", toml(value))
    };
    keys.iter().map(entry).collect::<Vec<_>>().join("\n")
}

/// What the values of a setting mean, where it has a few, or between which numbers it lies.
fn choices(property: &Value) -> String {
    let one = |way: &Value| {
        Some(comment(&format!("{}: {}.", way["const"].as_str()?, way["description"].as_str()?)))
    };
    if let Some(ways) = property["oneOf"].as_array() {
        return ways.iter().filter_map(one).collect();
    }
    match (&property["minimum"], &property["maximum"]) {
        (Value::Number(low), Value::Number(high)) => comment(&format!("{low} to {high}.")),
        _ => String::new(),
    }
}

/// A value as TOML has it: that of JSON, but for the blanks.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::Array(all) => format!("[{}]", all.iter().map(toml).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + 1 + word.len() > WIDTH) {
            lines.push("#".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            *line += &format!(" {word}");
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Every key of the schema, and with `.` between every key of the tables in it; the trunk is called as in the example.
#[cfg(test)]
fn keys(schema: &Value, table: &str) -> Vec<String> {
    use super::tree::path;

    let mut all = Vec::new();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = path(table, key);
        let inner = if key == "trunks" { trunk_of(property) } else { property };
        let place = if key == "trunks" { format!("{path}.{CARRIER}") } else { path.clone() };
        if inner["properties"].is_object() { all.extend(keys(inner, &place)) } else { all.push(path) }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ban_rule::BanRule;
    use crate::config::{ConfigSource, Sources, parse, tree};
    use crate::service::{CoreSettings, CrashSettings, Options};
    use crate::settings::EffectiveSettings;

    const OFF: BanRule = BanRule {
        after: 0,
        address_after: 1,
        within: Duration::ZERO,
        first: Duration::ZERO,
        longest: Duration::ZERO,
        quiet: Duration::ZERO,
    };

    /// The example, and its trunk as well.
    fn with_trunk() -> String {
        let line = |line: &str| {
            let rest = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
            format!("{}\n", rest.unwrap_or(line))
        };
        example().lines().map(line).collect()
    }

    fn sources(text: String) -> Sources {
        Sources(vec![ConfigSource { path: "example.toml".into(), text }])
    }

    #[test]
    fn the_example_is_valid_and_says_what_holds_by_default() {
        for text in [example(), with_trunk()] {
            let (config, warnings, _) = parse(&sources(text.clone())).unwrap();
            assert_eq!(warnings, [], "{text}");
            assert_eq!(config.settings.of(&EffectiveSettings::default()), EffectiveSettings::default());
            assert_eq!(config.flows, Some(crate::settings::DEFAULT_FLOWS));
            assert_eq!(config.grace, Some(crate::settings::DEFAULT_GRACE));
            assert_eq!(config.bans.of(&OFF), crate::ban_rule::DEFAULT);
            assert_eq!(config.xdp, Some(crate::settings::XdpChoice::default()));
            let is_whole = text.contains("\n[trunks.carrier]");
            assert_eq!(config.trunks.len(), usize::from(is_whole));
            let options = config.serve.options(None, None, None, String::new());
            assert_eq!(
                (options.crash.watched.is_any(), options.cores.directory.is_some()),
                (is_whole, is_whole)
            );
            let named = Options::default();
            let crash = CrashSettings { watched: options.crash.watched.clone(), ..named.crash };
            let CoreSettings { directory, move_to, .. } = options.cores.clone();
            let cores = CoreSettings { directory, move_to, ..named.cores };
            assert_eq!(options, Options { crash, cores, ..named });
        }
    }

    #[test]
    fn the_example_names_every_key_of_the_schema_and_each_is_described() {
        let read = tree::read(&sources(with_trunk()));
        let keys = keys(&schema(), "");
        assert!(keys.len() > 30, "{keys:?}");
        for key in &keys {
            assert!(read.locations.is_set(key), "{key} is not in the example");
        }
        for line in example().lines() {
            assert!(line != "#" && line.len() <= WIDTH && !line.contains("null"), "{line}");
        }
    }

    #[test]
    fn the_limits_are_those_that_there_are() {
        assert_eq!(
            order::<RatesTable>(),
            [&sipguard_common::abi::RATE_KINDS[..], &["open", "unfinished"]].concat()
        );
    }
}
