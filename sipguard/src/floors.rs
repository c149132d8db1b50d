//! Checks of the source text: which floor may name what.

use std::fs;
use std::path::{Path, PathBuf};

/// Floors that ask operations, and know neither the store nor the maps.
const ABOVE_OPERATIONS: [&str; 3] = ["cli", "top", "serve"];
/// Modules of the crate that are maps or the store.
const BELOW_OPERATIONS: [&str; 7] = ["maps", "store", "blocks", "bans", "policy", "counting", "load"];
/// What writes to the terminal, or ends the process.
const FOR_THE_COMMAND_LINE: [&str; 6] =
    ["println!", "print!", "eprintln!", "eprint!", "process::exit", "dbg!"];

/// The Rust files below a directory of `src`, with their code: without comments, and without the text of strings.
fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(below);
    let mut left = vec![root];
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push((path.clone(), code(&fs::read_to_string(&path).unwrap())));
        }
    }
    assert!(!found.is_empty(), "there is no source below {below}");
    found
}

/// The code of a text: `""` for each string, and nothing for a comment.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(one) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(string) = rest.strip_prefix('"') {
            code.push_str("\"\"");
            1 + string_bytes(string)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(one);
            one.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// Bytes up to the end of a string, with its quotation mark.
fn string_bytes(string: &str) -> usize {
    let mut escaped = false;
    let end = string.find(|one| {
        let is_end = one == '"' && !escaped;
        escaped = one == '\\' && !escaped;
        is_end
    });
    end.map_or(string.len(), |end| end + 1)
}

/// The words of a path that begins with `crate::`, also those of a group such as `crate::{maps, store::Row}`.
fn modules_of_the_crate(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let word = |text: &str| {
            text.trim_start()
                .chars()
                .take_while(|one| one.is_alphanumeric() || *one == '_')
                .collect::<String>()
        };
        match rest.strip_prefix('{') {
            None => modules.push(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let top = group.chars().take_while(|one| {
                    depth += i32::from(*one == '{') - i32::from(*one == '}');
                    depth >= 0
                });
                modules.extend(top.collect::<String>().split(',').map(word));
            }
        }
    }
    modules
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |one: char| one.is_alphanumeric() || one == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(is_part))
}

#[test]
fn nothing_above_the_operations_names_a_map_the_store_or_aya() {
    let mut found = Vec::new();
    for floor in ABOVE_OPERATIONS {
        for (path, code) in sources(floor) {
            let named = modules_of_the_crate(&code);
            let below = BELOW_OPERATIONS.into_iter().filter(|module| named.iter().any(|one| one == module));
            let aya = ["aya::", "abi::names"].into_iter().filter(|word| has_word(&code, word));
            found.extend(below.chain(aya).map(|word| format!("{}: {word}", path.display())));
        }
    }
    assert!(found.is_empty(), "these belong into `ops`:\n{}", found.join("\n"));
}

#[test]
fn nothing_but_the_command_line_writes_to_the_terminal_or_ends_the_process() {
    let mut found = Vec::new();
    let is_command_line = |path: &Path| path.components().any(|part| part.as_os_str() == "cli");
    for (path, code) in sources("") {
        if !is_command_line(&path) {
            let words = FOR_THE_COMMAND_LINE.into_iter().filter(|word| has_word(&code, word));
            found.extend(words.map(|word| format!("{}: {word}", path.display())));
        }
    }
    assert!(found.is_empty(), "these belong into `cli`, or are notices:\n{}", found.join("\n"));
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "use crate::{clock::Clock, maps::Place, store};\nlet _ = crate::blocks::x(\"http://crate::bans\", '\"'); // crate::load\n";
    assert_eq!(modules_of_the_crate(&code(text)), ["clock", "maps", "store", "blocks"]);
    assert!(has_word("x; println!()", "println!") && !has_word("eprintln!()", "println!"));
}
