//! What `lint` asks of sources: words that only some files may have, each for an invariant of ARCHITECTURE.md, and a name for
//! each map of the programs in the ABI.

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
    }
    all.extend(unnamed_maps(tree)?);
    Ok(all)
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
    fn maps_are_known_by_their_name() {
        let text = "#[map]\nstatic FLOWS: LruHashMap<Key, Flow> = x;\n#[map(name = \"EARLY\")]\nstatic SEEN: Array<u32> = y;";
        assert_eq!(maps(text).collect::<Vec<_>>(), ["FLOWS", "EARLY"]);
    }
}
