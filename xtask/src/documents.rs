//! What `lint` asks of the documents: lines of at most 120 characters, links, file names and tests that exist, and the sizes
//! of README.md and ARCHITECTURE.md.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Characters of a line of Markdown. Tables are exempt, since a row can't be broken.
const WIDTH: usize = 120;
/// Lines of README.md.
const README_LINES: std::ops::RangeInclusive<usize> = 60..=90;
/// Bytes of ARCHITECTURE.md.
const ARCHITECTURE_BYTES: usize = 16 << 10;
/// Directories that are not sources.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// The files of the repository, by their path from its root.
pub struct Tree {
    root: PathBuf,
    files: BTreeSet<String>,
}

impl Tree {
    /// Reads the names of all files below `root`.
    ///
    /// # Errors
    /// When a directory can't be read.
    pub fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree { root: root.to_owned(), files: BTreeSet::new() };
        tree.enter(root)?;
        Ok(tree)
    }

    fn enter(&mut self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
            let (path, kind) =
                (entry.as_ref().map(fs::DirEntry::path), entry.as_ref().map(fs::DirEntry::file_type));
            let (Ok(path), Ok(Ok(kind))) = (path, kind) else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A worktree has a file `.git`.
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                self.enter(&path)?;
            } else if let Ok(short) = path.strip_prefix(&self.root) {
                self.files.insert(short.to_string_lossy().into_owned());
            }
        }
        Ok(())
    }

    /// Path and text of each file whose name has one of these endings.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn texts(&self, endings: &[&str]) -> Result<Vec<(&str, String)>> {
        let wanted = self.files.iter().filter(|path| endings.iter().any(|ending| path.ends_with(ending)));
        wanted
            .map(|path| {
                let text =
                    fs::read_to_string(self.root.join(path)).with_context(|| format!("reading {path}"))?;
                Ok((path.as_str(), text))
            })
            .collect()
    }

    /// Whether a file or directory has this path from the root.
    fn has(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
        self.files.contains(path) || self.files.iter().any(|file| file.starts_with(&below))
    }

    /// Whether the path of a file ends so.
    fn has_end(&self, end: &str) -> bool {
        self.files.iter().any(|file| file == end || file.ends_with(&format!("/{end}")))
    }

    /// Whether the first directory of a path is one of the repository's.
    fn is_rooted(&self, path: &str) -> bool {
        path.split_once('/').is_some_and(|(first, _)| self.has(first))
    }
}

/// All complaints, each with its file and line.
///
/// # Errors
/// When a file can't be read.
pub fn complaints(tree: &Tree) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let rust = tree.texts(&[".rs"])?;
    let tests: BTreeSet<&str> = rust.iter().flat_map(|(_, text)| functions(text)).collect();
    let documents = tree.texts(&[".md"])?;
    let anchors: BTreeSet<String> = documents.iter().flat_map(|(path, text)| anchors(path, text)).collect();
    for (path, text) in &documents {
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            let mut complain = |what: String| all.push(format!("{path}:{}: {what}", number + 1));
            let length = line.chars().count();
            if length > WIDTH && !line.starts_with('|') {
                complain(format!("{length} characters; {WIDTH} at most"));
            }
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            } else if is_code {
                sources(line).filter(|name| !tree.has_end(name)).for_each(|name| complain(dead(name)));
            } else {
                let is_dead = |link: &&str| !resolves(tree, path, link) || !is_anchored(&anchors, path, link);
                links(line).filter(is_dead).for_each(|link| complain(dead(link)));
                spans(line).filter(|span| !is_there(tree, span)).for_each(|span| complain(dead(span)));
                let named = spans(line).filter(|span| is_test_name(span));
                named.filter(|name| !tests.contains(name)).for_each(|name| complain(dead(name)));
            }
        }
        all.extend(sizes(path, text));
    }
    for (path, text) in &rust {
        for (number, line) in text.lines().enumerate() {
            let pages = pages(line).filter(|page| !tree.has(page));
            all.extend(pages.map(|page| format!("{path}:{}: {}", number + 1, dead(page))));
        }
    }
    Ok(all)
}

fn dead(name: &str) -> String {
    format!("`{name}` does not exist")
}

/// Complaints about the sizes of the two documents that everybody reads.
fn sizes(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    match path {
        "README.md" if !README_LINES.contains(&lines) => {
            Some(format!("{path}:1: {lines} lines; {} to {}", README_LINES.start(), README_LINES.end()))
        }
        "ARCHITECTURE.md" if text.len() > ARCHITECTURE_BYTES => {
            Some(format!("{path}:1: {} bytes; {ARCHITECTURE_BYTES} at most", text.len()))
        }
        _ => None,
    }
}

/// Targets of the links of a line that are no URLs.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// Whether a link of a document leads to a file or directory.
fn resolves(tree: &Tree, from: &str, link: &str) -> bool {
    tree.has(&target(from, link))
}

/// Whether the heading that a link names is in its document.
fn is_anchored(anchors: &BTreeSet<String>, from: &str, link: &str) -> bool {
    link.split_once('#')
        .is_none_or(|(_, anchor)| anchors.contains(&format!("{}#{anchor}", target(from, link))))
}

