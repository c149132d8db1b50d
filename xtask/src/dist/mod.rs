//! `dist`: what is published of a version, and whether it can be made again.
//!
//! 1. `architecture.rs` says for which processors, and what each is called by whom;
//! 2. `program.rs` builds the one static program, `sysroot.rs` gets what another processor takes;
//! 3. `content.rs` is what is installed, in either package; `third_party.rs` the licences of what is linked in;
//! 4. `deb.rs` and `rpm.rs` pack it, each with the tool of its own distributions;
//! 5. `bill.rs` is the bill of materials, and whether it agrees with `Cargo.lock`, which `lock.rs` reads;
//! 6. `again.rs` makes everything once more, in another directory;
//! 7. `trial.rs` installs, upgrades and purges it.
//!
//! Not cargo-deb and cargo-generate-rpm: they take a list of the files each, and are two programs to compile, for what dpkg-deb and rpmbuild do
//! from one list.
//!
//! All of it lies in `target/dist/out`. Nothing there depends on the directory, the time or the user.

mod again;
mod architecture;
mod bill;
mod content;
mod deb;
mod lock;
mod program;
mod rpm;
mod sysroot;
mod third_party;
mod tree;
mod trial;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use self::{architecture::Architecture, content::Content, tree::Tree};
use crate::{
    Usage,
    command::{printed, root, succeed, target_dir},
    machine::Purpose,
    setup,
};

/// What is made: which version, as of when, and where.
#[derive(Clone, Debug)]
struct Release {
    /// Of the packages.
    version: String,
    /// Seconds since 1970 that every file has as its time: the commit's.
    epoch: String,
    /// Where all is made.
    directory: PathBuf,
}

/// `dist [--arm64] [--check-reproducible] [--try] [--version VERSION]`.
pub fn run(args: &[String]) -> Result<()> {
    let (mut arm64, mut twice, mut trial) = (false, false, false);
    let mut version = env!("CARGO_PKG_VERSION").to_owned();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), words.as_slice().first()) {
            ("--arm64", _) => arm64 = true,
            ("--check-reproducible", _) => twice = true,
            ("--try", _) => trial = true,
            ("--version", Some(given)) => {
                version.clone_from(given);
                words.next();
            }
            _ => return Err(Usage::arguments("dist", args)),
        }
    }
    setup::ready(if arm64 { Purpose::DistArm64 } else { Purpose::Dist })?;
    let release = Release { version, epoch: epoch()?, directory: target_dir().join("dist") };
    let others = if arm64 { &[Architecture::Arm64][..] } else { &[] };
    let out = release.make(others)?;
    if twice {
        again::check(&release, others, &out)?;
    }
    if trial {
        trial::run(&release, &out)?;
    }
    Ok(())
}

impl Release {
    /// Everything, for this processor and for `others`; the directory that it is in.
    fn make(&self, others: &[Architecture]) -> Result<PathBuf> {
        let out = empty(&self.directory.join("out"))?;
        let here = program::build(Architecture::Amd64, &self.directory)?;
        self.pack(Architecture::Amd64, &here, &here, &out)?;
        for &other in others {
            let program = program::build(other, &self.directory)?;
            self.pack(other, &program, &here, &out)?;
        }
        let mut names = names(&out)?;
        names.sort();
        let sums = Command::new("sha256sum").args(&names).current_dir(&out).output()?;
        ensure!(sums.status.success(), "sha256sum failed");
        write(&out.join("SHA256SUMS"), &sums.stdout)?;
        print!("{}", String::from_utf8_lossy(&sums.stdout));
        println!("dist: {}", out.display());
        Ok(out)
    }

    /// The packages of an architecture; `here` is the program that this machine can run, for its manual pages and completions.
    fn pack(&self, architecture: Architecture, program: &Path, here: &Path, out: &Path) -> Result<()> {
        let tree = Tree::of(architecture)?;
        let bill = bill::of(&tree, &self.version, &lock::read()?)?;
        let name = format!("sipguard-{}-{}", self.version, architecture.rust_name());
        write(&out.join(format!("{name}.cdx.json")), bill.as_bytes())?;
        let content = Content::new(program, here, &third_party::text(&tree)?)?;
        let copy = out.join(&name);
        fs::copy(program, &copy).with_context(|| format!("making {}", copy.display()))?;
        deb::pack(self, architecture, &content, out)?;
        rpm::pack(self, architecture, &content, out)
    }
}

/// The time of what is made: the commit's, unless the environment says another one
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn epoch() -> Result<String> {
    if let Ok(given) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(given);
    }
    let root = root();
    let log = ["-C", &root.to_string_lossy(), "log", "-1", "--format=%ct"];
    let time = printed("git", &log).context("git does not know the commit: set SOURCE_DATE_EPOCH")?;
    Ok(time.trim().to_owned())
}

/// The directory, made anew.
fn empty(directory: &Path) -> Result<PathBuf> {
    let _none = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(directory.to_owned())
}

/// The names of the files of a directory.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

/// Runs a packer with the time of the release and nothing of the user's language.
fn packed(command: &mut Command, epoch: &str) -> Result<()> {
    succeed(command.env("SOURCE_DATE_EPOCH", epoch).env("LC_ALL", "C").env("TZ", "UTC"))
}
