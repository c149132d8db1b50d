//! Where events go: a log, evidence and Homer know the same of an event, and a part that fails disturbs no other.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::{
    application::{PATIENCE, udp, uninterrupted, wait_until},
    guard::{Site, text},
    message::negative_length,
    process::output,
    scratch::Scratch,
    service::Service,
};

use super::{control_byte, send};

fn lines(path: &std::path::Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn an_event_gets_everywhere() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("sinks")?);
    let homer = site.pbx.enter(|| UdpSocket::bind("127.0.0.1:9060"))??;
    homer.set_read_timeout(Some(PATIENCE))?;
    let (log, evidence) = (scratch.join("events.json"), scratch.join("evidence"));
    let config = format!(
        "[serve]\njournal = false\nlog = \"{}\"\nevidence = \"{}\"\nfree = \"64K\"\nhomer = \"127.0.0.1:9060\"\nhomer-id = 7\n",
        log.display(),
        evidence.display()
    );
    let config = scratch.write("sipguard.toml", &config)?;
    let service = Service::start(&site, &scratch, &[("SIPGUARD_CONFIG", &config.to_string_lossy())])?;
    site.guard.run(&["block", "10.77.0.2:5999", "--comment", "errant"])?.expect(0)?;
    let bad = control_byte();
    send(&site, &bad, 3)?;
    let phone = udp(&site.phone, (Site::PHONE[0], 5999))?;
    site.phone.enter(|| phone.send_to(b"OPTIONS sip:a SIP/2.0\r\n\r\n", "10.77.0.1:5060"))??;
    wait_until("two events are in the log", || Ok(lines(&log)?.len() == 2))?;

    let told = lines(&log)?;
    let (first, second) = (&told[0], &told[1]);
    ensure!(
        first["sipguard"]["reason"] == "control-byte" && second["sipguard"]["reason"] == "blocked-device",
        "{told:#?}"
    );
    ensure!(first["sipguard"]["rule"].is_null(), "{first}");
    ensure!(text(&second["sipguard"], "rule")?.contains("errant"), "{second}");
    for event in [first, second] {
        let file = text(&event["sipguard"], "evidence")?;
        let comments = output(
            Command::new("tshark")
                .args(["-T", "fields", "-e", "frame.comment", "-r"])
                .arg(evidence.join(&file)),
        )?;
        ensure!(comments.lines().count() == 2, "{comments}");
        ensure!(comments.contains("control-byte") && comments.contains("errant"), "{comments}");
    }
    for message in [&bad[..], b"OPTIONS sip:a SIP/2.0\r\n\r\n"] {
        let mut bytes = [0; 4096];
        let len = uninterrupted(|| homer.recv(&mut bytes)).context("Homer gets nothing")?;
        let hep = &bytes[..len];
        ensure!(hep.starts_with(b"HEP3") && hep.ends_with(message), "{}", hep.escape_ascii());
        ensure!(hep.windows(10).any(|chunk| chunk == [0, 0, 0, 12, 0, 10, 0, 0, 0, 7]), "not as number 7");
    }
    // It may be looked at here as well, with the rule.
    let shown = service.json("/api/events")?;
    ensure!(shown["rows"][0]["rule"] == second["sipguard"]["rule"], "{shown}");
    Ok(())
}

#[test]
fn what_fails_is_named_and_the_rest_goes_on() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("sinks")?);
    let (log, evidence) = (scratch.join("events.json"), scratch.join("evidence"));
    // A file stands where the directory should be.
    std::fs::write(&evidence, b"")?;
    let config = format!(
        "[serve]\njournal = false\nlog = \"{}\"\nevidence = \"{}\"\nfree = \"64K\"\nhomer = \"127.0.0.1:9060\"\n",
        log.display(),
        evidence.display()
    );
    let config = scratch.write("sipguard.toml", &config)?;
    let service = Service::start(&site, &scratch, &[("SIPGUARD_CONFIG", &config.to_string_lossy())])?;
    send(&site, &control_byte(), 1)?;
    wait_until("an event is in the log", || Ok(lines(&log)?.len() == 1))?;
    ensure!(lines(&log)?[0]["sipguard"]["evidence"].is_null(), "{:?}", lines(&log)?);
    let metrics = service.get("/metrics")?.body;
    ensure!(metrics.contains("sipguard_serve_failing{part=\"evidence\"} 1"), "{metrics}");
    ensure!(metrics.contains("sipguard_serve_failing{part=\"log of events\"} 0"), "{metrics}");
    ensure!(service.said()?.matches("evidence fails").count() == 1, "{}", service.said()?);
    // Once there is room for it, it is there.
    std::fs::remove_file(&evidence)?;
    send(&site, &negative_length().bytes, 1)?;
    std::thread::sleep(Duration::from_secs(6));
    site.guard.run(&["block", "10.77.0.2"])?.expect(0)?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    site.phone.enter(|| phone.send_to(b"x", "10.77.0.1:5060"))??;
    wait_until("there is evidence", || {
        Ok(lines(&log)?.last().is_some_and(|event| event["sipguard"]["evidence"].is_string()))
    })?;
    Ok(())
}
