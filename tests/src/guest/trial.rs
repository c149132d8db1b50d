//! What happens in a cell: good and malformed streams, a flood of large frames, and a look into the kernel's log.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{cells::Cell, kernel_log::KernelLog};
use crate::{
    application::{Connection, End, Server, expect_same, sip},
    guard::{Guard, Site},
    message::{Fault, OPTIONS, faults, invite, large, negative_length, register, register_with},
    netns::Netns,
};

/// Where the initramfs has it.
const PROGRAM: &str = "/usr/sbin/sipguard";
/// Connections of the flood.
const FLOOD: usize = 200;
/// Bytes of the one header line that each of them sends: as much as a frame can have where segments are joined.
const LINE_BYTES: usize = 60_000;
/// How many of them may be read: the limit of a line, with what comes before it.
const LINE_READABLE: usize = 4096 + 200;

/// Runs a cell; says how sipguard was attached and how long it took.
///
/// # Errors
/// What failed, with what it was about.
pub fn run(cell: &Cell) -> Result<String> {
    let begun = Instant::now();
    let mut log = KernelLog::from_now()?;
    let outcome = machines_and_guard(cell);
    // First of all the kernel: what it complains about may be why the rest failed.
    if let Some(complaint) = log.complaint()? {
        bail!("the kernel says: {complaint}");
    }
    Ok(format!("{} {}s", outcome?, begun.elapsed().as_secs()))
}

fn machines_and_guard(cell: &Cell) -> Result<String> {
    let (pbx, phone) = cell.machines().context("making the interfaces")?;
    let guard = Guard::new(&pbx, Path::new(PROGRAM));
    guard.attach(&[cell.interface, "--xdp-mode", cell.mode]).context("attaching")?;
    // The flood is a device's that would be banned for it, and then nothing more of it would come.
    guard.run(&["bans", "off"])?.expect(0)?;
    let mode = streams(cell, &pbx, &phone, &guard).with_context(|| match guard.counters() {
        Ok(counted) => format!("counted {counted:?}; {}", stopped(&guard)),
        Err(error) => format!("nothing can be counted, {error:#}"),
    })?;
    guard.run(&["detach", "--all"])?.expect(0).context("detaching")?;
    let server = Server::listen(&pbx, sip(Site::PBX[0]))?;
    unfiltered(&server, &phone).context("after detaching")?;
    Ok(mode)
}

/// What the guard tells of the last packets that it stopped.
fn stopped(guard: &Guard) -> String {
    match guard.run(&["events", "-o", "ndjson"]) {
        Ok(output) => output.stdout,
        Err(error) => format!("no events can be read, {error:#}"),
    }
}

/// What is sent while the guard is attached; says in which mode it is.
fn streams(cell: &Cell, pbx: &Netns, phone: &Netns, guard: &Guard) -> Result<String> {
    let status = guard.json(&["status"])?;
    let mode = status["interfaces"][0]["mode"].as_str().context("status says no mode")?.to_owned();
    ensure!(status["weaknesses"].as_array().is_some_and(Vec::is_empty), "{}", status["weaknesses"]);
    ensure!(cell.mode == "auto" || mode == cell.mode, "asked for {}, attached in {mode} mode", cell.mode);

    for address in Site::PBX.map(sip) {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let server = Server::listen(pbx, address)?;
        let line = Line { server: &server, phone };
        line.good().with_context(|| format!("good streams over {family}"))?;
        for fault in faults() {
            line.malformed(&fault).with_context(|| format!("{:?} over {family}", fault.reason))?;
        }
        line.flood().with_context(|| format!("the flood over {family}"))?;
        line.good().with_context(|| format!("good streams over {family} after the flood"))?;
    }
    Ok(mode)
}

/// A server behind the guard, and who connects to it.
struct Line<'a> {
    server: &'a Server,
    phone: &'a Netns,
}

impl Line<'_> {
    /// Small and large messages, pipelined ones and one byte by byte arrive as they were sent.
    fn good(&self) -> Result<()> {
        let three = [register(1), invite(), register(2)].concat();
        let bytes: Vec<&[u8]> = OPTIONS.chunks(1).collect();
        for parts in [vec![&three[..]], vec![&large()[..], &three, &large()], bytes] {
            let (phone, application) = self.server.connect(self.phone)?;
            for part in &parts {
                phone.write(part)?;
            }
            let sent = parts.concat();
            expect_same(&application.wait_for(sent.len())?, &sent)?;
            ensure!(application.end().is_none(), "the connection ended with {:?}", application.end());
        }
        Ok(())
    }

    /// A fault behind a good message is reset before the application reads of it what can be known to be wrong.
    fn malformed(&self, fault: &Fault) -> Result<()> {
        let (phone, application) = self.server.connect(self.phone)?;
        let good = register(1);
        phone.write(&good)?;
        expect_same(&application.wait_for(good.len())?, &good)?;
        phone.offer(&fault.bytes)?;
        is_refused(&phone, &application, good.len() + fault.readable)
    }

    /// Connection after connection with one endless line that parsers keep in a fixed buffer, which comes in frames of several
    /// pages where they may be large.
    fn flood(&self) -> Result<()> {
        let line = register_with(&format!("Contact: {}\r\n", "a".repeat(LINE_BYTES)));
        for number in 0..FLOOD {
            let (phone, application) =
                self.server.connect(self.phone).with_context(|| format!("connection {number}"))?;
            phone.offer(&line)?;
            is_refused(&phone, &application, LINE_READABLE)
                .with_context(|| format!("connection {number}"))?;
        }
        Ok(())
    }
}

/// Fails unless both ends know that the connection was reset, and no more was read than may be.
fn is_refused(phone: &Connection, application: &Connection, readable: usize) -> Result<()> {
    let end = application.wait_for_end()?;
    ensure!(end == End::Reset, "the application's read ended with {end:?}");
    let read = application.bytes().len();
    ensure!(read <= readable, "{read} bytes were read, and {readable} may be");
    phone.wait_until_refused()
}

/// Without a guard what is malformed arrives, so that it was the guard, and no fault of the cable, that stopped it.
fn unfiltered(server: &Server, phone: &Netns) -> Result<()> {
    let (phone, application) = server.connect(phone)?;
    let bytes = negative_length().bytes;
    phone.write(&bytes)?;
    expect_same(&application.wait_for(bytes.len())?, &bytes)
}
