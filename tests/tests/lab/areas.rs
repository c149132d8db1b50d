//! Countries and AS numbers, as a MaxMind DB file has them.

use std::{net::UdpSocket, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use libmaxminddb_rs::{MetadataBuilder, Writer};
use serde_json::{Value, json};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{sip, udp, wait_until},
    guard::{Guard, Site},
    message::register,
    rules::{consistent, listed},
    scratch::Scratch,
};

/// Writes a file of both families.
fn database(scratch: &Scratch, name: &str, kind: &str, rows: &[(&str, Value)]) -> Result<PathBuf> {
    let about =
        MetadataBuilder::new().ip_version(6).database_type(kind).build_epoch(1_500_000_000).build()?;
    let mut writer = Writer::with_metadata(about);
    for (network, value) in rows {
        writer.insert(network.parse()?, value)?;
    }
    let path = scratch.join(name);
    std::fs::write(&path, writer.finish()?)?;
    Ok(path)
}

fn block(guard: &Guard, words: &[&str], file: &std::path::Path, status: i32) -> Result<String> {
    let file = file.to_string_lossy();
    let output = guard.run(&[&["block"], words, &["--mmdb", &file]].concat())?.expect(status)?;
    Ok(output.stdout + &output.stderr)
}

#[test]
fn a_country_is_blocked_as_the_file_has_it_and_trunks_win() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("areas")?);
    let guard = &site.guard;
    let of = |code: &str| json!({"country": {"iso_code": code}});
    let rows = [
        ("10.77.0.2/32", of("DE")),
        ("198.51.100.0/25", of("DE")),
        ("198.51.100.128/25", of("DE")),
        ("2001:db8::/32", of("DE")),
        ("203.0.113.0/24", of("FR")),
        // The PBX itself is in it.
        ("10.77.0.0/31", of("DE")),
    ];
    let file = database(&scratch, "GeoLite2-Country.mmdb", "GeoLite2-Country", &rows)?;
    let (pbx, phone) =
        (udp(&site.pbx, sip(Site::PBX[0]))?, site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??);
    pbx.set_nonblocking(true)?;
    let send = || site.phone.enter(|| phone.send_to(&register(1), sip(Site::PBX[0])));
    let arrives = || wait_until("it arrives", || Ok(pbx.recv(&mut [0; 4096]).is_ok()));
    send()??;
    arrives()?;

    let said = block(guard, &["--country", "de,FR"], &file, 0)?;
    for part in [
        "added 4 rules",
        "10.77.0.0/31 is this machine's own address (10.77.0.1) and was skipped",
        "(messages: 1, sources: 1)",
        "was made ",
    ] {
        ensure!(said.contains(part), "no {part:?} in {said}");
    }
    let rules = [
        "10.77.0.2 country:DE",
        "198.51.100.0/24 country:DE",
        "203.0.113.0/24 country:FR",
        "2001:db8::/32 country:DE",
    ];
    ensure!(listed(guard)? == rules && consistent(guard)? == 4, "{:?}", listed(guard)?);
    send()??;
    wait_until("it is dropped", || Ok(guard.counted(Reason::BlockedHost)? == 1))?;
    ensure!(pbx.recv(&mut [0; 4096]).is_err(), "a blocked country reached the PBX");

    // Whoever is a trunk's peer is asked for nothing else.
    guard.run(&["trunk", "add", "carrier", "--peer", "10.77.0.2"])?.expect(0)?;
    send()??;
    arrives()?;

    // What a newer file says is what holds; other countries stay.
    let newer = database(&scratch, "newer.mmdb", "GeoLite2-Country", &[("192.0.2.0/24", of("DE"))])?;
    let said = block(guard, &["--country", "DE"], &newer, 0)?;
    ensure!(said.contains("added 1 rule") && said.contains("lifted 3 rules"), "{said}");
    ensure!(
        listed(guard)? == ["192.0.2.0/24 country:DE", "203.0.113.0/24 country:FR"],
        "{:?}",
        listed(guard)?
    );
    guard.run(&["unblock", "--all", "--origin", "country:FR"])?.expect(0)?;
    ensure!(listed(guard)? == ["192.0.2.0/24 country:DE"], "{:?}", listed(guard)?);
    let log = guard.rows(&["log"])?;
    ensure!(
        log.iter().any(|row| row["verb"] == "block" && row["origin"] == "country:DE country:FR"),
        "{log:#?}"
    );
    Ok(())
}

#[test]
fn an_as_number_is_blocked_and_mistakes_change_nothing() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("areas")?);
    let guard = &site.guard;
    let rows = [("198.51.100.0/24", json!({"autonomous_system_number": 64496}))];
    let file = database(&scratch, "asn.mmdb", "GeoLite2-ASN", &rows)?;
    block(guard, &["--asn", "AS64496", "--monitor", "--for", "1h", "--comment", "hosting"], &file, 0)?;
    let row = guard.rules()?.pop().context("no rule")?;
    ensure!(
        row["origin"] == "as:64496"
            && row["mode"] == "monitor"
            && row["comment"] == "hosting"
            && !row["expires_at"].is_null(),
        "{row:#}"
    );
    let text = scratch.write("text.mmdb", "no database")?;
    for (words, file, wanted) in [
        (&["--asn", "64497"][..], &file, "(GeoLite2-ASN) has no network of AS64497: nothing was blocked"),
        (&["--country", "DE"], &file, "(GeoLite2-ASN) tells no countries: nothing was blocked"),
        (&["--asn", "64496"], &text, "can't be read as a MaxMind DB file"),
        (&[], &file, "goes with `--country` or `--asn`"),
        (&["--country", "Germany"], &file, "two letters are wanted"),
        (&["--country", "DE", "192.0.2.7"], &file, "cannot be used with"),
        (&["--country", "DE", "--force"], &file, "cannot be used with"),
        (&["--country", "DE", "--origin", "me"], &file, "cannot be used with"),
    ] {
        let said = block(guard, words, file, 2)?;
        ensure!(said.contains(wanted), "{words:?}: {said}");
    }
    let missing = block(guard, &["--asn", "1"], &scratch.join("none.mmdb"), 1)?;
    ensure!(missing.contains("none.mmdb: No such file"), "{missing}");
    ensure!(listed(guard)? == ["198.51.100.0/24 as:64496"], "{:?}", listed(guard)?);
    ensure!(guard.run(&["block", "--country", "DE"])?.expect(2)?.stderr.contains("--mmdb <FILE>"), "no file");
    Ok(())
}
