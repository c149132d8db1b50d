//! Which modules a machine takes, and in which order.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{initramfs::Initramfs, kernel::Kernel};

/// Adds modules of a kernel, with all that they depend on, and a file that says in which order they are loaded.
///
/// A module says in its own `.modinfo` what it depends on: Debian's packages come without `modules.dep`.
pub fn add(initramfs: &mut Initramfs, kernel: &Kernel, names: &[&str]) -> Result<()> {
    let mut files = HashMap::new();
    find(&kernel.modules, &mut files)?;
    let built_in = fs::read_to_string(kernel.modules.join("modules.builtin")).unwrap_or_default();
    let mut order = Order { files: &files, built_in: &built_in, done: Vec::new() };
    for name in names {
        order.add(name)?;
    }
    let mut list = String::new();
    for (name, module) in order.done {
        initramfs.file(&format!("modules/{name}.ko"), 0o644, module);
        list += &format!("{name}.ko\n");
    }
    initramfs.file("modules/order", 0o644, list.into_bytes());
    Ok(())
}

struct Order<'a> {
    files: &'a HashMap<String, PathBuf>,
    built_in: &'a str,
    done: Vec<(String, Vec<u8>)>,
}

impl Order<'_> {
    /// Adds a module behind those that it depends on.
    fn add(&mut self, name: &str) -> Result<()> {
        let name = plain(name);
        if self.done.iter().any(|(done, _)| *done == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(&name) else {
            let here =
                |line: &str| line.rsplit('/').next().and_then(|file| file.strip_suffix(".ko")).map(plain);
            ensure!(
                self.built_in.lines().any(|line| here(line).as_ref() == Some(&name)),
                "the kernel has no module {name}"
            );
            return Ok(());
        };
        let module = read(path)?;
        for needed in depends(&module) {
            self.add(&needed)?;
        }
        self.done.push((name, module));
        Ok(())
    }
}

/// Names of modules have `_` where those of their files may have `-`.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn find(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some((name, "ko" | "ko.xz")) = entry.file_name().to_string_lossy().split_once('.') {
            files.insert(plain(name), entry.path());
        }
    }
    Ok(())
}

/// A module, unpacked.
fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|end| end == "ko") {
        return fs::read(path).with_context(|| format!("reading {}", path.display()));
    }
    let output =
        Command::new("xz").args(["--decompress", "--stdout"]).arg(path).stdin(Stdio::null()).output();
    let output = output.context("starting xz")?;
    if !output.status.success() {
        bail!("xz does not unpack {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// What a module says in its strings that it depends on.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|part| part == key) else { return Vec::new() };
    let value = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        assert_eq!(
            depends(b"\x7fELF\0license=GPL\0depends=virtio,virtio_ring\0name=a\0"),
            ["virtio", "virtio_ring"]
        );
        assert!(depends(b"\0depends=\0name=a\0").is_empty() && depends(b"no module").is_empty());
    }
}
