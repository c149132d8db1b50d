//! Who, first: one phone that connects again and again from other ports is one row in every view, with its User-Agent, the line at fault and the
//! command that blocks it; and what `status`, `lookup` and `crash report` answer at once.

use std::net::UdpSocket;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::{End, Server, sip, wait_until},
    guard::{Guard, Site, number, text},
    process::Running,
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
    ensure!(row["from"] == "<sip:201@pbx.example>", "{view}: {row:#}");
    let fault = &row["fault"];
    ensure!(fault["line"] == LINE && number(fault, "offset")? == HEAD.len() as u64, "{view}: {row:#}");
    ensure!(row["good_messages"] == 0 && row["passed_packets"] == 0, "{view}: {row:#}");
    ensure!(row["block"] == format!("sipguard block {PHONE}"), "{view}: {row:#}");
    // The guard watches for seconds: who else is behind the address may not have spoken yet.
    ensure!(text(row, "block_caution")?.starts_with("watched for "), "{view}: {row:#}");
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
        (
            "counters --by source",
            &[AGENT, LINE, "stopped", "sipguard block 10.77.0.2", "careful: watched for ", "GOOD: "][..],
        ),
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

/// Sends malformed datagrams from one port.
fn datagrams(site: &Site, socket: &UdpSocket, count: usize) -> Result<()> {
    let message = format!("{HEAD}{LINE}\r\n\r\n").replace("/TCP", "/UDP");
    for _ in 0..count {
        site.phone.enter(|| socket.send_to(message.as_bytes(), sip(Site::PBX[0])))??;
    }
    Ok(())
}

fn only_source(guard: &Guard) -> Result<Value> {
    let rows = guard.rows(&["counters", "--by", "source"])?;
    only(&rows, "counters").cloned()
}

/// What is blocked is looked at no further; no view takes its silence for peace, or calls it stopped where the mode is monitor.
#[test]
fn who_is_blocked_is_not_called_silent() -> Result<()> {
    let site = Site::guarded(true, &["--monitor"])?;
    let guard = &site.guard;
    let socket = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    run(guard, "block 10.77.0.2")?;
    datagrams(&site, &socket, 5)?;
    wait_until("they are counted", || Ok(guard.counted(Reason::BlockedHost)? >= 5))?;
    let status = run(guard, "status")?;
    ensure!(
        status.contains("met a block or a ban, and were looked at no further")
            && !status.contains("nothing malformed"),
        "{status}"
    );
    let found = run(guard, "lookup 10.77.0.2")?;
    ensure!(found.contains("blocked, but not stopped") && found.contains(" counted"), "{found}");
    ensure!(!found.contains("bytes) stopped"), "{found}");
    let refused = guard.run(&["lookup", "10.77.0.2", "--exit-code"])?.expect(10)?.stderr;
    ensure!(refused.contains("only counted in monitor mode"), "{refused}");
    run(guard, "mode enforce")?;
    ensure!(run(guard, "lookup 10.77.0.2")?.contains("bytes) stopped"), "the mode is enforce");

    // An offender that is blocked afterwards, by its address or by its port.
    let port = socket.local_addr()?;
    for target in ["10.77.0.2".to_owned(), port.to_string()] {
        run(guard, "unblock 10.77.0.2")?;
        datagrams(&site, &socket, 2)?;
        wait_until("a block is proposed", || {
            Ok(only_source(guard)?["block"] == format!("sipguard block {port}"))
        })?;
        run(guard, &format!("block {target}"))?;
        datagrams(&site, &socket, 3)?;
        wait_until("the block counts", || Ok(number(&only_source(guard)?, "block_packets")? == 3))?;
        let row = only_source(guard)?;
        ensure!(row["standing"] == "blocked" && row["block"].is_null(), "{target}: {row:#}");
        let shown = run(guard, "counters --by source")?;
        ensure!(shown.contains("blocked already; 3 packets came to that"), "{target}: {shown}");
    }
    Ok(())
}

