//! Who floods below every limit: named by the views, though nothing is stopped.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::{
    application::{sip, udp, wait_until},
    guard::{Guard, Site, number},
    message::{OPTIONS, register},
    scratch::Scratch,
    service::Service,
};

use crate::top::pty::Pty;

/// What the flood sends in the ten seconds after which every view has it first: 60 a second.
const FLOOD: u64 = 600;
const EACH: Duration = Duration::from_micros(16_667);

/// The first row that a view has.
fn first(rows: &Value) -> Result<Value> {
    rows.as_array().and_then(|rows| rows.first()).cloned().with_context(|| format!("no row in {rows}"))
}

/// The words of the first row below the heads of the pane that a screen shows; none before there is a row.
fn first_on(shown: &str) -> Vec<&str> {
    let mut lines = shown.lines().skip_while(|line| !line.contains("MESSAGES/10S")).skip(1);
    lines.next().unwrap_or_default().split_whitespace().collect()
}

/// Waits until the kernel has tallied so many REGISTER of the flood.
fn wait_until_tallied(guard: &Guard, count: u64) -> Result<()> {
    wait_until(&format!("{count} REGISTER are tallied"), || {
        let rows = guard.rows(&["counters", "--by", "source", "--of", "register"])?;
        let flood = rows.iter().find(|row| row["source"] == "10.77.0.2").context("nothing of it")?;
        Ok(number(&flood["total"], "register")? == count)
    })
}

#[test]
fn a_flood_below_every_limit_is_in_the_first_row_when_ten_seconds_of_it_have_come() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("floods")?);
    for host in 3..=5 {
        site.phone.add_address(Site::INTERFACE, &format!("10.77.0.{host}/24"))?;
    }
    let (guard, to) = (&site.guard, sip(Site::PBX[0]));
    guard.run(&["trunk", "add", "carrier", "--peer", "10.77.0.4"])?.expect(0)?;
    let service = Service::start(&site, &scratch, &[])?;
    let _pbx = udp(&site.pbx, to)?;
    let send = |from: &str, bytes: &[u8]| -> Result<()> {
        // Each from another port.
        let socket = site.phone.enter(|| UdpSocket::bind((from, 0)))??;
        site.phone.enter(|| socket.send_to(bytes, to))??;
        Ok(())
    };
    // An office whose phones came back at once, and two senders who go on beside the flood at three quarters of its pace.
    for phone in 0..400 {
        send("10.77.0.5", &register(phone))?;
    }
    for _ in 0..100 {
        send("10.77.0.3", OPTIONS)?;
        send("10.77.0.4", OPTIONS)?;
    }
    let mut screen = Pty::start(guard, &["top"], (100, 30))?;
    screen.press("6")?;
    screen.wait("another is first", |shown| first_on(shown).first() == Some(&"10.77.0.5"))?;
    let mut seen = None;
    for sent in 0..FLOOD {
        let next = Instant::now() + EACH;
        send("10.77.0.2", &register(sent as usize))?;
        if sent % 4 != 0 {
            send("10.77.0.3", OPTIONS)?;
            send("10.77.0.4", OPTIONS)?;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if seen.is_none() && first_on(&screen.screen().contents()).first() == Some(&"10.77.0.2") {
            seen = Some(sent + 1);
        }
    }
    // The first views after that, however long the machine took for it.
    wait_until_tallied(guard, FLOOD)?;
    let top = guard.json(&["top", "--once", "--delay", "100ms"])?;
    let served = first(&service.json("/api/senders")?["rows"])?;
    let text = FLOOD.to_string();
    let drawn = screen.wait("a reading of all of it", |shown| {
        let of_flood = |line: &&str| line.contains("10.77.0.2 ");
        let line = shown.lines().find(of_flood).unwrap_or_default();
        line.split_whitespace().nth(5) == Some(&text)
    })?;
    println!("in the first row of `top` after {seen:?} REGISTER\n{}", drawn.contents());
    ensure!(first_on(&drawn.contents()).first() == Some(&"10.77.0.2"), "{}", drawn.contents());
    let row = first(&top["senders"])?;
    ensure!(row["source"] == "10.77.0.2" && row["total"]["messages"] == FLOOD, "{row}");
    ensure!(served["source"] == "10.77.0.2" && served["total"]["register"] == FLOOD, "{served}");
    screen.press("q")?;
    screen.expect_end()?;

    let by = guard.rows(&["counters", "--by", "source", "--of", "register"])?;
    ensure!(by[0]["source"] == "10.77.0.2" && by[0]["total"]["register"] == FLOOD, "{by:?}");
    ensure!(by.len() == 4, "the offices and the trunk are there as well: {by:?}");
    let trunk = by.iter().find(|row| row["trunk"] == "carrier").context("no trunk")?;
    ensure!(trunk["total"]["messages"] == 100 + FLOOD * 3 / 4 && trunk["source"].is_null(), "{trunk}");
    let by_messages = guard.rows(&["counters", "--by", "source", "--of", "messages"])?;
    ensure!(by_messages[0]["source"] == "10.77.0.2", "{by_messages:?}");
    let metrics = service.get("/metrics")?.body;
    ensure!(!metrics.contains("10.77.0.2"), "an address is a label");
    let refused = guard.run(&["counters", "--of", "register"])?.expect(2)?;
    ensure!(refused.stderr.contains("`--of` goes with `--by source`"), "{}", refused.stderr);
    guard.expect_nothing_stopped()
}
