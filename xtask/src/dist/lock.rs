//! `Cargo.lock`, as far as a bill of materials needs it.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

use crate::command::root;

/// The SHA-256 of each package by its name and version; `None` of those of the workspace.
pub type Lock = BTreeMap<(String, String), Option<String>>;

/// The lock of the workspace.
pub fn read() -> Result<Lock> {
    Ok(parse(&fs::read_to_string(root().join("Cargo.lock")).context("reading Cargo.lock")?))
}

/// cargo writes one field a line, in a fixed order.
fn parse(text: &str) -> Lock {
    let packages = text.split("[[package]]\n").skip(1);
    let field = |package: &str, name: &str| {
        let value =
            |line: &str| Some(line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned());
        package.lines().find_map(value)
    };
    packages
        .filter_map(|package| {
            Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_its_version_and_its_sum() {
        let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"ff\"\n\
                    dependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"0.1.0\"\n";
        let key = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let wanted = [(key("a", "1.0.0"), Some("ff".to_owned())), (key("b", "0.1.0"), None)];
        assert_eq!(parse(text), wanted.into());
    }
}
