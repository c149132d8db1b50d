//! Whose work is linked in, and under which licence: each crate, and each text once.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::tree::{Tree, source};
use crate::command::root;

/// What files with licences and notices are called.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];
const UPLOT: &str = "sipguard-serve/src/dashboard/uplot/LICENSE";
/// What is no crate.
const OTHERS: &str = "\
SQLite, in the public domain, is compiled in by the crate libsqlite3-sys. uPlot (MIT, Leon Sorokin) draws the plots of the dashboard.
The GNU C library (LGPL-2.1-or-later) is linked in statically; the sources of sipguard build the program with another one.
";

/// The text that is installed beside the program.
pub fn text(tree: &Tree) -> Result<String> {
    let mut list = String::from("What is linked into sipguard, each with its licence. The texts follow.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, package) in tree.0.iter().filter(|(_, package)| package.from_registry) {
        let name = format!("{} {}", id.0, id.1);
        writeln!(list, "{name}: {}", package.licence)?;
        for file in licences(&source(id)?)? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            texts.entry(text.replace('\r', "").trim_end().to_owned()).or_default().push(name.clone());
        }
    }
    let uplot = fs::read_to_string(root().join(UPLOT)).with_context(|| format!("reading {UPLOT}"))?;
    texts.entry(uplot.trim_end().to_owned()).or_default().push("uPlot".to_owned());
    write!(list, "\n{OTHERS}")?;
    for (text, mut names) in texts {
        names.dedup();
        write!(list, "\n{}\n{}\n\n{text}\n", "=".repeat(80), names.join(", "))?;
    }
    Ok(list)
}

/// The files with licences in a directory, in the order of their names.
fn licences(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
