//! `sipguard top`: one reading for programs, and the screen as an operator sees it, in a terminal.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::{End, PATIENCE, Server, sip, udp, uninterrupted, wait_until},
    guard::{Guard, Site, number, text},
    message::{OPTIONS, register},
    scratch::Scratch,
};

mod document;
mod picture;
pub mod pty;

use picture::keep;
use pty::Pty;

const FAULT: &[u8] = b"OPTIONS sip:pbx SIP/2.0\r\nVia: a\0b\r\n";
const SIZE: (u16, u16) = (80, 24);

/// Good messages over UDP, and streams of which each is malformed. Gives who sent those.
fn traffic(site: &Site, streams: usize) -> Result<Vec<SocketAddr>> {
    let pbx = Site::PBX[0];
    let server = udp(&site.pbx, sip(pbx))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for message in [&register(1)[..], &register(2), OPTIONS] {
        site.phone.enter(|| phone.send_to(message, sip(pbx)))??;
        uninterrupted(|| server.recv(&mut [0; 2048])).context("a good message did not arrive")?;
    }
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let mut senders = Vec::new();
    for _ in 0..streams {
        let (client, application) = server.connect(&site.phone)?;
        client.write(FAULT)?;
        ensure!(application.wait_for_end()? == End::Reset, "a malformed stream went on");
        senders.push(client.local()?);
    }
    Ok(senders)
}

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

/// What the counters say, twice the same with what `read` says between.
fn beside<T>(guard: &Guard, mut read: impl FnMut() -> Result<T>) -> Result<(Vec<Value>, T)> {
    loop {
        let before = guard.rows(&["counters"])?;
        let value = read()?;
        // Neighbour discovery comes when it likes.
        if guard.rows(&["counters"])? == before {
            return Ok((before, value));
        }
    }
}

fn list<'a>(told: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    told[key].as_array().with_context(|| format!("no {key} in {told}"))
}

/// Rows of addresses without what changes with the time.
fn without_rates(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        row["packets_per_second"].take();
        row["ports"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(|port| drop(port["packets_per_second"].take()));
    }
    rows
}

fn sum<'a>(rows: impl IntoIterator<Item = &'a Value>, key: &str) -> Result<u64> {
    rows.into_iter().map(|row| number(row, key)).sum()
}

#[test]
fn one_reading_says_what_the_counters_say() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "trunk add carrier --peer 10.77.0.2 --method OPTIONS,REGISTER")?;
    run(guard, "block 192.0.2.7 192.0.2.8")?;
    let senders = traffic(&site, 5)?;
    let (counters, told) = beside(guard, || guard.json(&["top", "--once", "--delay", "100ms"]))?;
    ensure!(told["schema"] == "sipguard.top/3" && told["mode"] == "enforce", "{told:#}");
    let mut reasons = list(&told, "reasons")?.clone();
    for row in &mut reasons {
        row.as_object_mut().context("a row")?.remove("packets_per_second").context("a rate")?;
    }
    ensure!(reasons == counters, "{reasons:#?} and not {counters:#?}");
    let stopped = |row: &&Value| row["action"] == "reset" || row["action"] == "drop";
    let (received, dropped) = (sum(&counters, "packets")?, sum(counters.iter().filter(stopped), "packets")?);
    ensure!(dropped >= 5, "{counters:#?}");
    for (row, name) in [(&told["totals"], "totals"), (&told["interfaces"][0], "interface")] {
        let numbers = (number(row, "received_packets")?, number(row, "dropped_packets")?);
        ensure!(numbers == (received, dropped), "{name}: {row:#}");
    }
    let [told_of, counted] =
        [list(&told, "offenders")?.clone(), guard.rows(&["counters", "--by", "source"])?].map(without_rates);
    ensure!(told_of == counted, "{told_of:#?} and not {counted:#?}");
    let [phone] = &counted[..] else { bail!("one address sent it: {counted:#?}") };
    ensure!(phone["ports_seen"] == senders.len() && phone["packets"] == senders.len(), "{phone:#}");
    let of_trunk = guard.rows(&["counters", "--by", "trunk"])?;
    let trunk = &told["trunks"][0];
    let numbers = (number(trunk, "received_packets")?, number(trunk, "dropped_packets")?);
    let wanted = (sum(&of_trunk, "packets")?, sum(of_trunk.iter().filter(stopped), "packets")?);
    ensure!(numbers == wanted && trunk["trunk"] == "carrier", "{trunk:#} and not {wanted:?}");
    for sender in &senders {
        let of = |event: &&Value| {
            event["src_port"] == sender.port() && event["reason"] == Reason::ControlByte.name()
        };
        let event =
            list(&told, "events")?.iter().find(of).with_context(|| format!("no event of {sender}"))?;
        ensure!(text(event, "action")? == "reset" && text(event, "trunk")? == "carrier", "{event:#}");
        ensure!(text(event, "sample")?.starts_with("OPTIONS sip:pbx"), "{event:#}");
    }
    ensure!(told["blocks"] == 2 && told["bans"] == 0 && told["events_lost"] == 0, "{told:#}");
    let table = run(guard, "top --once -d 0.1")?;
    for part in ["mode enforce", "10.77.0.2", "control-byte", "carrier", "192.0.2.7"] {
        ensure!(table.contains(part), "no {part} in\n{table}");
    }
    Ok(())
}

