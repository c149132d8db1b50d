//! From texts to tables: every file is parsed, their keys are put together, and what is wrong with keys and values is found, all of it.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer};

use super::source::{Problem, Sources};
use super::tables::Tables;

/// Where each key and each element of an array is said, by its path, such as `guard.ports` or `trunks.carrier.peers[1]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Locations(BTreeMap<String, Range<usize>>);

impl Locations {
    /// The position of a path, or else of the nearest one that it lies in.
    #[must_use]
    pub(super) fn position(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(span) = self.0.get(path) {
                return span.start;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return 0,
            }
        }
    }

    /// Whether the path is said.
    #[must_use]
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The path at a position; where several are, the longest.
    fn path(&self, position: usize) -> String {
        let around = self.0.iter().filter(|(_, span)| span.contains(&position));
        let path = around.map(|(path, _)| path).max_by_key(|path| path.len());
        path.map(|path| path.trim_end_matches('=').to_owned()).unwrap_or_default()
    }
}

/// The path of a key in a table. A name with dots is quoted, as in the file.
#[must_use]
pub(super) fn path(table: &str, key: &str) -> String {
    let key = if key.contains('.') { format!("\"{key}\"") } else { key.to_owned() };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The tables; what is wrong is left out.
    pub tables: Tables,
    /// The values as they were written.
    pub values: serde_json::Value,
    /// Where everything is said.
    pub locations: Locations,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads all files.
#[must_use]
pub(super) fn read(sources: &Sources) -> Read {
    let mut read = Read::default();
    let mut all = DeTable::default();
    let mut found = Vec::new();
    let mut is_whole = true;
    // A text is parsed behind as many blanks as come before it, so that a position says which file it is of.
    let padded: Vec<String> =
        sources.each().map(|(start, source)| format!("{:start$}{}", "", source.text)).collect();
    for text in &padded {
        let (table, errors) = DeTable::parse_recoverable(text);
        is_whole &= errors.is_empty();
        found.extend(errors.iter().map(|error| (position(error.span()), error.message().to_owned())));
        merge(&mut all, table.into_inner(), sources, &mut found);
    }
    note(&mut read.locations, "", &all);
    read.values = serde_json::Value::deserialize(deserializer(&all)).unwrap_or_default();
    // What is wrong is taken away, so that all of it is found.
    read.tables = loop {
        match Tables::deserialize(deserializer(&all)) {
            Ok(tables) => break tables,
            // What could be guessed of a broken file is not judged.
            Err(_) if !is_whole => break Tables::default(),
            Err(error) => {
                let at = position(error.span());
                found.push((at, error.message().to_owned()));
                if !prune(&mut all, at) {
                    break Tables::default();
                }
            }
        }
    };
    found.sort();
    let problem = |(at, text): (usize, String)| Problem {
        location: sources.location(at),
        key: read.locations.path(at),
        text: text.replace('\n', ", ").replace("a sequence", "a list in [ ]").replace("a map", "a table"),
    };
    read.problems = found.into_iter().map(problem).collect();
    read
}

fn deserializer<'i>(table: &DeTable<'i>) -> Deserializer<'i> {
    Deserializer::from(Spanned::new(0..0, table.clone()))
}

fn position(span: Option<Range<usize>>) -> usize {
    span.map_or(0, |span| span.start)
}

/// Puts the keys of a file to those of the files before it. A key of a table, and a trunk, is said once.
fn merge<'i>(all: &mut DeTable<'i>, more: DeTable<'i>, sources: &Sources, found: &mut Vec<(usize, String)>) {
    let mut twice = |key: &Spanned<DeString<'_>>, old: &Spanned<DeString<'_>>| {
        let location = sources.location(old.span().start);
        let text = format!("`{}` is said at {location} already: say it once", key.get_ref());
        found.push((key.span().start, text));
    };
    for (key, value) in more {
        let Some((first, old)) = all.get_key_value(&key).map(|(key, _)| key.clone()).zip(all.get_mut(&key))
        else {
            all.insert(key, value);
            continue;
        };
        match (old.get_mut(), value.into_inner()) {
            (DeValue::Table(old), DeValue::Table(more)) => {
                for (key, value) in more {
                    match old.get_key_value(&key) {
                        Some((first, _)) => twice(&key, first),
                        None => drop(old.insert(key, value)),
                    }
                }
            }
            _ => twice(&key, &first),
        }
    }
}

fn note(locations: &mut Locations, table: &str, entries: &DeTable<'_>) {
    for (key, value) in entries {
        let path = path(table, key.get_ref());
        note_value(locations, &path, value);
        locations.0.insert(path, key.span());
    }
}

fn note_value(locations: &mut Locations, path: &str, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(entries) => note(locations, path, entries),
        DeValue::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                let path = format!("{path}[{at}]");
                note_value(locations, &path, element);
                locations.0.insert(path, element.span());
            }
        }
        _ => {}
    }
    // The value is a place of its key as well, and is told by another path.
    locations.0.insert(format!("{path}="), value.span());
}

/// Takes the key away that is at a position, or whose value is. Whether there was one.
fn prune(table: &mut DeTable<'_>, at: usize) -> bool {
    for (_, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && prune(inner, at)
        {
            return true;
        }
    }
    let here = |span: Range<usize>| span.contains(&at);
    let found = table.iter().find(|(key, value)| here(key.span()) || here(value.span()));
    match found.map(|(key, _)| key.clone()) {
        Some(key) => table.remove(&key).is_some(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigSource;

    fn problems(texts: &[(&str, &str)]) -> Vec<String> {
        let source =
            |(path, text): &(&str, &str)| ConfigSource { path: path.into(), text: (*text).to_owned() };
        let read = read(&Sources(texts.iter().map(source).collect()));
        read.problems.iter().map(|problem| format!("{} {}", problem.location, problem.key)).collect()
    }

    #[test]
    fn every_mistake_of_every_file_is_found_at_its_place() {
        let one = ("a", "[guard]\nmode = 1\nflows = [7]\n\n[trunks.x]\nfoo = 1\n");
        let two = ("b", "é = 1\n[trunks.y]\n  profile = 'é'\n[limits]\npackets = ''");
        // A key without quotes is ASCII. Of a broken file only that is told.
        assert_eq!(problems(&[one, two]), ["b:1:1 é"]);
        let two = ("b", &two.1["é = 1\n".len()..]);
        assert_eq!(
            problems(&[one, two]),
            [
                "a:2:8 guard.mode",
                "a:3:9 guard.flows",
                "a:6:1 trunks.x.foo",
                "b:2:13 trunks.y.profile",
                "b:4:11 limits.packets"
            ]
        );
        // The end of a file is its own, not the start of the next.
        assert_eq!(problems(&[("a", "guard.flows ="), ("b", "")]), ["a:1:14 "]);
        assert_eq!(problems(&[two, ("c", "limits.packets = 'none'")])[2..], ["c:1:8 "]);
    }

    #[test]
    fn a_key_in_two_files_is_said_twice_and_a_table_is_not() {
        let guard = |key: &str| format!("[guard]\n{key}\n");
        assert!(problems(&[("a", &guard("flows = 2048")), ("b", &guard("refuse-lf = true"))]).is_empty());
        assert_eq!(problems(&[("a", &guard("flows = 2048")), ("b", &guard("flows = 2048"))]), ["b:2:1 "]);
        let trunk = "[trunks.x]\npeers = ['192.0.2.1']\n";
        assert_eq!(problems(&[("a", trunk), ("b", "[trunks.x.limits]\npackets = '5/s'")]), ["b:1:9 "]);
    }
}
