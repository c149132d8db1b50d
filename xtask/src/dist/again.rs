//! Everything once more, in another directory: is it the same to the bit?

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Release, architecture::Architecture, empty, names};
use crate::command::{root, search_path, succeed};

/// What git is asked for its files.
const LIST: [&str; 5] = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];

/// Copies the sources, makes everything there, and compares.
pub fn check(release: &Release, others: &[Architecture], out: &Path) -> Result<()> {
    let copy = empty(&release.directory.join("again/another-name"))?;
    copy_sources(&copy)?;
    println!("dist: the same again in {}", copy.display());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--package", "xtask", "--", "dist", "--version", &release.version]);
    cargo.args(others.iter().map(|_| "--arm64"));
    cargo.current_dir(&copy).env("CARGO_TARGET_DIR", copy.join("target")).env("PATH", search_path(None));
    succeed(cargo.env("SOURCE_DATE_EPOCH", &release.epoch))?;
    let second = copy.join("target/dist/out");
    let unequal = unequal(out, &second)?;
    ensure!(unequal.is_empty(), "not the same in {}: {}", second.display(), unequal.join(", "));
    println!("dist: the same to the bit: {}", names(out)?.len());
    fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))
}

/// The files that git knows or would take, as they are now.
fn copy_sources(to: &Path) -> Result<()> {
    let listed = Command::new("git").args(LIST).current_dir(root()).output()?;
    ensure!(listed.status.success(), "git ls-files failed");
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let file: PathBuf = to.join(name);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(root().join(name), &file).with_context(|| format!("copying {name}"))?;
    }
    Ok(())
}

/// Names of files that are not in both directories with the same bytes.
fn unequal(one: &Path, other: &Path) -> Result<Vec<String>> {
    let mut all = names(one)?;
    all.extend(names(other)?);
    all.sort();
    all.dedup();
    all.retain(|name| match (fs::read(one.join(name)), fs::read(other.join(name))) {
        (Ok(first), Ok(second)) => first != second,
        _ => true,
    });
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_and_one_that_is_missing_are_named() {
        let directory = std::env::temp_dir().join(format!("dist-again-{}", std::process::id()));
        let (one, other) = (directory.join("one"), directory.join("other"));
        for (place, name, text) in [
            (&one, "same", "a"),
            (&other, "same", "a"),
            (&one, "changed", "a"),
            (&other, "changed", "b"),
            (&other, "added", "a"),
        ] {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join(name), text).unwrap();
        }
        let found = unequal(&one, &other);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found.unwrap(), ["added", "changed"]);
    }
}