#[test]
fn without_a_terminal_or_a_guard_it_says_so() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    guard.run(&["top", "--once"])?.expect(3)?;
    site.guard.attach(&[Site::INTERFACE])?;
    let said = guard.run(&["top"])?.expect(2)?;
    ensure!(said.stderr.contains("--once"), "{said:?}");
    let said = guard.run(&["top", "-o", "json"])?.expect(2)?;
    ensure!(said.stderr.contains("--once"), "{said:?}");
    guard.run(&["top", "--once", "--delay", "0.01"])?.expect(2)?;
    Ok(())
}

/// The line of the screen in which a text stands.
fn line(screen: &vt100::Screen, text: &str) -> Result<String> {
    let shown = screen.contents();
    let line = shown.lines().find(|line| line.contains(text));
    Ok(line.with_context(|| format!("no {text:?} in\n{shown}"))?.to_owned())
}

#[test]
fn the_screen_says_what_the_counters_say() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "trunk add carrier --peer 10.77.0.9")?;
    run(guard, "block 198.51.100.0/24 --comment scanners")?;
    let senders = traffic(&site, 7)?;
    let mut pty = Pty::start(guard, &["top", "-d", "0.2"], SIZE)?;
    let address = &guard.rows(&["counters", "--by", "source"])?[0];
    let screen = pty.wait_for("10.77.0.2")?;
    let of_it = line(&screen, "10.77.0.2 ")?;
    let (packets, ports) = (number(address, "packets")?.to_string(), senders.len().to_string());
    let words: Vec<&str> = of_it.split_whitespace().collect();
    ensure!(
        words[1..3] == ["control-byte", &packets] && words[4] == ports,
        "{of_it} has not {packets} packets"
    );
    pty.press("\r")?;
    for sender in &senders {
        let port = format!(":{} ", sender.port());
        let screen = pty.wait_for(&port)?;
        let packets = guard.rows(&["counters", "--by", "source", "--ports"])?;
        let of = |row: &&Value| row["src_port"] == sender.port();
        let packets = number(packets.iter().find(of).context("a source")?, "packets")?.to_string();
        let of_it = line(&screen, &port)?;
        let words: Vec<&str> = of_it.split_whitespace().collect();
        ensure!(words[1..3] == ["control-byte", &packets], "{of_it} has not {packets} packets");
    }
    keep(&pty.screen(), "top-sources")?;
    pty.press("2")?;
    pty.wait_for("ACTION")?;
    let is_same = |counters: &[Value], screen: &vt100::Screen| -> Result<bool> {
        let total = sum(counters, "packets")?;
        let reason = |row: &Value| -> Result<bool> {
            let wanted = [text(row, "reason")?, text(row, "action")?, number(row, "packets")?.to_string()];
            // A stray packet of another reason may have come since the screen was drawn.
            let Ok(line) = line(screen, &format!(" {} ", wanted[0])) else { return Ok(false) };
            Ok(line.split_whitespace().take(3).eq(wanted.iter().map(String::as_str)))
        };
        let reasons = counters.iter().map(reason).collect::<Result<Vec<_>>>()?;
        Ok(line(screen, "packets ")?.contains(&format!(" {total} packets"))
            && reasons.iter().all(|same| *same))
    };
    wait_until("the reasons are the counters'", || {
        let (counters, screen) = beside(guard, || Ok(pty.screen()))?;
        is_same(&counters, &screen)
    })
    .with_context(|| pty.screen().contents())?;
    keep(&pty.screen(), "top-reasons")?;
    for (key, wanted, name) in [
        ("3", "carrier", "top-trunks"),
        ("4", "10.77.0.1:5060 on eth0", "top-events"),
        ("5", "scanners", "top-blocks"),
        ("h", "Any key closes", "top-help"),
    ] {
        pty.press(key)?;
        keep(&pty.wait_for(wanted)?, name)?;
    }
    pty.press("x")?;
    pty.resize(150, 40)?;
    pty.press("1")?;
    // In the message beside the rows, and below them.
    let whole = |shown: &str| shown.matches("Via: a\\x00b").count() == 2 && shown.contains("OPTIONS sip:pbx");
    let wide = pty.wait("the message has room", whole)?;
    keep(&wide, "top-wide")?;
    pty.press("/nobody\r")?;
    pty.wait_for("no row has the text")?;
    pty.press("q")?;
    pty.expect_end()
}

