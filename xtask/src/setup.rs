//! `setup`: installs what is missing, says what it did, and does nothing twice.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Usage,
    command::{as_root, cargo, is_program, printed, search_path, succeed},
    machine::{Component, LINKER, Missing, Purpose},
};

const BY_HAND: &str = "Debian 12 with its security updates has all packages; on another system install \
    bpf-linker 0.13.0, the programs of the tests, and for the XDP program \
    `rustup toolchain install nightly --component rust-src` by hand";

/// `setup [--for build|test|bench|lint|fuzz|vm|dist]`.
pub fn run(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let purpose = match words[..] {
        [] => Purpose::Everything,
        ["--for", "build"] => Purpose::Build,
        ["--for", "test"] => Purpose::Test,
        ["--for", "bench"] => Purpose::Bench,
        ["--for", "lint"] => Purpose::Lint,
        ["--for", "fuzz"] => Purpose::Fuzz,
        ["--for", "vm"] => Purpose::Vm,
        ["--for", "dist"] => Purpose::Dist,
        _ => return Err(Usage::arguments("setup", args)),
    };
    println!("setup: {}", if ready(purpose)? { "done" } else { "nothing to do" });
    Ok(())
}

/// Makes the machine ready; whether anything had to be installed.
pub fn ready(purpose: Purpose) -> Result<bool> {
    let missing = Missing::here(purpose);
    if missing.is_empty() {
        return Ok(false);
    }
    println!("setup: missing: {missing}");
    if !missing.packages.is_empty() {
        install_packages(&missing.packages)?;
    }
    if missing.linker {
        install_linker()?;
    }
    for component in missing.components {
        install_component(component)?;
    }
    let left = Missing::here(purpose);
    ensure!(left.is_empty(), "everything was installed and yet this is missing: {left}; {BY_HAND}");
    Ok(true)
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let what = format!("installing the packages {names}");
    ensure!(is_program("apt-get"), "{what} needs apt-get, which is missing: {BY_HAND}");
    succeed(apt(&what)?.args(["-qq", "update"]))
        .context("updating the package lists (see to the network and to the sources of apt)")?;

    let offered = printed("apt-cache", &[&["show"], packages].concat()).unwrap_or_default();
    let unknown = not_offered(packages, &offered);
    ensure!(unknown.is_empty(), "apt offers no package {}: {BY_HAND}", unknown.join(", "));

    for package in ["crowdsec", "fail2ban", "haproxy", "kamailio", "prometheus"] {
        if packages.contains(&package) && is_program("systemctl") {
            keep_stopped(package, &what)?;
        }
    }
    if packages.contains(&"crowdsec") {
        keep_offline(&what)?;
    }
    succeed(apt(&what)?.args(["-qq", "install", "--yes", "--no-install-recommends"]).args(packages))
        .with_context(|| what.clone())?;
    println!("setup: installed the packages {names}");
    Ok(())
}

/// The tests start servers themselves, in namespaces of theirs. Their packages would enable and start one of the whole
/// machine; `RUNLEVEL` in apt's environment, which holds back init scripts, does not hold back systemd units.
fn keep_stopped(package: &str, what: &str) -> Result<()> {
    let unit = format!("{package}.service");
    succeed(as_root(Path::new("systemctl"), what)?.args(["--quiet", "mask", &unit]))?;
    println!("setup: masked {unit}, so that it never starts by itself (`systemctl unmask` undoes it)");
    Ok(())
}

/// CrowdSec's package registers the machine with the company's server, unless there are credentials already.
fn keep_offline(what: &str) -> Result<()> {
    const CREDENTIALS: &str = "/etc/crowdsec/online_api_credentials.yaml";
    if Path::new(CREDENTIALS).exists() {
        return Ok(());
    }
    let write = format!("mkdir -p /etc/crowdsec && echo '# not registered' > {CREDENTIALS}");
    succeed(as_root(Path::new("sh"), what)?.args(["-c", &write]))?;
    println!("setup: wrote {CREDENTIALS}, so that nothing is told to CrowdSec's server");
    Ok(())
}

fn install_linker() -> Result<()> {
    let mut command =
        cargo(&["install", "--quiet", "--locked", "--force", "bpf-linker", "--version", LINKER]);
    // Built where cargo builds what it installs, not among the programs of the workspace.
    command.env_remove("CARGO_TARGET_DIR").env("LLVM_PREFIX", "/usr/lib/llvm-22");
    succeed(&mut command)?;
    println!("setup: installed bpf-linker {LINKER}");
    Ok(())
}

fn install_component(component: Component) -> Result<()> {
    let words = component.rustup().join(" ");
    if !is_program("rustup") {
        bail!("rustup is missing, so `rustup component add {words}` is up to you: install rustup, or them");
    }
    let mut command = Command::new("rustup");
    succeed(command.args(["component", "add"]).args(component.rustup()).env("PATH", search_path(None)))?;
    println!("setup: installed rustup's {words}");
    Ok(())
}

fn apt(what: &str) -> Result<Command> {
    // Through `env`, because sudo hands on no variables.
    let mut command = as_root(Path::new("env"), what)?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--option=DPkg::Lock::Timeout=300"]);
    command.arg("--option=Dpkg::Use-Pty=0");
    command.stdin(Stdio::null());
    Ok(command)
}

/// The packages that `apt-cache show` had nothing to say about.
fn not_offered<'a>(packages: &[&'a str], offered: &str) -> Vec<&'a str> {
    let known = |name: &str| offered.lines().any(|line| line.strip_prefix("Package: ") == Some(name));
    packages.iter().copied().filter(|name| !known(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_apt_does_not_offer_is_named() {
        let offered = "Package: gcc\nVersion: 1\nDepends: cpp\n\nPackage: ethtool\n";
        assert_eq!(not_offered(&["gcc", "cpp", "ethtool", "eth"], offered), ["cpp", "eth"]);
    }
}