/// Path from the root of what a link of a document leads to.
fn target(from: &str, link: &str) -> String {
    let target = link.split('#').next().unwrap_or(link);
    if target.is_empty() {
        return from.to_owned();
    }
    let mut path = Vec::new();
    for part in Path::new(from).parent().unwrap_or(Path::new("")).join(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(part) => path.push(part.to_string_lossy().into_owned()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path.join("/")
}

/// Path and anchor of each heading of a document: small letters, digits and hyphens, as a forge makes them.
fn anchors(path: &str, text: &str) -> Vec<String> {
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ';
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-")
    };
    headings.map(|heading| format!("{path}#{}", slug(heading))).collect()
}

/// Rust files that a line of a picture names.
fn sources(line: &str) -> impl Iterator<Item = &str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    line.split(move |c| !plain(c)).filter(|name| name.len() > ".rs".len() && name.ends_with(".rs"))
}

/// What is between single backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether a code span names no file of the repository, or one that exists.
fn is_there(tree: &Tree, span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./@".contains(c);
    if span.is_empty() || !span.chars().all(plain) || span.starts_with(['/', '.', '-']) {
        return true;
    }
    let name = span.trim_end_matches('/');
    if tree.is_rooted(name) { tree.has(name) } else { !name.ends_with(".rs") || tree.has_end(name) }
}

/// Whether a code span is a sentence in snake case, as the names of tests are, and no helper of the kernel.
fn is_test_name(span: &str) -> bool {
    !span.starts_with("bpf_")
        && !span.starts_with("sipguard_")
        && span.matches('_').count() >= 4
        && span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Names of the functions of a source file.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.split("fn ").skip(1).filter_map(|rest| rest.split_once('(')).map(|(name, _)| name)
}

/// Pages below `docs/` that a line of source names.
fn pages(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("docs/").filter_map(|(at, _)| {
        let rest = &line[at..];
        let is_word = line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.');
        let end = rest.find(".md")? + ".md".len();
        let page = &rest[..end];
        (!is_word && !page.contains([' ', '`', '"', '{', '*'])).then_some(page)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let files = ["README.md", "docs/guide/serve.md", "docs/limits.md", "sipguard/src/store/say.rs"];
        Tree { root: PathBuf::new(), files: files.map(str::to_owned).into() }
    }

    #[test]
    fn links_lead_from_their_own_directory() {
        let tree = tree();
        for (link, exists) in [
            ("../limits.md", true),
            ("serve.md#watching", true),
            ("..", true),
            ("../../README.md", true),
            ("limits.md", false),
            ("../README.md", false),
        ] {
            assert_eq!(resolves(&tree, "docs/guide/serve.md", link), exists, "{link}");
        }
        let line = "see [a](../limits.md), [b](https://example.org/x) and [c](#below)";
        assert_eq!(links(line).collect::<Vec<_>>(), ["../limits.md", "#below"]);
        let anchors =
            anchors("docs/limits.md", "# Limits\n\n## What is `not` seen, ever\n").into_iter().collect();
        assert!(is_anchored(&anchors, "docs/guide/serve.md", "../limits.md#what-is-not-seen-ever"));
        assert!(is_anchored(&anchors, "docs/limits.md", "#limits"));
        assert!(!is_anchored(&anchors, "docs/limits.md", "#gone"));
    }

    #[test]
    fn named_files_exist() {
        let tree = tree();
        for (span, exists) in [
            ("store/say.rs", true),
            ("say.rs", true),
            ("unsaid.rs", false),
            ("docs/guide", true),
            ("docs/guide/gone", false),
            ("cargo xtask lint", true),
            ("203.0.113.0/24", true),
            ("/etc/sipguard/sipguard.toml", true),
        ] {
            assert_eq!(is_there(&tree, span), exists, "{span}");
        }
        assert_eq!(spans("a `b` c `d e`").collect::<Vec<_>>(), ["b", "d e"]);
        let node = "    eth[\"packet/eth.rs: Ethernet\"] --> ip.rs";
        assert_eq!(sources(node).collect::<Vec<_>>(), ["packet/eth.rs", "ip.rs"]);
        assert!(is_test_name("a_rule_that_the_kernel_refuses") && !is_test_name("sip_validate"));
        assert_eq!(functions("fn a_b() {}\n    pub fn c(d: u8)").collect::<Vec<_>>(), ["a_b", "c"]);
        assert_eq!(
            pages("// docs/limits.md, \"../docs/README.md\"").collect::<Vec<_>>(),
            ["docs/limits.md", "docs/README.md"]
        );
    }

    #[test]
    fn the_two_front_pages_have_their_sizes() {
        assert_eq!(sizes("README.md", &"line\n".repeat(90)), None);
        assert!(sizes("README.md", &"line\n".repeat(91)).is_some());
        assert!(sizes("README.md", &"line\n".repeat(59)).is_some());
        assert!(sizes("ARCHITECTURE.md", &"x".repeat(ARCHITECTURE_BYTES + 1)).is_some());
        assert_eq!(sizes("docs/limits.md", ""), None);
    }
}
