//! What `lint` asks of words: the standard term, not a private one. Each entry is free of false alarms: a word that has an
//! ordinary meaning as well is checked only as the name of an item. Prose is every line of a document, and the comments of
//! sources.

use anyhow::Result;

use crate::documents::Tree;

/// Private words in prose, each with the standard term.
const WORDS: &[(&str, &str)] = &[
    ("a room of", "a stage, or a module"),
    ("doubted", "warned about"),
    ("for good", "permanently"),
    ("rehearse", "dry run"),
    ("rehearsed", "dry run"),
    ("unsay", "retract"),
    ("unsaid", "retracted"),
];

/// Names of items, each with the standard term.
const NAMES: &[(&str, &str)] = &[
    ("apart", "distinct"),
    ("bring", "apply, or reconcile"),
    ("carriers", "trunks"),
    ("Chosen", "EffectiveSettings"),
    ("doubt", "warning"),
    ("gate", "rate limiter"),
    ("Known", "Context, or Counts"),
    ("Late", "lazy, with retry"),
    ("rehearse", "dry_run"),
    ("SettingsWish", "SettingsRequest"),
    ("Touched", "dirty set"),
    ("trouble", "health, or diagnosis"),
    ("Trouble", "Health"),
    ("twin", "second attachment"),
    ("unsay", "retract"),
    ("want", "desired"),
    ("Wanted", "Desired"),
    ("Wish", "Request, or Options"),
];

/// Keywords that stand before the name of an item.
const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "mod", "type", "const", "static"];

/// This file, which has to name them.
const OWN: &str = "xtask/src/vocabulary.rs";

/// All complaints, each with its file and line.
///
/// # Errors
/// When a file can't be read.
pub fn complaints(tree: &Tree) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (path, text) in tree.texts(&[".rs", ".md"])? {
        if path == OWN {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let found = words(prose(path, line), WORDS).chain(names(line, NAMES));
            all.extend(found.map(|(word, standard)| {
                format!("{path}:{}: `{word}` is not the standard term: {standard}", number + 1)
            }));
        }
    }
    Ok(all)
}

type Entry = (&'static str, &'static str);

/// What of a line is prose.
fn prose<'l>(path: &str, line: &'l str) -> &'l str {
    if path.ends_with(".md") { line } else { line.split_once("//").map_or("", |(_, comment)| comment) }
}

/// The words of a line that are in the list, in upper or lower case.
fn words(line: &str, list: &'static [Entry]) -> impl Iterator<Item = Entry> {
    let line = line.to_ascii_lowercase();
    list.iter().copied().filter(move |(word, _)| has_word(&line, &word.to_ascii_lowercase()))
}

/// The names of items of a line that are in the list.
fn names(line: &str, list: &'static [Entry]) -> impl Iterator<Item = Entry> {
    list.iter().copied().filter(move |(name, _)| {
        ITEMS.iter().any(|item| {
            let declared = format!("{item} {name}");
            has_word(line, &declared)
        })
    })
}

/// Whether a line has a word, or several, that no longer word surrounds.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, found)| !line[..at].ends_with(is_part) && !line[at + found.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Entry] = &[("carriers", "trunks"), ("for good", "permanently")];

    #[test]
    fn whole_words_are_found_in_any_case() {
        let found = |line| words(line, LIST).map(|(word, _)| word).collect::<Vec<_>>();
        assert_eq!(found("Carriers are blocked for good."), ["carriers", "for good"]);
        assert_eq!(found("the carrier, for goodness"), [""; 0]);
        assert_eq!(found("fn carriers_of"), [""; 0]);
    }

    #[test]
    fn prose_is_a_document_or_a_comment() {
        assert_eq!(prose("README.md", "for good"), "for good");
        assert_eq!(prose("a.rs", "for good in [1] { // for good"), " for good");
        assert_eq!(prose("a.rs", "for good in [1] {"), "");
    }

    #[test]
    fn names_are_those_of_items() {
        let found = |line| names(line, LIST).count();
        assert_eq!(found("pub mod carriers;"), 1);
        assert_eq!(found("let carriers = 1;"), 0);
    }
}