#[test]
fn one_datagram_accuses_nobody() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let socket = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for (sent, is_proposed) in [(1, false), (2, true)] {
        datagrams(&site, &socket, 1)?;
        wait_until("it is counted", || {
            Ok(number(&only_source(guard)?, "packets").is_ok_and(|packets| packets == sent))
        })?;
        let row = only_source(guard)?;
        ensure!(row["block"].is_null() != is_proposed, "{sent}: {row:#}");
        let status = run(guard, "status")?;
        ensure!(status.contains("not proposed: a single packet") != is_proposed, "{sent}: {status}");
    }
    Ok(())
}

#[test]
fn status_says_since_when_the_mode_is_and_where_serve_runs() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("who")?);
    let guard = &site.guard;
    let status = || guard.json(&["status"]);
    let attached: jiff::Timestamp = text(&status()?, "attached_at")?.parse()?;
    let since = |status: &Value| -> Result<jiff::Timestamp> { Ok(text(status, "mode_since_at")?.parse()?) };
    ensure!(since(&status()?)?.duration_since(attached).as_secs().abs() <= 1, "{:#}", status()?);
    // Times are told to the second.
    wait_until("some seconds are over", || {
        Ok(jiff::Timestamp::now().duration_since(attached).as_secs() >= 3)
    })?;
    run(guard, "mode monitor")?;
    let changed = since(&status()?)?;
    ensure!(changed.duration_since(attached).as_secs() >= 2, "{:#}", status()?);
    let log = guard.rows(&["log"])?;
    let row = log.iter().find(|row| row["verb"] == "mode").context("no row of the mode")?;
    ensure!(text(row, "done_at")?.parse::<jiff::Timestamp>()? == changed, "{row:#}");
    ensure!(run(guard, "status")?.starts_with(&format!("MONITOR since {changed} on eth0")), "the verdict");

    const ELSEWHERE: &str = "127.0.0.1:9777";
    let config = scratch.write("serve.toml", "[serve]\njournal = false\n")?;
    let evidence = scratch.join("evidence");
    let mut command = guard.command(&["serve", "--history", "none", "--listen", ELSEWHERE, "--evidence"]);
    let log = std::fs::File::create(scratch.join("log"))?;
    command.arg(&evidence).stderr(log).env("SIPGUARD_CONFIG", config);
    let _serve = Running::start("sipguard serve", &mut command)?;
    wait_until("status finds it", || Ok(run(guard, "status")?.contains(&format!("up, at {ELSEWHERE}"))))?;
    let socket = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    datagrams(&site, &socket, 1)?;
    wait_until("there is evidence", || {
        Ok(std::fs::read_dir(&evidence).is_ok_and(|mut all| all.next().is_some()))
    })
}

#[test]
fn each_command_tells_what_the_next_one_needs() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let nothing = guard.run(&["detach"])?.expect(2)?.stderr;
    ensure!(nothing.contains("Nothing is attached"), "{nothing}");
    let attached = guard.run(&["attach", Site::INTERFACE, "--monitor"])?.expect(0)?.stdout;
    ensure!(attached.contains("the mode is monitor: nothing is stopped"), "{attached}");
    let unnamed = guard.run(&["detach"])?.expect(2)?.stderr;
    ensure!(unnamed.contains("It is attached to: eth0;"), "{unnamed}");

    let socket = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    datagrams(&site, &socket, 3)?;
    wait_until("they are counted", || Ok(guard.counted(Reason::BadContentLength)? == 3))?;
    let found = run(guard, "lookup 10.77.0.2")?;
    for part in ["no rule decides", "10.77.0.2: 3 packets malformed", AGENT, LINE, "bad-content-length 3"] {
        ensure!(found.contains(part), "no {part:?} in {found}");
    }
    ensure!(guard.json(&["lookup", PHONE])?["offender"]["fault"]["line"] == LINE, "no fault in JSON");
    ensure!(guard.json(&["lookup", "10.77.0.9"])?["offender"].is_null(), "who sent nothing");
    // An event is what it was, however often it is asked for.
    let events = guard.rows(&["events"])?;
    ensure!(!events.is_empty(), "no event");
    for _ in 0..20 {
        let again = guard.rows(&["events"])?;
        ensure!(again == events, "{again:#?} and not {events:#?}");
    }
    ensure!(run(guard, "events")?.contains("From: <sip:201@pbx.example>"), "no From");
    // Whom a message names is found by what it says.
    for words in [&["lookup", "sip:201@pbx.example"][..], &["lookup", "--user-agent", AGENT]] {
        let found = guard.run(words)?.expect(0)?.stdout;
        ensure!(found.contains("malformed messages that say so:\n10.77.0.2: 3 packets"), "{found}");
        ensure!(guard.json(words)?["said_by"][0]["src_ip"] == PHONE, "{words:?} in JSON");
    }
    ensure!(
        guard.json(&["lookup", "sip:202@pbx.example"])?["said_by"] == serde_json::json!([]),
        "another one"
    );
    let agent = guard.run(&["lookup", "BadPhone 1.2"])?.expect(2)?.stderr;
    ensure!(agent.contains("--user-agent"), "{agent}");
    Ok(())
}

