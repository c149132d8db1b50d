//! An apt of its own: other suites from where the machine's own packages come from, with lists, keys and cache below `target/vm/apt`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{printed, succeed};

/// Suites that are asked, each with the label of the archive that it is in.
const SUITES: [(&str, &str); 5] = [
    ("bookworm", "Debian"),
    ("bookworm-security", "Debian-Security"),
    ("bookworm-backports", "Debian"),
    ("sid", "Debian"),
    ("experimental", "Debian"),
];
/// Debian's keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How old the lists may be.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// The private state.
#[derive(Debug)]
pub struct Apt {
    directory: PathBuf,
    architecture: &'static str,
}

impl Apt {
    /// Makes it below `directory`, for Debian's name of an architecture, and downloads the lists unless they are of today.
    pub fn new(directory: &Path, architecture: &'static str) -> Result<Self> {
        let apt = Self { directory: directory.join("apt"), architecture };
        for name in ["lists/partial", "cache/archives/partial", "etc/preferences.d", "debs"] {
            let path = apt.directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        apt.write("status", "")?;
        apt.write("apt.conf", &apt.configuration())?;
        apt.write("sources.list", &sources()?)?;
        let stamp = apt.directory.join("updated");
        let age = fs::metadata(&stamp).and_then(|file| file.modified()).ok();
        let age = age.and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_none_or(|age| age > FRESH) {
            println!("vm: downloading the package lists of {}", SUITES.map(|(suite, _)| suite).join(", "));
            succeed(apt.command("apt-get").args(["-qq", "update"])).context("downloading package lists")?;
            fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))?;
        }
        Ok(apt)
    }

    /// The versions of a package, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let listed = self.ask(&["madison", package])?;
        Ok(listed.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned())).collect())
    }

    /// The packages that a package of this version depends on, each with the version that it wants.
    pub fn dependencies(&self, package: &str, version: &str) -> Result<Vec<(String, Option<String>)>> {
        let shown = self.ask(&["show", &format!("{package}={version}")])?;
        Ok(dependencies(&shown))
    }

    /// The file of a package, downloaded unless it is there.
    pub fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let debs = self.directory.join("debs");
        let name = format!("{package}_{}_{}.deb", version.replace(':', "%3a"), self.architecture);
        let path = debs.join(&name);
        if !path.exists() {
            println!("vm: downloading {package} {version}");
            let mut command = self.command("apt-get");
            command.args(["-qq", "download", &format!("{package}={version}")]).current_dir(&debs);
            succeed(&mut command)?;
            ensure!(path.exists(), "apt did not leave {}", path.display());
        }
        Ok(path)
    }

    /// The files of packages of a suite and of all that they depend on.
    pub fn download_all(&self, suite: &str, packages: &[&str]) -> Result<Vec<PathBuf>> {
        println!("vm: downloading {} of {suite}", packages.join(", "));
        let mut command = self.command("apt-get");
        command.args([
            "-qq",
            "--yes",
            "--no-install-recommends",
            "--download-only",
            "--target-release",
            suite,
        ]);
        succeed(command.arg("install").args(packages))?;
        let archives = self.directory.join("cache/archives");
        let mut files = Vec::new();
        for entry in fs::read_dir(&archives).with_context(|| format!("listing {}", archives.display()))? {
            files.push(entry?.path());
        }
        files.retain(|path| path.extension().is_some_and(|end| end == "deb"));
        Ok(files)
    }

    /// Removes what [`Apt::download_all`] has downloaded.
    pub fn clean(&self) -> Result<()> {
        succeed(self.command("apt-get").arg("clean"))
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let output = self.command("apt-cache").args(words).stderr(Stdio::null()).output();
        let output = output.context("starting apt-cache")?;
        ensure!(output.status.success(), "apt knows nothing of it: `apt-cache {}`", words.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A program of apt, which reads this configuration and nothing of the machine's.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.directory.join("apt.conf")).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn configuration(&self) -> String {
        let (here, architecture) = (self.directory.display(), self.architecture);
        // A mirror that stands still is as good here: what it has runs in a machine that is thrown away.
        format!(
            "Dir::Etc \"{here}/etc\";\nDir::Etc::sourcelist \"{here}/sources.list\";\nDir::Etc::sourceparts \"{here}/etc\";\n\
             Dir::Etc::parts \"{here}/etc\";\nDir::State \"{here}\";\nDir::State::lists \"{here}/lists\";\n\
             Dir::State::status \"{here}/status\";\nDir::Cache \"{here}/cache\";\nAPT::Architecture \"{architecture}\";\n\
             APT::Architectures {{ \"{architecture}\"; }};\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Acquire::Check-Valid-Until \"false\";\n"
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// The suites, each at the place where the machine's own apt has that archive.
fn sources() -> Result<String> {
    let mut text = String::new();
    for (suite, label) in SUITES {
        text += &format!("deb [signed-by={KEYRING}] {} {suite} main\n", place(label)?);
    }
    Ok(text)
}

/// Where the machine's own apt has the archive of this label.
pub fn place(label: &str) -> Result<String> {
    let format = ["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"];
    let targets =
        printed("apt-get", &format).context("`apt-get indextargets` failed: this needs Debian's apt")?;
    let place = targets.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
    let Some(place) = place else {
        bail!("the machine's apt has no source of {label}: add it, run `apt-get update`, and run this again")
    };
    Ok(place.to_owned())
}

/// What the field `Depends` names, of alternatives the first.
fn dependencies(shown: &str) -> Vec<(String, Option<String>)> {
    let fields = shown.lines().filter_map(|line| line.strip_prefix("Depends: "));
    let words = fields.flat_map(|field| field.split(", ")).filter_map(|one| one.split('|').next());
    words
        .filter_map(|one| {
            let (name, rest) = one.trim().split_once(' ').unwrap_or((one.trim(), ""));
            let version = rest.strip_prefix("(= ").and_then(|rest| rest.strip_suffix(')'));
            (!name.is_empty()).then(|| (name.to_owned(), version.map(str::to_owned)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_have_names_and_wanted_versions() {
        let shown =
            "Package: a\nDepends: linux-modules-7.3 (= 7.3~rc7-1), kmod, linux-base (>= 4), x | y\nSize: 1\n";
        let named = |name: &str, version: Option<&str>| (name.to_owned(), version.map(str::to_owned));
        let wanted = [
            named("linux-modules-7.3", Some("7.3~rc7-1")),
            named("kmod", None),
            named("linux-base", None),
            named("x", None),
        ];
        assert_eq!(dependencies(shown), wanted);
    }
}
