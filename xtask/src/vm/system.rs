//! A small Debian with systemd on a disk, with sipguard and its units installed as an operator does.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{apt::Apt, initramfs::stripped};
use crate::command::{is_root, root, succeed};

/// What it is made of, with all that these depend on.
const PACKAGES: [&str; 12] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "iproute2",
    "kmod",
    "login",
    "mount",
    "systemd-sysv",
    "udev",
    "util-linux",
];
/// The suite that they come from: its systemd is the oldest that a host with a kernel for sipguard has.
const SUITE: &str = "bookworm";
const UNITS: [&str; 2] = ["sipguard@.service", "sipguard-serve.service"];
/// Bytes of the disk; what is not used takes none.
const DISK_BYTES: u64 = 1 << 30;

/// What the machine has beside its packages, the units and the two programs.
const FILES: [(&str, &str); 4] = [
    ("etc/hostname", "guest\n"),
    ("etc/machine-id", "5349504755415244534950475541524f\n"),
    (
        "etc/systemd/network/eth0.network",
        "[Match]\nName=eth0\n[Network]\nAddress=10.77.0.1/24\nLinkLocalAddressing=no\n",
    ),
    (
        "etc/systemd/system/guest.service",
        "[Service]\nExecStart=/usr/local/sbin/guest system\nStandardError=tty\nTTYPath=/dev/ttyS0\n",
    ),
];
/// Units that are enabled from the start.
const ENABLED: [(&str, &str); 2] =
    [("guest.service", "/etc/systemd/system"), ("systemd-networkd.service", "/lib/systemd/system")];

/// Makes the disk, and returns where it is.
pub fn disk(apt: &Apt, directory: &Path, sipguard: &Path, guest: &Path) -> Result<PathBuf> {
    ensure!(
        is_root(),
        "the disk of a machine with systemd has files of several owners, which takes root: become root"
    );
    let tree = directory.join("system");
    if !tree.join("etc/passwd").exists() {
        unpack(apt, &tree)?;
    }
    for (path, text) in FILES {
        write(&tree.join(path), text.as_bytes())?;
    }
    for (name, program) in [("sipguard", sipguard), ("guest", guest)] {
        let path = tree.join("usr/local/sbin").join(name);
        write(&path, &stripped(program)?)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("making a program executable")?;
    }
    for name in UNITS {
        let unit = root().join("deploy/systemd").join(name);
        let text = fs::read(&unit).with_context(|| format!("reading {}", unit.display()))?;
        write(&tree.join("etc/systemd/system").join(name), &text)?;
    }
    write(&tree.join("etc/sipguard/sipguard.toml"), b"")?;
    let disk = directory.join("system.img");
    let _old = fs::remove_file(&disk);
    let file = fs::File::create(&disk).with_context(|| format!("making {}", disk.display()))?;
    file.set_len(DISK_BYTES).with_context(|| format!("making {}", disk.display()))?;
    succeed(Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&disk))?;
    Ok(disk)
}

fn unpack(apt: &Apt, tree: &Path) -> Result<()> {
    // Debian's directories of old are links, which its packages count on.
    for name in ["bin", "sbin", "lib", "lib64"] {
        let path = tree.join("usr").join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        let link = tree.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(format!("usr/{name}"), &link).with_context(|| format!("making {}", link.display()))?;
        }
    }
    for file in apt.download_all(SUITE, &PACKAGES)? {
        // `dpkg-deb --extract` would put directories in place of the links.
        let mut unpacking =
            Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&file).stdout(Stdio::piped()).spawn()?;
        let content = unpacking.stdout.take().context("no pipe to dpkg-deb")?;
        let mut tar = Command::new("tar");
        succeed(tar.args(["--extract", "--keep-directory-symlink", "--directory"]).arg(tree).stdin(content))?;
        ensure!(unpacking.wait()?.success(), "dpkg-deb does not unpack {}", file.display());
    }
    apt.clean()?;
    for (name, directory) in ENABLED {
        let wanted = tree.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wanted).with_context(|| format!("making {}", wanted.display()))?;
        symlink(format!("{directory}/{name}"), wanted.join(name))
            .with_context(|| format!("enabling {name}"))?;
    }
    // What the packages' scripts would have done. The list of users comes last: with it the tree is whole.
    fs::copy(tree.join("usr/share/base-passwd/group.master"), tree.join("etc/group"))
        .context("making groups")?;
    let users = tree.join("etc/passwd.new");
    fs::copy(tree.join("usr/share/base-passwd/passwd.master"), &users).context("making users")?;
    fs::rename(&users, tree.join("etc/passwd")).context("making users")?;
    succeed(Command::new("systemd-sysusers").arg(format!("--root={}", tree.display())))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
