//! The package of Red Hat's kin by the `rpm` of this machine, into the Debian of the trial, which has what its scripts call: installed,
//! upgraded and downgraded under traffic, and erased.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Packages, host::Host};
use crate::{
    application::{Server, sip},
    continuity,
    guard::Site,
    netns::Netns,
};

/// How often a version is replaced under traffic, up and down by turns.
const UPGRADES: usize = 4;
const SETTINGS: &str = "etc/sipguard/sipguard.toml";

/// Tries it, and says what was seen.
pub fn run(
    packages: &Packages,
    host: &Host,
    (server, pbx, phone): (&Server, &Netns, &Netns),
    is_filtered: &dyn Fn() -> Result<bool>,
) -> Result<()> {
    // What it would ask for is the shell, which no database of rpm knows of here.
    let install = |package: &Path| {
        host.rpm(&["--upgrade", "--nodeps", "--oldpackage", &package.to_string_lossy()]).map(drop)
    };
    let pins = host.pins()?;
    install(&packages.first_rpm)?;
    ensure!(host.rpm(&["--verify", "--nodeps", "sipguard"])?.is_empty(), "it is not as it was packed");
    host.run(&["sipguard", "attach", Site::INTERFACE])?;
    ensure!(is_filtered()?, "it is not filtered");
    host.run(&["sipguard", "bans", "off"])?;
    host.run(&["sipguard", "limit", "clear"])?;
    host.run(&["sipguard", "block", "203.0.113.7"])?;
    let settings = "# what the operator wrote\n";
    host.write(SETTINGS, settings)?;
    let mut programs = vec![host.program()?];
    let addresses = (sip(Site::PBX[0]), sip(Site::PHONE[0]));
    let traffic = continuity::during(server, (pbx, phone), addresses, |one_more_attempt| {
        for number in 0..UPGRADES {
            install(if number % 2 == 0 { &packages.newer_rpm } else { &packages.first_rpm })?;
            one_more_attempt()?;
            programs.push(host.program()?);
        }
        Ok(())
    })?;
    programs.dedup();
    ensure!(programs.len() == UPGRADES + 1, "the programs were {programs:?}");
    ensure!(host.run(&["sipguard", "list"])?.contains("203.0.113.7"), "the rule is gone");
    ensure!(host.read(SETTINGS)? == settings, "the settings were replaced");
    println!("rpm: {UPGRADES} times up and down, no malformed byte read, no call cut: {traffic:?}");

    host.rpm(&["--erase", "sipguard"])?;
    ensure!(!is_filtered()?, "it is filtered without a program");
    ensure!(host.pins()? == pins, "pins are left: {:?}", host.pins()?);
    ensure!(!host.path("usr/sbin/sipguard").exists(), "the program is there still");
    ensure!(host.read(&format!("{SETTINGS}.rpmsave"))? == settings, "the settings are gone with the program");
    ensure!(host.read("var/lib/sipguard/sipguard.db").is_ok(), "the rules are gone with the program");
    println!("rpm erased: the filter is off, no pin is left, settings (as `.rpmsave`) and rules are there");
    Ok(())
}
