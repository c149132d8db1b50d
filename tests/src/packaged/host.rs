//! A system in a directory, with the network of a namespace, processes and a bpffs of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{netns::Netns, process::output};

/// What is mounted: kind, source, and where; each command has a `/proc` of its own.
const MOUNTS: [(&str, &str, &str); 3] =
    [("bind", "/sys", "sys"), ("bpf", "bpf", "sys/fs/bpf"), ("bind", "/dev", "dev")];
/// What a package manager changes of its own.
const OF_PACKAGES: [&str; 6] = ["proc", "sys", "dev", "var/lib/dpkg", "var/lib/apt", "var/log"];
const CACHES: [&str; 3] = ["var/cache", "etc/ld.so.cache", "tmp"];

/// The system. Drop takes the mounts off.
#[derive(Debug)]
pub struct Host<'a> {
    root: PathBuf,
    network: &'a Netns,
}

impl<'a> Host<'a> {
    /// Mounts what a system needs below `root`.
    pub fn new(root: &Path, network: &'a Netns) -> Result<Self> {
        let host = Self { root: root.to_owned(), network };
        fs::create_dir_all(host.path("proc"))?;
        for (kind, source, place) in MOUNTS {
            let mut mount = Command::new("mount");
            match kind {
                "bind" => mount.args(["--bind", source]),
                _ => mount.args(["-t", kind, source]),
            };
            let place = host.path(place);
            fs::create_dir_all(&place)?;
            output(mount.arg(place))?;
        }
        Ok(host)
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Runs a program in it, and returns what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        // Whoever sees processes of another root sees that they have another bpffs, in which pins would live longer.
        let mut command = self.network.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        command.arg(format!("--mount-proc={}", self.path("proc").display()));
        command.arg("chroot").arg(&self.root).args(words).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        output(command.env("DEBIAN_FRONTEND", "noninteractive"))
    }

    /// Runs this machine's `rpm` on it, and returns what it printed.
    pub fn rpm(&self, words: &[&str]) -> Result<String> {
        let mut command = self.network.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        command.arg(format!("--mount-proc={}", self.path("proc").display()));
        command.arg("rpm").arg("--root").arg(&self.root).args(["--dbpath", "/var/lib/rpm"]).args(words);
        // Debian's rpm wants to hear that this is meant.
        command.arg("--force-debian").env_clear();
        output(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8"))
    }

    /// Copies a package into it; where it is there.
    pub fn copy_in(&self, package: &Path) -> Result<String> {
        let name = package.file_name().context("a package has a name")?.to_string_lossy().into_owned();
        fs::copy(package, self.path("tmp").join(&name))
            .with_context(|| format!("copying {}", package.display()))?;
        Ok(format!("/tmp/{name}"))
    }

    /// Installs a package of it, of whatever version.
    pub fn install(&self, package: &str) -> Result<()> {
        self.run(&["apt-get", "-qq", "install", "--yes", "--allow-downgrades", package]).map(drop)
    }

    /// Takes away what was copied in.
    pub fn remove_packages(&self) -> Result<()> {
        for entry in fs::read_dir(self.path("tmp"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// The kernel's number of the program on the interface.
    pub fn program(&self) -> Result<u64> {
        let status: Value = serde_json::from_str(&self.run(&["sipguard", "status", "--json"])?)?;
        status["interfaces"][0]["program_id"].as_u64().with_context(|| format!("no program: {status}"))
    }

    /// What is pinned.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.path("sys/fs/bpf"))?;
        let mut pins = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        pins.sort();
        Ok(pins)
    }

    /// Reads a file of it.
    pub fn read(&self, path: &str) -> Result<String> {
        let bytes = fs::read(self.path(path)).with_context(|| format!("reading {path}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a file of it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(self.path(path), text).with_context(|| format!("writing {path}"))
    }

    /// Every path and a sum of what is there, but for what belongs to the package manager, and caches.
    pub fn files(&self) -> Result<BTreeMap<String, String>> {
        let mut find = Command::new("find");
        find.arg(".").arg("(");
        for (number, path) in OF_PACKAGES.iter().chain(&CACHES).enumerate() {
            find.args((number > 0).then_some("-o")).args(["-path", &format!("./{path}")]);
        }
        find.args([")", "-prune", "-o", "-printf", "%p\\t%y %m %u %g %l\\n"]).current_dir(&self.root);
        let mut files = BTreeMap::new();
        for line in output(&mut find)?.lines() {
            let (path, state) = line.split_once('\t').with_context(|| format!("find said {line}"))?;
            let state = match state.starts_with('f') {
                true => format!("{state} {:?}", fs::read(self.root.join(path)).map(|bytes| hash(&bytes))),
                false => state.to_owned(),
            };
            files.insert(path.to_owned(), state);
        }
        ensure!(
            files.len() > 1000 || !files.contains_key("./etc/debian_version"),
            "find has seen little of it"
        );
        Ok(files)
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        for (_, _, place) in MOUNTS.iter().rev() {
            if let Err(error) = output(Command::new("umount").arg("--lazy").arg(self.path(place))) {
                eprintln!("packaged: {error:#}");
            }
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
