//! `docs/reference/json.md`, generated from the sources of all crates: the names of the documents, and the fields of the structs
//! of each `view/`, which are what is serialized.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const HEAD: &str = "# JSON

Generated from the sources by `SIPGUARD_WRITE_DOCS=1 cargo test -p sipguard --lib json_page`.

Every verb takes `-o json` (one document) and `-o ndjson` (one object a line). The service answers the same below
`/api/`. Each document has a field `schema` with its name and version; rows are in `rows`. A field that is renamed or
removed raises the version; a new field does not. Unknown fields are to be ignored.
";

/// The crates of userspace.
fn crates() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let is_crate = |name: &str| name == "sipguard" || name.starts_with("sipguard-");
    entries.filter(|entry| is_crate(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// Whether a source file has documents: those of a module `view` of its crate.
fn is_view(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with("src/view")) || path.ends_with("src/view.rs")
}

/// Rust files below a directory, tests left out, in the order of their names.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if name.ends_with(".rs") && !name.contains("test") && name != "json_page.rs" {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Names of documents in a source file, literals such as `sipguard.log/1`, with the documentation of their constants. What
/// follows its tests is left out.
fn schemas(text: &str) -> Vec<(String, String)> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let (mut all, mut docs) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
            continue;
        }
        let literals = line.split("\"sipguard.").skip(1).filter_map(|rest| rest.split_once('"'));
        let names = literals.map(|(rest, _)| format!("sipguard.{rest}")).filter(|name| is_schema(name));
        let doc = if line.starts_with("pub const") { linked(&docs) } else { String::new() };
        all.extend(names.map(|name| (name, doc.clone())));
        docs.clear();
    }
    all
}

fn is_schema(literal: &str) -> bool {
    let Some((name, version)) = literal.strip_prefix("sipguard.").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    is_name && !version.is_empty() && version.chars().all(|c| c.is_ascii_digit())
}

/// Tables of the public structs of a file of `view/`, with the documentation of each field.
fn structs(text: &str) -> String {
    let mut page = String::new();
    let mut docs: Vec<&str> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split(['<', ' ', '(']).next().unwrap_or(rest);
            write!(page, "\n### {name}\n\n{}\n\n| field | type | meaning |\n|---|---|---|\n", linked(&docs))
                .unwrap();
            (is_inside, docs) = (true, Vec::new());
        } else if line == "}" {
            (is_inside, docs) = (false, Vec::new());
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))
            && is_inside
        {
            let kind = kind.trim_end_matches(',').replace('|', "\\|");
            writeln!(page, "| `{name}` | `{kind}` | {} |", linked(&docs).replace('|', "\\|")).unwrap();
            docs.clear();
        } else if !line.starts_with("#[") {
            docs.clear();
        }
    }
    page
}

/// Documentation without the brackets of links, in one line.
fn linked(docs: &[&str]) -> String {
    docs.join(" ").replace("[`", "`").replace("`]", "`").replace("super::", "")
}

fn page() -> String {
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let all: Vec<PathBuf> = crates().iter().flat_map(|path| sources(&path.join("src"))).collect();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (name, doc) in all.iter().flat_map(|path| schemas(&read(path))) {
        let known = names.entry(name).or_default();
        *known = if known.is_empty() { doc } else { std::mem::take(known) };
    }
    let mut page = HEAD.to_owned() + "\n## Documents\n\n";
    for (name, doc) in names {
        let colon = if doc.is_empty() { "" } else { ": " };
        writeln!(page, "- `{name}`{colon}{doc}").unwrap();
    }
    let mut views: Vec<&PathBuf> = all.iter().filter(|path| is_view(path)).collect();
    views.sort_by_key(|path| path.file_name());
    let fields: String = views.into_iter().map(|path| structs(&read(path))).collect();
    if !fields.is_empty() {
        page.push_str("\n## Rows and objects\n\nTypes are Rust's; `Option` is null or left out.\n");
        page.push_str(&fields);
    }
    page
}

#[test]
fn the_page_of_the_json_documents_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/json.md");
    if env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/reference/json.md is not current: its head says how to generate it");
}

#[test]
fn fields_have_their_documentation() {
    let text = "/// A row.\n#[derive(Debug)]\npub struct RowView {\n    /// Packets of [`super::X`].\n    pub packets: u64,\n}\n";
    let table = "\n### RowView\n\nA row.\n\n| field | type | meaning |\n|---|---|---|\n| `packets` | `u64` | Packets of `X`. |\n";
    assert_eq!(structs(text), table);
    let source = "/// A row.\npub const LOG: &str = \"sipguard.log/1\";\nlet b = \"sipguard.log\"; let c = \"sipguard.toml/x\";";
    assert_eq!(schemas(source), [("sipguard.log/1".to_owned(), "A row.".to_owned())]);
}
