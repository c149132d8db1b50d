//! What `lint` asks of sources and the crates can't say: words that only some files may have, each for an invariant of
//! ARCHITECTURE.md, modules of `sipguard-core` that only operations name, and a name for each map of the programs in the ABI.

use anyhow::Result;

use crate::documents::Tree;

/// A word below a directory, the files that may have it, and why.
struct Boundary {
    within: &'static str,
    word: &'static str,
    allowed: &'static [&'static str],
    why: &'static str,
}

const BOUNDARIES: &[Boundary] = &[
    Boundary {
        within: "sipguard-ebpf/src/",
        word: "xdp_action",
        allowed: &["sipguard-ebpf/src/verdict/action.rs"],
        why: "a packet is counted once, where its action is named",
    },
    Boundary {
        within: "sipguard-ebpf/src/",
        word: "adjust_tail(",
        allowed: &[],
        why: "the length of a frame is never changed",
    },
    Boundary {
        within: "sipguard-ebpf/src/",
        word: "adjust_head(",
        allowed: &[],
        why: "the length of a frame is never changed",
    },
];

/// Where operations are asked for: there is no way past them to the maps or the store.
const ABOVE_OPERATIONS: [&str; 2] = ["sipguard/src/", "sipguard-serve/src/"];
/// Modules of `sipguard-core` that are the maps or the store.
const BELOW_OPERATIONS: [&str; 7] = ["bans", "blocks", "counting", "load", "maps", "policy", "store"];

/// All complaints, each with its file and line.
///
/// # Errors
/// When a file can't be read.
pub fn complaints(tree: &Tree) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (path, text) in tree.texts(&[".rs"])? {
        for (number, line) in text.lines().enumerate() {
            let crossed = BOUNDARIES.iter().filter(|boundary| boundary.is_crossed(path, line));
            all.extend(
                crossed
                    .map(|boundary| format!("{path}:{}: `{}`: {}", number + 1, boundary.word, boundary.why)),
            );
        }
        if ABOVE_OPERATIONS.iter().any(|floor| path.starts_with(floor)) {
            let named = modules_of_core(&text);
            let below = named.iter().filter(|(_, module)| BELOW_OPERATIONS.contains(module));
            all.extend(below.map(|(line, module)| {
                format!(
                    "{path}:{line}: `{module}`: what names the maps or the store belongs into an operation"
                )
            }));
        }
    }
    all.extend(unnamed_maps(tree)?);
    Ok(all)
}

/// The modules of `sipguard-core` that a source names, each with its line, also those of a group such as
/// `sipguard_core::{maps, store::Row}`. Comments are passed over.
fn modules_of_core(text: &str) -> Vec<(usize, &str)> {
    const ROOT: &str = "sipguard_core::";
    let mut modules = Vec::new();
    for (at, _) in text.match_indices(ROOT) {
        let begin = text[..at].rfind('\n').map_or(0, |end| end + 1);
        if text[begin..at].contains("//") {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + ROOT.len()..];
        match rest.strip_prefix('{') {
            None => modules.push((line, word(rest))),
            Some(group) => {
                let items = of_group(group).map(word).filter(|module| !module.is_empty());
                modules.extend(items.map(|module| (line, module)));
            }
        }
    }
    modules
}

/// The items of a group of a `use`, behind its first brace; those of groups within it belong to the item before them.
fn of_group(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let end = group.find(|one| {
        depth += i32::from(one == '{') - i32::from(one == '}');
        depth < 0
    });
    let mut depth = 0;
    group[..end.unwrap_or(group.len())].split(move |one| {
        depth += i32::from(one == '{') - i32::from(one == '}');
        one == ',' && depth == 0
    })
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    let text = text.trim_start();
    text.split(|one: char| !one.is_alphanumeric() && one != '_').next().unwrap_or_default()
}

/// Maps of the programs that are not in the list of maps that are pinned.
fn unnamed_maps(tree: &Tree) -> Result<Vec<String>> {
    let sources = tree.texts(&[".rs"])?;
    let list = sources
        .iter()
        .filter(|(path, _)| path.starts_with("sipguard-common/src/abi/"))
        .find_map(|(_, text)| text.split_once("pub const MAPS:")?.1.split_once("];"))
        .map_or("", |(list, _)| list);
    let listed: Vec<&str> = list.split([',', '[']).map(str::trim).collect();
    let programs = sources.iter().filter(|(path, _)| path.starts_with("sipguard-ebpf/src/"));
    let maps = programs.flat_map(|(path, text)| maps(text).map(move |name| (path, name)));
    let unnamed = maps.filter(|(_, name)| !listed.contains(name));
    Ok(unnamed
        .map(|(path, name)| format!("{path}:1: the map `{name}` is not in `abi::names::MAPS`"))
        .collect())
}

/// Names of the maps of a source file of the programs.
fn maps(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[map").skip(1).filter_map(|rest| {
        let (attribute, item) = rest.split_once(']')?;
        match attribute.split_once('"') {
            Some((_, quoted)) => quoted.split_once('"').map(|(name, _)| name),
            None => item.trim_start().strip_prefix("static ")?.split_once(':').map(|(name, _)| name),
        }
    })
}

impl Boundary {
    fn is_crossed(&self, path: &str, line: &str) -> bool {
        path.starts_with(self.within) && line.contains(self.word) && !self.allowed.contains(&path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_allowed_file_may_have_the_word() {
        let [actions, lengths, ..] = BOUNDARIES else { unreachable!("there are boundaries") };
        let line = "    return xdp_action::XDP_PASS;";
        assert!(actions.is_crossed("sipguard-ebpf/src/main.rs", line));
        assert!(!actions.is_crossed("sipguard-ebpf/src/verdict/action.rs", line));
        assert!(!actions.is_crossed("tests/src/program.rs", line));
        assert!(lengths.is_crossed("sipguard-ebpf/src/verdict/reset.rs", "bpf_xdp_adjust_tail(ctx, -4)"));
    }

    #[test]
    fn modules_are_seen_wherever_they_are_named() {
        let text = "use sipguard_core::{\n    clock::{self, Clock},\n    maps::{Place, store},\n    store,\n};\nlet _ = sipguard_core::blocks::x(); // sipguard_core::load\n";
        assert_eq!(modules_of_core(text), [(1, "clock"), (1, "maps"), (1, "store"), (6, "blocks")]);
    }

    #[test]
    fn maps_are_known_by_their_name() {
        let text = "#[map]\nstatic FLOWS: LruHashMap<Key, Flow> = x;\n#[map(name = \"EARLY\")]\nstatic SEEN: Array<u32> = y;";
        assert_eq!(maps(text).collect::<Vec<_>>(), ["FLOWS", "EARLY"]);
    }
}
