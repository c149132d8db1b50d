//! The package of Rocky, Alma and Red Hat, by `rpmbuild`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{
    Release,
    architecture::Architecture,
    content::{Content, Kind, script},
    deb::{DESCRIPTION, SUMMARY},
    empty, packed, write,
};
use crate::command::root;

/// Completion of zsh.
const ZSH: &str = "usr/share/zsh/site-functions/_sipguard";
/// Scripts: the section, what its argument means (how many versions are installed afterwards), and the file.
const SCRIPTS: [(&str, &str, &str); 3] = [
    ("%post", "former=; [ \"$1\" -le 1 ] || former=yes", "installed.sh"),
    ("%preun", "[ \"$1\" = 0 ] || exit 0", "removing.sh"),
    ("%postun", "", "removed.sh"),
];

/// What makes it the same everywhere: no name and no time of the machine, and files as they are.
const SAME: [&str; 8] = [
    "_buildhost localhost",
    "use_source_date_epoch_as_buildtime 1",
    "clamp_mtime_to_source_date_epoch 1",
    "source_date_epoch_from_changelog 0",
    "debug_package %{nil}",
    "_build_id_links none",
    "__os_install_post %{nil}",
    // Which every rpm since RHEL 8 reads.
    "_binary_payload w6.xzdio",
];

/// The name of its file.
pub fn name(release: &Release, architecture: Architecture) -> String {
    format!("sipguard-{}-1.{}.rpm", version(release), architecture.rust_name())
}

/// As rpm takes it, for which `-` is the begin of the release.
fn version(release: &Release) -> String {
    release.version.replace('-', "~")
}

/// Packs it into `out`.
pub fn pack(release: &Release, architecture: Architecture, content: &Content, out: &Path) -> Result<()> {
    let name = architecture.rust_name();
    let top = empty(&release.directory.join(format!("rpm-{name}")))?;
    let tree = top.join("tree");
    content.lay(&tree, ZSH)?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL-2.0"] {
        let text = fs::read(root().join(licence)).with_context(|| format!("reading {licence}"))?;
        write(&tree.join("usr/share/licenses/sipguard").join(licence), &text)?;
    }
    let spec = top.join("sipguard.spec");
    write(&spec, specification(release, content)?.as_bytes())?;
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--quiet", "--target", &format!("{name}-linux")]);
    let define = |rpmbuild: &mut Command, text: &str| {
        rpmbuild.args(["--define", text]);
    };
    SAME.iter().for_each(|text| define(&mut rpmbuild, text));
    define(&mut rpmbuild, &format!("_topdir {}", top.display()));
    define(&mut rpmbuild, &format!("_rpmdir {}", out.display()));
    define(&mut rpmbuild, "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm");
    // The files are copied from beside: rpmbuild empties its own directory, whose name is in nothing.
    define(&mut rpmbuild, &format!("tree {}", tree.display()));
    packed(rpmbuild.arg(&spec), &release.epoch)
}

fn specification(release: &Release, content: &Content) -> Result<String> {
    let mut text = format!(
        "Name: sipguard\nVersion: {}\nRelease: 1\nSummary: {}\nLicense: MIT OR Apache-2.0\n\
         AutoReqProv: no\n\n%description\n{}\n\n%install\nmkdir -p %{{buildroot}}\ncp -a %{{tree}}/. %{{buildroot}}/\n\n",
        version(release),
        capital(SUMMARY),
        DESCRIPTION.join("\n")
    );
    for (section, first, file) in SCRIPTS {
        text += &format!("{section}\n{}\n", script(first, file)?);
    }
    text +=
        "%files\n%license /usr/share/licenses/sipguard\n%dir /etc/sipguard\n%dir /usr/share/doc/sipguard\n";
    text += &format!("/{ZSH}\n");
    for file in &content.files {
        let mark = match file.kind {
            Kind::Plain => "",
            Kind::Configuration => "%config(noreplace) ",
            Kind::Document => "%doc ",
        };
        text += &format!("{mark}/{}\n", file.path);
    }
    Ok(text)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
