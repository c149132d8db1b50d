//! An initramfs: files in a cpio archive ("newc", the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufWriter, Write},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::command::search_path;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
/// The last entry of an archive.
const TRAILER: &str = "TRAILER!!!";

/// What it has: by path, in an order in which directories come before what is in them.
#[derive(Debug, Default)]
pub struct Initramfs(BTreeMap<String, (u32, Vec<u8>)>);

impl Initramfs {
    /// Empty but for the directories that a system of Debian has as links.
    pub fn new() -> Self {
        let mut new = Self::default();
        for name in ["bin", "sbin", "lib", "lib64"] {
            new.directory(&format!("usr/{name}"));
            new.0.insert(name.to_owned(), (LINK, format!("usr/{name}").into_bytes()));
        }
        new
    }

    /// A file with these permissions.
    pub fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
        self.0.insert(path.to_owned(), (FILE | permissions, content));
    }

    /// A program without its debug information, and the libraries that it is linked with.
    pub fn program(&mut self, program: &Path, path: &str) -> Result<()> {
        self.file(path, 0o755, stripped(program)?);
        for library in libraries(program)? {
            let content = fs::read(&library).with_context(|| format!("reading {library}"))?;
            let inside = library.trim_start_matches('/');
            let inside = if inside.starts_with("usr/") { inside.to_owned() } else { format!("usr/{inside}") };
            self.file(&inside, 0o755, content);
        }
        Ok(())
    }

    /// A program of this machine, at the place in which it is found.
    pub fn program_of_path(&mut self, name: &str) -> Result<()> {
        let found =
            env::split_paths(&search_path(None)).map(|dir| dir.join(name)).find(|path| path.is_file());
        let found = found.with_context(|| format!("there is no program {name}"))?;
        self.program(&found, &format!("usr/bin/{name}"))
    }

    /// Writes the archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = fs::File::create(path).with_context(|| format!("making {}", path.display()))?;
        let mut output = BufWriter::new(file);
        let trailer = (TRAILER.to_owned(), (0, Vec::new()));
        let entries = self.0.iter().chain([(&trailer.0, &trailer.1)]);
        for (number, (name, (mode, content))) in entries.enumerate() {
            entry(&mut output, number, name, *mode, content)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        output.flush().with_context(|| format!("writing {}", path.display()))
    }

    fn directory(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.0.entry(path[..at].to_owned()).or_insert((DIRECTORY, Vec::new()));
        }
    }
}

/// One entry: a header of hexadecimal numbers, the name and the content, each filled up to four bytes.
fn entry(
    output: &mut impl Write,
    number: usize,
    name: &str,
    mode: u32,
    content: &[u8],
) -> std::io::Result<()> {
    // Inode, mode, owner, group, links, time, size, four numbers of devices, length of the name, checksum.
    let numbers =
        [number as u32 + 1, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    let mut header = String::from("070701");
    numbers.iter().for_each(|number| header += &format!("{number:08x}"));
    header += name;
    header.push('\0');
    for part in [header.as_bytes(), content] {
        output.write_all(part)?;
        output.write_all(&[0; 3][..part.len().next_multiple_of(4) - part.len()])?;
    }
    Ok(())
}

/// A program without its debug information.
pub fn stripped(program: &Path) -> Result<Vec<u8>> {
    let mut copy = env::temp_dir();
    copy.push(format!("xtask-vm-{}", std::process::id()));
    let status =
        Command::new("strip").arg("-o").arg(&copy).arg(program).status().context("starting strip")?;
    ensure!(status.success(), "strip does not take {}", program.display());
    let content = fs::read(&copy).with_context(|| format!("reading {}", copy.display()));
    let _gone = fs::remove_file(&copy);
    content
}

/// The libraries of a program, as the loader finds them.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("starting ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(paths(&text))
}

fn paths(ldd: &str) -> Vec<String> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let ldd = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(paths(ldd), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(paths("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn an_entry_is_filled_up_to_four_bytes() {
        let mut bytes = Vec::new();
        entry(&mut bytes, 0, "ab", FILE | 0o644, b"12345").unwrap();
        // 6 + 13 * 8 = 110 bytes of header and 3 of the name, and the content.
        assert_eq!(bytes.len(), 116 + 8);
        assert_eq!(&bytes[..22], b"07070100000001000081a4");
        assert_eq!(&bytes[110..], b"ab\0\0\0\x0012345\0\0\0");
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut initramfs = Initramfs::new();
        initramfs.file("a/b/c", 0o600, Vec::new());
        let names: Vec<&str> = initramfs.0.keys().map(String::as_str).collect();
        assert_eq!(names[..3], ["a", "a/b", "a/b/c"]);
    }
}
