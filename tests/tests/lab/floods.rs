//! Who floods below every limit: named by the views, though nothing is stopped.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::{
    application::{sip, udp},
    guard::Site,
    message::{OPTIONS, register},
    scratch::Scratch,
    service::Service,
};

/// The first row that a view has.
fn first(rows: &Value) -> Result<Value> {
    rows.as_array().and_then(|rows| rows.first()).cloned().with_context(|| format!("no row in {rows}"))
}

#[test]
fn a_flood_below_every_limit_is_in_the_first_row_within_ten_seconds() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("floods")?);
    site.phone.add_address(Site::INTERFACE, "10.77.0.3/24")?;
    site.phone.add_address(Site::INTERFACE, "10.77.0.4/24")?;
    let (guard, to) = (&site.guard, sip(Site::PBX[0]));
    guard.run(&["trunk", "add", "carrier", "--peer", "10.77.0.4"])?.expect(0)?;
    let service = Service::start(&site, &scratch, &[])?;
    let _pbx = udp(&site.pbx, to)?;
    let send = |from: &str, bytes: &[u8]| -> Result<()> {
        let socket = site.phone.enter(|| UdpSocket::bind((from, 0)))??;
        site.phone.enter(|| socket.send_to(bytes, to))??;
        Ok(())
    };
    // An office that is busy and a trunk, first.
    for _ in 0..20 {
        send("10.77.0.3", OPTIONS)?;
        send("10.77.0.4", OPTIONS)?;
    }
    let begin = Instant::now();
    let mut sent = 0u64;
    let top = loop {
        // 60 a second, each from another port.
        send("10.77.0.2", &register(sent as usize))?;
        sent += 1;
        std::thread::sleep(Duration::from_micros(16_600));
        if sent.is_multiple_of(60) {
            let top = guard.json(&["top", "--once", "--delay", "100ms"])?;
            if first(&top["senders"])?["source"] == "10.77.0.2" {
                break top;
            }
        }
        ensure!(begin.elapsed() < Duration::from_secs(30), "it is in no first row");
    };
    println!("in the first row of `top` after {:.1} s and {sent} REGISTER", begin.elapsed().as_secs_f64());
    let row = first(&top["senders"])?;
    ensure!(row["last_10_seconds"]["register"] == sent && row["total"]["messages"] == sent, "{sent}: {row}");
    let by = guard.rows(&["counters", "--by", "source", "--of", "register"])?;
    ensure!(by[0]["source"] == "10.77.0.2" && by[0]["total"]["register"] == sent, "{by:?}");
    ensure!(by.len() == 3, "the office and the trunk are there as well: {by:?}");
    let trunk = by.iter().find(|row| row["trunk"] == "carrier").context("no trunk")?;
    ensure!(trunk["last_10_seconds"]["messages"] == 20 && trunk["source"].is_null(), "{trunk}");
    ensure!(first(&service.json("/api/senders")?["rows"])?["source"] == "10.77.0.2", "the service");
    let metrics = service.get("/metrics")?.body;
    ensure!(!metrics.contains("10.77.0.2"), "an address is a label");
    let refused = guard.run(&["counters", "--of", "register"])?.expect(2)?;
    ensure!(refused.stderr.contains("`--of` goes with `--by source`"), "{}", refused.stderr);
    guard.expect_nothing_stopped()
}