#[test]
fn whom_the_operator_points_at_is_blocked_and_unblocked() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    run(guard, "trunk add carrier --peer 10.77.0.2")?;
    let sender = traffic(&site, 1)?[0].to_string();
    let mut pty = Pty::start(guard, &["top", "-d", "0.2"], SIZE)?;
    pty.wait_for("a peer of trunk carrier")?;
    pty.press("b\r\r\r")?;
    keep(&pty.wait_for("Do it?")?, "top-block")?;
    pty.press("y")?;
    pty.wait_for("stops the trunk carrier")?;
    ensure!(guard.rows(&["list", "block"])?.is_empty(), "blocked all the same");
    run(guard, "trunk remove carrier")?;
    pty.press("b\r\r of the screen\r")?;
    pty.wait_for("Do it?")?;
    ensure!(guard.rows(&["list", "block"])?.is_empty(), "blocked before it was confirmed");
    pty.press("y")?;
    keep(&pty.wait_for("blocked 1 source for 1h")?, "top-blocked")?;
    let rows = guard.rows(&["list", "block"])?;
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    ensure!(text(row, "target")? == sender && row["in_force"] == true, "{row:#}");
    ensure!(
        text(row, "comment")? == "control-byte of the screen" && row["expires_at"].is_string(),
        "{row:#}"
    );
    ensure!(text(row, "origin")? == "cli", "{row:#}");
    pty.press("5")?;
    pty.wait_for("of the screen")?;
    pty.press("uy")?;
    pty.wait_for("unblocked 1 source")?;
    ensure!(guard.rows(&["list", "block"])?.is_empty(), "blocked still");
    // The address, not the device, this time.
    pty.press("1bd\u{1b}")?;
    pty.wait_for("nothing was changed")?;
    pty.press("ba\u{15}10m\r\ry")?;
    pty.wait_for("blocked 1 source for 10m")?;
    let rows = guard.rows(&["list", "block"])?;
    ensure!(rows.len() == 1 && rows[0]["target"] == "10.77.0.2", "{rows:#?}");
    pty.press("\u{3}")?;
    pty.expect_end()
}

#[test]
fn whom_the_operator_points_at_is_captured() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("top")?);
    let guard = &site.guard;
    traffic(&site, 1)?;
    let mut pty = Pty::start(guard, &["top", "-d", "0.2"], SIZE)?;
    pty.wait_for("a single packet")?;
    // The address, since its next stream comes by another port; the file that is proposed gives way to ours.
    let file = scratch.join("capture.pcapng");
    pty.press(&format!("ca\u{15}{}\ry", file.display()))?;
    pty.wait_for("capturing")?;
    wait_until("the kernel is asked", || Ok(guard.taps()?.capture_until_ns != 0))?;
    traffic(&site, 2)?;
    pty.wait_for("captured 10.77.0.2 to")?;
    keep(&pty.screen(), "top-captured")?;
    let mut tshark = std::process::Command::new("tshark");
    tshark.args(["-T", "fields", "-e", "frame.comment", "-r"]).arg(&file);
    let comments = sipguard_tests::process::output(&mut tshark)?;
    ensure!(comments.lines().filter(|line| line.contains("control-byte")).count() == 2, "{comments}");
    pty.press("q")?;
    pty.expect_end()
}

#[test]
fn it_waits_for_a_guard_that_was_detached() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    traffic(&site, 2)?;
    let mut pty = Pty::start(guard, &["top", "-d", "0.2"], SIZE)?;
    pty.wait_for("control-byte")?;
    run(guard, "detach --all")?;
    keep(&pty.wait_for("sipguard is not attached")?, "top-detached")?;
    ensure!(pty.screen().contents().contains("NOT LIVE"), "{}", pty.screen().contents());
    guard.attach(&[Site::INTERFACE])?;
    pty.wait("it is live again", |shown| shown.contains("nobody has sent") && !shown.contains("NOT LIVE"))?;
    let sender = traffic(&site, 1)?[0].to_string();
    pty.wait_for("a single packet")?;
    pty.press("4")?;
    pty.wait_for(&format!("{sender} > "))?;
    pty.signal(Signal::SIGTERM)?;
    pty.expect_end()
}
