//! The package on a fresh Debian: installed, upgraded under traffic, refused, removed and purged; that of Red Hat's kin; and the program in an
//! empty directory.
//!
//! `cargo xtask dist --try` runs it, with a copy of a Debian that nothing else uses.

mod host;
mod redhat;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use self::host::Host;
use crate::{
    application::{Server, sip},
    continuity,
    guard::Site,
    message::negative_length,
    netns::{Netns, veth},
    process::output,
};

/// How long it may take from the package to the filter.
const INSTALLATION: Duration = Duration::from_secs(10);
/// How often a version is replaced under traffic, up and down by turns.
const UPGRADES: usize = 6;
/// What a host must not need.
const TOOLCHAIN: [&str; 6] = ["cargo", "rustc", "cc", "gcc", "clang", "bpftool"];

/// What is tried.
#[derive(Debug)]
pub struct Packages {
    /// Directory of a Debian without sipguard. It is changed.
    pub debian: PathBuf,
    /// The package.
    pub first: PathBuf,
    /// The same of a higher version.
    pub newer: PathBuf,
    /// The package of Red Hat's kin.
    pub first_rpm: PathBuf,
    /// The same of the higher version.
    pub newer_rpm: PathBuf,
    /// The program alone.
    pub program: PathBuf,
}

/// Tries all of it, and says what was seen.
///
/// # Errors
/// What was not as it should be.
pub fn run(packages: &Packages) -> Result<()> {
    let (pbx, phone) = (Netns::new("pbx")?, Netns::new("phone")?);
    veth(&pbx, Site::INTERFACE, "10.77.0.1/24", &phone, Site::INTERFACE, "10.77.0.2/24", true)?;
    let address = sip(Site::PBX[0]);
    let server = Server::listen(&pbx, address)?;
    let host = Host::new(&packages.debian, &pbx)?;
    // The kernel has some of its own in each bpffs.
    let (before, pins) = (host.files()?, host.pins()?);
    for name in TOOLCHAIN {
        ensure!(!before.keys().any(|path| path.ends_with(&format!("/bin/{name}"))), "it has a {name}");
    }
    ensure!(!is_filtered(&server, &phone)?, "it is filtered before anything was installed");

    let begin = Instant::now();
    let first = host.copy_in(&packages.first)?;
    host.install(&first)?;
    host.run(&["sipguard", "attach", Site::INTERFACE])?;
    ensure!(is_filtered(&server, &phone)?, "it is not filtered");
    let took = begin.elapsed();
    ensure!(took <= INSTALLATION, "from the package to the filter it took {took:?}");
    println!("install: filtered {:.1} s after `apt-get install` began", took.as_secs_f64());

    // Of a sender that is only malformed: neither bans nor limits may be what stops it.
    host.run(&["sipguard", "bans", "off"])?;
    host.run(&["sipguard", "limit", "clear"])?;
    host.run(&["sipguard", "block", "203.0.113.7"])?;
    let settings = "# what the operator wrote\n";
    host.write("etc/sipguard/sipguard.toml", settings)?;
    let newer = host.copy_in(&packages.newer)?;
    let (there, mut programs) = (sip(Site::PHONE[0]), vec![host.program()?]);
    let traffic = continuity::during(&server, (&pbx, &phone), (address, there), |one_more_attempt| {
        for number in 0..UPGRADES {
            host.install(if number % 2 == 0 { &newer } else { &first })?;
            one_more_attempt()?;
            programs.push(host.program()?);
        }
        Ok(())
    })?;
    programs.dedup();
    ensure!(programs.len() == UPGRADES + 1, "the programs were {programs:?}");
    ensure!(host.run(&["sipguard", "list"])?.contains("203.0.113.7"), "the rule is gone");
    ensure!(host.read("etc/sipguard/sipguard.toml")? == settings, "the settings were replaced");
    println!("upgrade: {UPGRADES} times up and down, no malformed byte read, no call cut: {traffic:?}");

    refused(&host, &packages.newer)?;
    ensure!(is_filtered(&server, &phone)?, "a refused upgrade has taken the filter off");
    println!("refused upgrade: the former programs filter on, the package is installed");
    host.install(&newer)?;

    host.run(&["apt-get", "-qq", "remove", "--yes", "sipguard"])?;
    ensure!(!is_filtered(&server, &phone)?, "it is filtered without a program");
    ensure!(host.read("etc/sipguard/sipguard.toml")? == settings, "the settings are gone with the program");
    ensure!(host.read("var/lib/sipguard/sipguard.db").is_ok(), "the rules are gone with the program");
    println!("remove: the filter is off, settings and rules are there");
    let wanted = "etc/systemd/system/multi-user.target.wants";
    fs::create_dir_all(host.path(wanted))?;
    std::os::unix::fs::symlink(
        "/usr/lib/systemd/system/sipguard@.service",
        host.path(wanted).join("sipguard@eth0.service"),
    )?;
    host.run(&["apt-get", "-qq", "purge", "--yes", "sipguard"])?;
    host.remove_packages()?;
    let after = host.files()?;
    let differ =
        before.iter().filter(|(path, content)| after.get(*path) != Some(*content)).map(|(path, _)| path);
    let differ: Vec<&String> =
        differ.chain(after.keys().filter(|path| !before.contains_key(*path))).collect();
    ensure!(differ.is_empty(), "left, changed or missing after the purge: {differ:?}");
    ensure!(host.pins()? == pins, "pins are left: {:?}", host.pins()?);
    println!("purge: each of {} files is as before the installation, and no pin is left", before.len());

    redhat::run(packages, &host, (&server, &pbx, &phone), &|| is_filtered(&server, &phone))?;
    drop(host);

    alone(packages, &pbx, || is_filtered(&server, &phone))
}

