//! What is linked into the program: the crates of its features and of its processor, and those of the programs for the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};

use super::architecture::Architecture;
use crate::command::cargo;

/// A crate by name and version.
pub type Id = (String, String);

/// A crate that is linked in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Its licence, as an SPDX expression.
    pub licence: String,
    /// Whether it comes from the registry, not from the workspace.
    pub from_registry: bool,
    /// What it uses.
    pub uses: BTreeSet<Id>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Tree(pub BTreeMap<Id, Package>);

impl Tree {
    /// Asks cargo, which knows what features and target leave of `Cargo.lock`.
    pub fn of(architecture: Architecture) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.read(&listed("sipguard", &architecture.target())?)?;
        // The host's target, on which it compiles too: BPF needs no crate that this does not.
        tree.read(&listed("sipguard-ebpf", &architecture.target())?)?;
        let ebpf = tree.find("sipguard-ebpf")?;
        let object = tree.find("sipguard-object")?;
        tree.0.entry(object).or_default().uses.insert(ebpf);
        Ok(tree)
    }

    /// The crate of this name of which there is one version.
    pub fn find(&self, name: &str) -> Result<Id> {
        let found = self.0.keys().find(|(of, _)| of == name).cloned();
        found.with_context(|| format!("cargo names no {name}"))
    }

    /// Lines of `DEPTH NAME vVERSION [(PLACE)]\tLICENCE`, each below the last one of a smaller depth.
    fn read(&mut self, listed: &str) -> Result<()> {
        let mut above: Vec<Id> = Vec::new();
        for line in listed.lines().filter(|line| !line.is_empty()) {
            let (named, licence) = line.split_once('\t').with_context(|| format!("cargo said {line}"))?;
            let name_at = named.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
            let depth: usize = named[..name_at].parse().with_context(|| format!("cargo said {line}"))?;
            let mut words = named[name_at..].split(' ');
            let (name, version) =
                words.next().zip(words.next()).with_context(|| format!("cargo said {line}"))?;
            let id = (name.to_owned(), version.trim_start_matches('v').to_owned());
            above.truncate(depth);
            if let Some(user) = above.last() {
                self.0.entry(user.clone()).or_default().uses.insert(id.clone());
            }
            let package = self.0.entry(id.clone()).or_default();
            // What was shown before has this mark instead.
            package.licence = licence.trim_end_matches(" (*)").to_owned();
            package.from_registry = !named.contains('(');
            above.push(id);
        }
        Ok(())
    }
}

fn listed(package: &str, target: &str) -> Result<String> {
    let mut command = cargo(&["tree", "--locked", "--package", package, "--target", target]);
    command.args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "{p}\t{l}"]);
    let output = command.output().context("starting cargo")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Where the sources of a crate of the registry are on this machine.
pub fn source((name, version): &Id) -> Result<PathBuf> {
    let home = crate::ebpf_toolchain::cargo_bin();
    let sources = home.parent().context("no home of cargo")?.join("registry/src");
    let mut registries =
        std::fs::read_dir(&sources).with_context(|| format!("listing {}", sources.display()))?;
    registries
        .find_map(|registry| {
            Some(registry.ok()?.path().join(format!("{name}-{version}"))).filter(|path| path.is_dir())
        })
        .with_context(|| format!("no source of {name} {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_whom_is_told_by_the_depth() {
        let mut tree = Tree::default();
        let text =
            "0a v0.1.0 (/somewhere)\tMIT\n1b v1.0.0\tMIT OR Apache-2.0\n2c v2.0.0\tISC\n1c v2.0.0\tISC (*)\n";
        tree.read(text).unwrap();
        let id = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(tree.0[&id("a", "0.1.0")].uses, [id("b", "1.0.0"), id("c", "2.0.0")].into());
        assert_eq!(tree.0[&id("b", "1.0.0")].uses, [id("c", "2.0.0")].into());
        assert_eq!((tree.0[&id("c", "2.0.0")].licence.as_str(), tree.0.len()), ("ISC", 3));
        assert!(tree.0[&id("b", "1.0.0")].from_registry && !tree.0[&id("a", "0.1.0")].from_registry);
    }
}
