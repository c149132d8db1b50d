//! A scanner that says what it is.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{PATIENCE, sip, wait_until},
    dial::SOON,
    guard::Site,
    kamailio::{Complaints, Kamailio},
    process::output,
    question::Question,
    scratch::Scratch,
    sipp::Transport,
    user_agent::is_installed,
};

use super::{banned, run};

const SCANNER: &str = "friendly-scanner";
const PHONE: &str = "DeskPhone/3.2";
/// Another address of the phone's machine.
const THIRD: &str = "10.77.0.3";

/// Every address over every transport: from where, whom, over what.
fn ways() -> Result<Vec<Question>> {
    let [v4, v6] = Site::PHONE;
    let third: IpAddr = THIRD.parse()?;
    let pbx = |from: IpAddr| sip(Site::PBX[usize::from(from.is_ipv6())]);
    let ways = [v4, third, v6].into_iter().flat_map(|from| {
        [Transport::Udp, Transport::Tcp].map(|transport| Question::new(transport, from, pbx(from), SCANNER))
    });
    Ok(ways.collect())
}

/// SIPVicious itself, which knows UDP alone; whether it finds the PBX.
fn svmap_finds(site: &Site) -> Result<bool> {
    let home = Scratch::new("svmap")?;
    let mut svmap = site.phone.command("svmap");
    let [pbx, _] = Site::PBX;
    svmap.current_dir(home.path()).env("HOME", home.path()).arg(pbx.to_string());
    Ok(output(&mut svmap)?.contains(&sip(pbx).to_string()))
}

#[test]
fn a_scanner_is_stopped_from_any_address_over_any_transport() -> Result<()> {
    let site = Site::new(true)?;
    site.phone.add_address(Site::INTERFACE, &format!("{THIRD}/24"))?;
    site.guard.attach(&[Site::INTERFACE])?;
    let kamailio = Kamailio::start(&site.pbx, &["10.77.0.1", "fd77::1"], None)?;
    let guard = &site.guard;
    run(guard, &format!("block --user-agent {SCANNER}"))?;
    for scanner in ways()? {
        ensure!(!scanner.is_answered(&site.phone, SOON)?, "answered: {scanner:?}");
        let phone = Question { user_agent: PHONE.to_owned(), ..scanner };
        ensure!(phone.is_answered(&site.phone, PATIENCE)?, "not answered: {phone:?}");
    }
    let stopped = |action: &str| -> Result<u64> {
        let rows = guard.counter_rows()?;
        let rows =
            rows.iter().filter(|row| row.reason == Reason::BlockedUserAgent.name() && row.action == action);
        Ok(rows.map(|row| row.packets).sum())
    };
    wait_until("all are counted", || Ok(stopped("drop")? + stopped("reset")? >= 6))?;
    let svmap = is_installed("svmap", "sipvicious");
    ensure!(!svmap || !svmap_finds(&site)?, "svmap finds the PBX");
    println!(
        "scanner: stopped {} requests and connections of {SCANNER} from 3 addresses (svmap among them: {svmap})",
        guard.counted(Reason::BlockedUserAgent)?
    );
    let (scanner, phone) = (kamailio.requests_from(SCANNER)?, kamailio.requests_from(PHONE)?);
    println!("scanner: Kamailio read {scanner} requests of {SCANNER}, {phone} of {PHONE}");
    ensure!(scanner == 0 && phone == 6, "Kamailio read {scanner} and {phone}");
    ensure!(banned(guard)?.is_empty(), "banned: {:?}", banned(guard)?);
    // Without the rule all of it comes through.
    run(guard, &format!("unblock --user-agent {SCANNER}"))?;
    for scanner in ways()? {
        ensure!(scanner.is_answered(&site.phone, PATIENCE)?, "not answered: {scanner:?}");
    }
    ensure!(!svmap || svmap_finds(&site)?, "svmap finds no PBX");
    ensure!(kamailio.requests_from(SCANNER)? == 6 + usize::from(svmap), "Kamailio did not read them");
    let complaints = kamailio.complaints()?;
    ensure!(complaints == Complaints::default(), "Kamailio complains: {complaints:?}");
    Ok(())
}