/// Sends a good REGISTER over a connection of its own.
fn registers(site: &Site, server: &Server) -> Result<()> {
    let (client, application) = server.connect(&site.phone)?;
    client.write(format!("{HEAD}Content-Length: 0\r\n\r\n").as_bytes())?;
    wait_until("it passes", || Ok(application.bytes().ends_with(b"0\r\n\r\n")))
}

#[test]
fn who_is_blocked_with_others_is_told() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "bans off")?;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let silent = guard.run(&["block", PHONE])?.expect(0)?.stderr;
    ensure!(!silent.contains("well-formed"), "nothing came yet: {silent}");
    run(guard, "unblock 10.77.0.2")?;
    for _ in 0..2 {
        registers(&site, &server)?;
    }
    for _ in 0..3 {
        let (client, application) = server.connect(&site.phone)?;
        client.write(format!("{HEAD}{LINE}\r\n\r\n").as_bytes())?;
        ensure!(application.wait_for_end()? == End::Reset, "a malformed stream went on");
    }
    // By several ports, beside what is good: the remedy is no block of the address.
    let row = only_source(guard)?;
    let why = text(&row, "standing_text")?;
    let remedy = format!("2 good messages came from it too. `sipguard block --user-agent '{AGENT}'`");
    ensure!(row["block"].is_null() && why.starts_with(&remedy), "{row:#}");
    for (words, is_warned) in [
        (&["block", PHONE][..], true),
        (&["block", "10.77.0.2/31"], true),
        (&["block", "--monitor", PHONE], false),
        (&["block", "10.77.0.2:4001"], false),
        (&["block", "192.0.2.7"], false),
        (&["block", PHONE, "--origin", "feed"], false),
    ] {
        let said = guard.run(words)?.expect(0)?.stderr;
        ensure!(said.contains("2 well-formed messages came from") == is_warned, "{words:?}: {said}");
        run(guard, "unblock --all")?;
    }
    Ok(())
}

#[test]
fn an_event_keeps_the_block_that_made_it() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let socket = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    let port = socket.local_addr()?;
    for target in [PHONE.to_owned(), port.to_string()] {
        guard.run(&["block", &target, "--comment", "scanner"])?.expect(0)?;
        let before = guard.rows(&["events"])?.len();
        datagrams(&site, &socket, 1)?;
        let last = || -> Result<Option<Value>> { Ok(guard.rows(&["events"])?.pop()) };
        wait_until("there is an event", || Ok(guard.rows(&["events"])?.len() > before))?;
        let rule = |event: Option<Value>| -> Result<String> {
            Ok(text(&event.context("no event")?["sipguard"], "rule")?.to_owned())
        };
        let held = rule(last()?)?;
        ensure!(held.starts_with(&format!("block {target} (")) && held.ends_with(": scanner"), "{held}");
        run(guard, &format!("unblock {target}"))?;
        let lifted = rule(last()?)?;
        ensure!(lifted.contains(&format!("block {target} (")) && lifted.contains("lifted since"), "{lifted}");
    }
    Ok(())
}

#[test]
fn an_attach_says_what_it_brought_back() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "block 192.0.2.7 192.0.2.8")?;
    run(guard, "trunk add carrier --peer 198.51.100.7")?;
    run(guard, "detach eth0")?;
    let attached = run(guard, "attach eth0")?;
    ensure!(attached.contains("in force again from the store: 2 blocks, 1 trunk\n"), "{attached}");
    ensure!(!run(guard, "attach eth0")?.contains("in force again"), "it was in force");
    Ok(())
}