/// Whether a malformed message is kept from the application.
fn is_filtered(server: &Server, phone: &Netns) -> Result<bool> {
    let (caller, application) = server.connect(phone)?;
    let bad = negative_length().bytes;
    caller.offer(&bad)?;
    let mut got = 0;
    crate::application::wait_until("its bytes or its end", || {
        got = application.bytes().len();
        Ok(got >= bad.len() || application.end().is_some())
    })?;
    Ok(got == 0)
}

/// Installs a package whose program does not replace what filters.
fn refused(host: &Host, package: &Path) -> Result<()> {
    let tree = host.path("tmp/refusing");
    output(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&tree))?;
    let program = tree.join("usr/sbin/sipguard");
    fs::rename(&program, tree.join("usr/sbin/sipguard-real"))?;
    let script = "#!/bin/sh\n[ \"$1\" != upgrade ] || { echo 'the kernel refuses it' >&2; exit 5; }\n\
                  exec /usr/sbin/sipguard-real \"$@\"\n";
    fs::write(&program, script)?;
    output(Command::new("chmod").arg("755").arg(&program))?;
    let control = tree.join("DEBIAN/control");
    let fields = fs::read_to_string(&control)?;
    let version = fields.lines().find(|line| line.starts_with("Version: ")).context("no version")?;
    fs::write(&control, fields.replace(version, &format!("{version}+refusing")))?;
    output(Command::new("dpkg-deb").arg("--build").arg(&tree).arg(host.path("tmp/refusing.deb")))?;
    fs::remove_dir_all(&tree)?;
    let before = host.program()?;
    host.install("/tmp/refusing.deb")?;
    let state = host.run(&["dpkg-query", "--show", "--showformat=${Status} ${Version}", "sipguard"])?;
    ensure!(state.starts_with("install ok installed") && state.ends_with("+refusing"), "it is {state}");
    ensure!(host.program()? == before, "the program was replaced");
    Ok(())
}

/// The program in a directory with nothing else.
fn alone(packages: &Packages, pbx: &Netns, is_filtered: impl Fn() -> Result<bool>) -> Result<()> {
    let root = packages.debian.with_file_name("empty");
    let _none = fs::remove_dir_all(&root);
    fs::create_dir_all(&root)?;
    fs::copy(&packages.program, root.join("sipguard"))?;
    let host = Host::new(&root, pbx)?;
    host.run(&["/sipguard", "attach", Site::INTERFACE])?;
    ensure!(is_filtered()?, "the program in an empty directory does not filter");
    host.run(&["/sipguard", "detach", "--all"])?;
    ensure!(!is_filtered()?, "it filters on");
    drop(host);
    println!("empty root: the program alone attaches, filters and detaches");
    fs::remove_dir_all(&root).context("removing the empty root")
}
