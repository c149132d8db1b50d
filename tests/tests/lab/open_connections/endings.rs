//! Each way in which a connection ends frees its place.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use sipguard_tests::{
    application::{PATIENCE, Server, sip, wait_until},
    guard::{Site, neighbour},
    message::OPTIONS,
    process::Running,
    scratch::Scratch,
};

use super::{Ends, dial, expect_counted, expect_refused, open, reset_at_close, run};

/// Opens two, the limit; ends one that way; and fails unless there is room for one and no more.
fn ends_by(
    setup: impl Fn(&Site) -> Result<()>,
    end: impl Fn(&Site, Ends) -> Result<Option<Ends>>,
) -> Result<()> {
    let site = Site::guarded(true, &[])?;
    setup(&site)?;
    run(&site.guard, "limit set --of open 2")?;
    let ([pbx, _], [phone, _]) = (Site::PBX, Site::PHONE);
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let mut ends = open(&site, &server, phone, pbx, 2)?;
    expect_refused(&site, phone, pbx)?;
    let rest = end(&site, ends.pop().context("two")?)?;
    expect_counted(&site.guard, 1)?;
    ends.extend(open(&site, &server, phone, pbx, 1)?);
    expect_refused(&site, phone, pbx)?;
    drop((rest, ends));
    expect_counted(&site.guard, 0)
}

/// Reads to the end, so that closing sends no reset.
fn read_out(stream: &mut TcpStream) -> Result<()> {
    Ok(stream.read_to_end(&mut Vec::new()).map(drop)?)
}

#[test]
fn the_phone_closes_first() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |_, (phone, mut pbx)| {
            drop(phone);
            read_out(&mut pbx)?;
            drop(pbx);
            Ok(None)
        },
    )
}

#[test]
fn the_pbx_closes_first_and_waits() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |_, (mut phone, pbx)| {
            drop(pbx);
            read_out(&mut phone)?;
            drop(phone);
            Ok(None)
        },
    )
}

#[test]
fn the_pbx_closes_and_the_phone_never_does() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |site, (phone, pbx)| {
            // Until it is an orphan it counts: half closed is open.
            pbx.shutdown(Shutdown::Write)?;
            std::thread::sleep(Duration::from_millis(50));
            expect_counted(&site.guard, 2)?;
            let kept = pbx.try_clone()?;
            drop((pbx, kept));
            // The phone's end stays, in CLOSE_WAIT.
            let spare = phone.try_clone()?;
            Ok(Some((phone, spare)))
        },
    )
}

#[test]
fn both_close_at_once() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |_, (phone, pbx)| {
            std::thread::scope(|scope| {
                scope.spawn(|| phone.shutdown(Shutdown::Write));
                scope.spawn(|| pbx.shutdown(Shutdown::Write));
            });
            drop((phone, pbx));
            Ok(None)
        },
    )
}

#[test]
fn the_phone_resets() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |_, (phone, pbx)| {
            reset_at_close(&phone)?;
            drop(phone);
            // The PBX's application has not closed yet, its kernel has.
            let spare = pbx.try_clone()?;
            Ok(Some((pbx, spare)))
        },
    )
}

#[test]
fn the_pbx_resets() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |_, (phone, pbx)| {
            reset_at_close(&pbx)?;
            drop((pbx, phone));
            Ok(None)
        },
    )
}

#[test]
fn the_guard_resets() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |_, (phone, pbx)| {
            (&phone).write_all(b"OPTIONS sip:x SIP/2.0\r\nVia\0: x\r\n\r\n")?;
            let spare = pbx.try_clone()?;
            Ok(Some((pbx, spare)))
        },
    )
}

#[test]
fn the_phone_is_silent_and_the_pbx_gives_up() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |site, (phone, pbx)| {
            setsockopt(&pbx, sockopt::TcpUserTimeout, &500)?;
            site.phone.run(&["ip", "link", "set", Site::INTERFACE, "down"])?;
            (&pbx).write_all(OPTIONS)?;
            expect_counted(&site.guard, 1)?;
            site.phone.run(&["ip", "link", "set", Site::INTERFACE, "up"])?;
            let spare = phone.try_clone()?;
            drop(pbx);
            Ok(Some((phone, spare)))
        },
    )
}

#[test]
fn the_operator_ends_it() -> Result<()> {
    ends_by(
        |_| Ok(()),
        |site, (phone, pbx)| {
            let peer = phone.local_addr()?;
            site.pbx.run(&[
                "ss",
                "-K",
                "-n",
                "dst",
                &peer.ip().to_string(),
                "dport",
                "=",
                &peer.port().to_string(),
            ])?;
            Ok(Some((phone, pbx)))
        },
    )
}

#[test]
fn with_syn_cookies() -> Result<()> {
    let always =
        |site: &Site| site.pbx.run(&["sh", "-c", "echo 2 > /proc/sys/net/ipv4/tcp_syncookies"]).map(drop);
    ends_by(always, |_, ends| {
        drop(ends);
        Ok(None)
    })
}

#[test]
fn a_killed_server_frees_what_it_had_and_what_it_had_not_accepted() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    run(&site.guard, "limit set --of open 3")?;
    let ([pbx, _], [phone, _]) = (Site::PBX, Site::PHONE);
    let scratch = Scratch::new("open")?;
    let program = neighbour("FRAGILE_PBX", "fragile-pbx")?;
    let mut command = site.pbx.command(&program);
    command.args(["--listen", &sip(pbx).to_string(), "--journal"]).arg(scratch.path().join("journal"));
    let mut running = Running::start("fragile-pbx", &mut command)?;
    let mut ends = Vec::new();
    wait_until("it listens", || {
        running.expect_alive()?;
        Ok(dial(&site.phone, phone, sip(pbx), PATIENCE)?.map(|stream| ends.push(stream)).is_ok())
    })?;
    // Two more wait to be accepted.
    running.signal(nix::sys::signal::Signal::SIGSTOP)?;
    for _ in 0..2 {
        ends.push(dial(&site.phone, phone, sip(pbx), PATIENCE)??);
    }
    expect_counted(&site.guard, 3)?;
    expect_refused(&site, phone, pbx)?;
    running.signal(nix::sys::signal::Signal::SIGKILL)?;
    expect_counted(&site.guard, 0)?;
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let _new = open(&site, &server, phone, pbx, 3)?;
    expect_refused(&site, phone, pbx)
}

#[test]
fn advisory_ast_2016_005_sixty_idle_connections() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    run(&site.guard, "limit set --of open 20")?;
    let ([pbx, _], [phone, _]) = (Site::PBX, Site::PHONE);
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let _idle = open(&site, &server, phone, pbx, 20)?;
    for _ in 20..60 {
        let stream = site.phone.enter(|| TcpStream::connect_timeout(&sip(pbx), Duration::from_millis(20)))?;
        ensure!(stream.is_err(), "one more than the limit");
    }
    expect_counted(&site.guard, 20)
}
