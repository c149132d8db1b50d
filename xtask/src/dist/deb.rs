//! The package of Debian, Ubuntu and FreePBX 17, by `dpkg-deb`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    Release,
    architecture::Architecture,
    content::{Content, Kind, gzip, script},
    packed, write,
};
use crate::command::{printed, root, succeed};

/// Who answers for the package.
pub const MAINTAINER: &str = "The sipguard authors <sipguard@example.org>";
/// What it is, for both packages: a line, and the rest.
pub const SUMMARY: &str = "drops malformed SIP on the network card, before the PBX reads it";
pub const DESCRIPTION: [&str; 4] = [
    "An XDP program and a command line for hosts that run Asterisk, FreePBX,",
    "Kamailio, OpenSIPS or FreeSWITCH. It follows every SIP-over-TCP connection",
    "byte by byte, checks each datagram, and stops what is malformed. There is no",
    "daemon: the filter stays when every process of it ends.",
];

/// Scripts: the name for dpkg, what its arguments mean, and the file.
const SCRIPTS: [(&str, &str, &str); 4] = [
    ("postinst", "[ \"$1\" = configure ] || exit 0\nformer=$2", "installed.sh"),
    ("prerm", "[ \"$1\" = remove ] || exit 0", "removing.sh"),
    ("postrm", "", "removed.sh"),
    ("postrm", "[ \"$1\" = purge ] || exit 0", "purged.sh"),
];

/// The name of its file.
pub fn name(release: &Release, architecture: Architecture) -> String {
    format!("sipguard_{}-1_{}.deb", release.version, architecture.debian_name())
}

/// Packs it into `out`.
pub fn pack(release: &Release, architecture: Architecture, content: &Content, out: &Path) -> Result<()> {
    let directory = release.directory.join(format!("deb-{}", architecture.debian_name()));
    content.lay(&directory, "usr/share/zsh/vendor-completions/_sipguard")?;
    let documents = directory.join("usr/share/doc/sipguard");
    let version = format!("{}-1", release.version);
    write(&documents.join("changelog.Debian.gz"), &gzip(changelog(&version, &release.epoch)?.as_bytes())?)?;
    write(&documents.join("copyright"), copyright()?.as_bytes())?;
    let overrides = fs::read(root().join("deploy/packages/lintian-overrides"))?;
    write(&directory.join("usr/share/lintian/overrides/sipguard"), &overrides)?;
    control(&directory, &version, architecture, content)?;
    let name = name(release, architecture);
    let mut dpkg = Command::new("dpkg-deb");
    // dpkg 1.20 of Debian 11 and Ubuntu 20.04 reads xz and no zstd.
    dpkg.args(["--root-owner-group", "-Zxz", "--build"]).arg(&directory).arg(out.join(&name));
    packed(dpkg.stdout(std::process::Stdio::null()), &release.epoch)?;
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root", "--tag-display-limit", "0"]);
    succeed(lintian.arg(out.join(&name))).context("lintian has something to say about it")
}

fn control(directory: &Path, version: &str, architecture: Architecture, content: &Content) -> Result<()> {
    let place = directory.join("DEBIAN");
    let mut kib = 0;
    for file in &content.files {
        kib += fs::metadata(directory.join(&file.path))?.len().div_ceil(1024);
    }
    let fields = format!(
        "Package: sipguard\nVersion: {version}\nArchitecture: {}\nMaintainer: {MAINTAINER}\nInstalled-Size: {kib}\n\
         Section: net\nPriority: optional\nDescription: {SUMMARY}\n {}\n",
        architecture.debian_name(),
        DESCRIPTION.join("\n ")
    );
    write(&place.join("control"), fields.as_bytes())?;
    let kept = content.files.iter().filter(|file| file.kind == Kind::Configuration);
    let kept: String = kept.map(|file| format!("/{}\n", file.path)).collect();
    write(&place.join("conffiles"), kept.as_bytes())?;
    let mut scripts: Vec<(&str, String)> = Vec::new();
    for (name, first, file) in SCRIPTS {
        let part = script(first, file)?;
        match scripts.iter_mut().find(|(of, _)| *of == name) {
            Some((_, text)) => *text += &format!("\n{part}"),
            None => scripts.push((name, format!("#!/bin/sh\nset -e\n{part}"))),
        }
    }
    for (name, text) in scripts {
        let path = place.join(name);
        write(&path, text.as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    sums(directory)
}

/// `md5sums`, by which `dpkg --verify` sees a damaged file.
fn sums(directory: &Path) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "find etc usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum"]);
    let output = shell.current_dir(directory).output().context("starting md5sum")?;
    ensure!(output.status.success(), "md5sum failed");
    write(&directory.join("DEBIAN/md5sums"), &output.stdout)
}

fn changelog(version: &str, epoch: &str) -> Result<String> {
    let date =
        printed("date", &["--utc", "--rfc-email", "--date", &format!("@{epoch}")]).context("no date")?;
    Ok(format!(
        "sipguard ({version}) unstable; urgency=medium\n\n  * What changed is in changelog.gz.\n\n -- {MAINTAINER}  {date}"
    ))
}

/// With the text of the MIT licence, which Debian does not install.
fn copyright() -> Result<String> {
    let read = |name: &str| fs::read_to_string(root().join(name)).with_context(|| format!("reading {name}"));
    let licence = read("LICENSE-MIT")?;
    let lines = licence.trim_end().lines();
    let lines: String =
        lines.map(|line| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }).collect();
    let dual = read("deploy/packages/copyright")?;
    Ok(format!(
        "{dual}{lines}\nLicense: MIT or GPL-2\n At your choice. The MIT licence is above. On Debian systems version 2 of the GNU General Public\n \
         License is in /usr/share/common-licenses/GPL-2.\n"
    ))
}
