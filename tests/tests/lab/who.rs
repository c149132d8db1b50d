//! Who, first: one phone that connects again and again from other ports is one row in every view, with its User-Agent, the line at fault and the
//! command that blocks it; and what `status`, `lookup` and `crash report` answer at once.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::{End, Server, sip, wait_until},
    guard::{Guard, Site, number, text},
    scratch::Scratch,
    service::Service,
};

const PORTS: usize = 120;
const PHONE: &str = "10.77.0.2";
const AGENT: &str = "Yealink SIP-T46S 66.86.0.15";
const LINE: &str = "Content-Length: -1";
const HEAD: &str = "REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/TCP 10.77.0.2:5060;branch=z9hG4bK1\r\n\
    From: <sip:201@pbx.example>;tag=7\r\nTo: <sip:201@pbx.example>\r\nCall-ID: 1@10.77.0.2\r\nCSeq: 1 REGISTER\r\n\
    User-Agent: Yealink SIP-T46S 66.86.0.15\r\n";

/// Connects and is cut, from another port each time.
fn reconnects(site: &Site) -> Result<()> {
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let message = format!("{HEAD}{LINE}\r\n\r\n");
    for _ in 0..PORTS {
        let (client, application) = server.connect(&site.phone)?;
        client.write(message.as_bytes())?;
        ensure!(application.wait_for_end()? == End::Reset, "a malformed stream went on");
    }
    Ok(())
}

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

fn only<'a>(rows: &'a [Value], view: &str) -> Result<&'a Value> {
    ensure!(rows.len() == 1, "{view} has {} rows: {rows:#?}", rows.len());
    Ok(&rows[0])
}

/// What a view says of the phone.
fn expect_phone(row: &Value, packets: u64, view: &str) -> Result<()> {
    ensure!(row["src_ip"] == PHONE && number(row, "packets")? == packets, "{view}: {row:#}");
    ensure!(number(row, "ports_seen")? == PORTS as u64 && row["user_agent"] == AGENT, "{view}: {row:#}");
    ensure!(row["from"] == "<sip:201@pbx.example>;tag=7", "{view}: {row:#}");
    let fault = &row["fault"];
    ensure!(fault["line"] == LINE && number(fault, "offset")? == HEAD.len() as u64, "{view}: {row:#}");
    ensure!(row["good_messages"] == 0 && row["passed_packets"] == 0, "{view}: {row:#}");
    ensure!(row["block"] == format!("sipguard block {PHONE}"), "{view}: {row:#}");
    Ok(())
}

#[test]
fn a_phone_that_reconnects_is_one_row_in_every_view() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("who")?);
    let guard = &site.guard;
    // Its ports are banned one by one, its address is not.
    run(guard, "bans off")?;
    let service = Service::start(&site, &scratch, &[])?;
    reconnects(&site)?;
    let counted = guard.counted(Reason::BadContentLength)?;
    ensure!(counted >= PORTS as u64, "{counted} were counted");
    expect_phone(only(&guard.rows(&["counters", "--by", "source"])?, "counters")?, counted, "counters")?;
    let top = guard.json(&["top", "--once", "--delay", "100ms"])?;
    expect_phone(only(top["offenders"].as_array().context("offenders")?, "top")?, counted, "top")?;
    let api = service.json("/api/offenders")?;
    expect_phone(only(api["rows"].as_array().context("rows")?, "the dashboard")?, counted, "the dashboard")?;
    let ports = guard.rows(&["counters", "--by", "source", "--ports"])?;
    ensure!(ports.len() == PORTS && ports.iter().all(|row| row["fault_line"] == LINE), "{ports:#?}");
    let sum = ports.iter().map(|row| number(row, "packets")).sum::<Result<u64>>()?;
    ensure!(sum == counted, "the ports sent {sum} of {counted}");

    for (words, wanted) in [
        ("counters --by source", &[AGENT, LINE, "stopped", "sipguard block 10.77.0.2"][..]),
        ("top --once -d 0.1", &[AGENT, "bad-content-length"]),
        (
            "status",
            &[
                "ENFORCING since ",
                " on eth0 (native)",
                AGENT,
                "sipguard block 10.77.0.2",
                "up, at 127.0.0.1:9506",
            ],
        ),
    ] {
        let shown = run(guard, words)?;
        println!("{shown}");
        ensure!(wanted.iter().all(|part| shown.contains(part)), "{words} has not {wanted:?}:\n{shown}");
        ensure!(shown.contains(&counted.to_string()), "{words} has not {counted}:\n{shown}");
    }
    // The sender of what is blocked is no longer proposed.
    let lookup = |words: &[&str], status| guard.run(&[&["lookup", PHONE], words].concat())?.expect(status);
    lookup(&["--exit-code"], 0)?;
    run(
        guard,
        text(&guard.rows(&["counters", "--by", "source"])?[0], "block")?.trim_start_matches("sipguard "),
    )?;
    let row = guard.rows(&["counters", "--by", "source"])?.remove(0);
    ensure!(row["standing"] == "blocked" && row["block"].is_null(), "{row:#}");
    ensure!(lookup(&["--exit-code"], 10)?.stderr.contains("10.77.0.2 is stopped by 10.77.0.2"), "the status");
    lookup(&[], 0)?;
    guard.run(&["lookup", "10.77.0.3", "--exit-code"])?.expect(0)?;
    Ok(())
}

#[test]
fn what_only_counts_and_whom_nobody_should_block_is_told() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("who")?);
    let guard = &site.guard;
    run(guard, "mode monitor")?;
    run(guard, "trunk add carrier --peer 10.77.0.0/29")?;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let (client, application) = server.connect(&site.phone)?;
    client.write(format!("{HEAD}{LINE}\r\n\r\n").as_bytes())?;
    wait_until("it passes", || Ok(application.bytes().ends_with(b"-1\r\n\r\n")))?;
    let row = guard.rows(&["counters", "--by", "source"])?.remove(0);
    ensure!(row["standing"] == "trunk" && row["block"].is_null(), "{row:#}");
    ensure!(row["passed_packets"] == row["packets"] && row["fault"]["line"] == LINE, "{row:#}");
    let shown = run(guard, "counters --by source")?;
    ensure!(
        shown.contains("only counted") && shown.contains("not proposed: a peer of trunk carrier"),
        "{shown}"
    );
    let status = run(guard, "status")?;
    let first = status.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with("MONITOR since ") && first.ends_with(" on eth0 (native), stopping nothing"),
        "{status}"
    );
    ensure!(
        status.contains("carrier monitor (inherited)") && status.contains("not up (the filter"),
        "{status}"
    );
    ensure!(status.contains("would-reset bad-content-length"), "the last event is not in\n{status}");
    let directory = scratch.join("crashes").display().to_string();
    let report = guard.run(&["crash", "report", "--directory", &directory])?.expect(0)?.stdout;
    let last = report.lines().last().unwrap_or_default();
    ensure!(last.starts_with("answer: ") && last.contains("recording was off"), "{report}");
    Ok(())
}
