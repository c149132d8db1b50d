//! A kernel of Debian, unpacked below `target/vm/kernels`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::apt::Apt;
use crate::command::succeed;

/// The package that depends on the kernel of each suite.
const META: &str = "linux-image-amd64";

/// A kernel to be started.
#[derive(Debug)]
pub struct Kernel {
    /// Debian's version of it.
    pub version: String,
    /// What is started.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// The newest kernel whose version begins with `name`, or the newest of all for `newest`.
    pub fn get(name: &str, apt: &Apt, directory: &Path) -> Result<Self> {
        let versions = apt.versions(META)?;
        let version = versions.iter().find(|version| is_of(version, name));
        let version =
            version.with_context(|| format!("apt has no kernel {name}; it has {}", versions.join(", ")))?;
        let root = directory.join("kernels").join(version);
        if !root.join("unpacked").exists() {
            let packages = packages(apt, version)?;
            ensure!(!packages.is_empty(), "{META} {version} depends on no kernel");
            fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
            for (package, version) in packages {
                let file = apt.download(&package, &version)?;
                succeed(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&root))?;
                // Unpacked once; the disk is better used.
                fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
            }
            fs::write(root.join("unpacked"), "").context("marking a kernel as unpacked")?;
        }
        let modules = only(&root, &["lib/modules", "usr/lib/modules"], "")?;
        let image = only(&root, &["boot"], "vmlinuz").or_else(|_| only(&modules, &["."], "vmlinuz"))?;
        Ok(Self { version: version.clone(), image, modules })
    }
}

/// `6.12` is of 6.12.95-1~bpo12+1 and not of 6.1.192-3.
fn is_of(version: &str, name: &str) -> bool {
    name == "newest"
        || version
            .strip_prefix(name)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// The packages that have a kernel and its modules, with their versions.
fn packages(apt: &Apt, version: &str) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = vec![(META.to_owned(), version.to_owned())];
    while let Some((package, version)) = open.pop() {
        for (name, wanted) in apt.dependencies(&package, &version)? {
            let has_kernel = ["linux-image-", "linux-modules-", "linux-binary-", "linux-base-"]
                .iter()
                .any(|start| name.starts_with(start));
            // Older packages name no version: a kernel of that name is there once.
            let version = wanted.unwrap_or_else(|| version.clone());
            let one = (name, version);
            if has_kernel && !found.contains(&one) {
                found.push(one.clone());
                open.push(one);
            }
        }
    }
    // What has no version in its name only depends on the rest.
    let has_version = |name: &str| name.split('-').any(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    found.retain(|(name, _)| has_version(name));
    Ok(found)
}

/// The one entry of the first of these directories that is there whose name begins so.
fn only(root: &Path, directories: &[&str], start: &str) -> Result<PathBuf> {
    for directory in directories {
        let Ok(entries) = fs::read_dir(root.join(directory)) else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(start) {
                return Ok(entry.path());
            }
        }
    }
    anyhow::bail!("{} has no {start} in {}", root.display(), directories.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_the_beginning_of_its_version() {
        for (version, name, is) in [
            ("6.12.95-1~bpo12+1", "6.12", true),
            ("6.12.95-1~bpo12+1", "6.1", false),
            ("6.1.192-3", "6.1", true),
            ("7.3~rc7-1~exp1", "7.3", true),
            ("7.3~rc7-1~exp1", "newest", true),
        ] {
            assert_eq!(is_of(version, name), is, "{version} {name}");
        }
    }
}
