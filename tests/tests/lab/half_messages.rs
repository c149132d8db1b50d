//! Messages that are begun and not finished: whoever has too many opens no new connection, is named in every view, and hurts nobody else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::{Connection, End, PATIENCE, Server, sip, wait_until},
    dial,
    guard::{Guard, Site, number, text},
    message::{OPTIONS, register},
    scratch::Scratch,
    service::Service,
};

/// What each source may have begun in a new store.
const LIMIT: usize = 256;
/// Bytes of the first part of a message.
const HALF: usize = 40;

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

/// Lets this process have as many files as it may.
fn many_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Connects, and does not wait for an answer.
fn knock(site: &Site, to: SocketAddr) -> Result<TcpStream> {
    site.phone.enter(|| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(Site::PHONE[0], 0)))?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // SAFETY: the descriptor is this socket's own and given up here.
        Ok(unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) })
    })?
}

fn connection(site: &Site, to: SocketAddr) -> Result<TcpStream> {
    let stream = site.phone.enter(|| TcpStream::connect_timeout(&to, PATIENCE))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The row of the limit of unfinished messages.
fn listed(guard: &Guard) -> Result<Value> {
    let rows = guard.rows(&["limit", "list"])?;
    rows.into_iter().find(|row| row["of"] == "unfinished").context("no limit of unfinished messages")
}

/// Fails unless a row names the phone's address, without a port, for this limit.
fn expect_named(rows: &[Value], view: &str) -> Result<()> {
    let reason = |row: &Value| row.get("reason").unwrap_or(&row["reasons"][0]["reason"]).clone();
    let names =
        |row: &&Value| row["src_ip"] == "10.77.0.2" && reason(row) == Reason::UnfinishedMessages.name();
    let row =
        rows.iter().find(names).with_context(|| format!("{view} does not name the source: {rows:?}"))?;
    // An event is of one packet, the others sum up what an address sent.
    if row.get("seen_at").is_none() {
        ensure!(row["ports_seen"] == 0 && number(row, "packets")? >= 344, "{view}: {row}");
    }
    Ok(())
}

#[test]
fn of_600_half_messages_the_pbx_has_as_many_as_the_limit_and_every_view_names_their_source() -> Result<()> {
    many_files()?;
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("half-messages")?);
    let (guard, to) = (&site.guard, sip(Site::PBX[0]));
    let service = Service::start(&site, &scratch, &[])?;
    let server = Server::listen(&site.pbx, to)?;
    let (mut phones, mut pbx) = (Vec::new(), Vec::new());
    for count in 0..LIMIT {
        let mut phone = connection(&site, to)?;
        let mut accepted = server.accept()?;
        accepted.set_nonblocking(false)?;
        phone.write_all(&OPTIONS[..HALF])?;
        accepted.read_exact(&mut [0; HALF])?;
        if count % 64 == 0 {
            let now = listed(guard)?;
            ensure!(now["unfinished"] == count as u64 + 1 && now["fullest"] == "10.77.0.2", "{count}: {now}");
        }
        phones.push(phone);
        pbx.push(accepted);
    }
    let refused = (LIMIT..600).map(|_| knock(&site, to)).collect::<Result<Vec<_>>>()?;
    let dropped = || guard.counted(Reason::UnfinishedMessages);
    wait_until("each SYN is dropped, and again", || Ok(dropped()? >= 2 * (600 - LIMIT as u64)))?;
    ensure!(server.try_accept()?.is_none(), "the PBX has more than the limit");
    ensure!(run(guard, "limit list")?.contains("256 (10.77.0.2)"), "{}", run(guard, "limit list")?);
    expect_named(&guard.rows(&["counters", "--by", "source"])?, "counters")?;
    let top = guard.json(&["top", "--once", "--delay", "100ms"])?;
    expect_named(top["offenders"].as_array().context("no offenders")?, "top")?;
    expect_named(service.json("/api/offenders")?["rows"].as_array().context("no rows")?, "the dashboard")?;
    let events = || {
        Ok::<_, anyhow::Error>(service.json("/api/events")?["rows"].as_array().cloned().unwrap_or_default())
    };
    wait_until("an event is there", || Ok(!events()?.is_empty()))?;
    expect_named(&events()?, "the events")?;
    let rule = text(&events()?[0], "rule")?;
    ensure!(rule == "limit 256 at once for devices (default)", "{rule}");
    // Nobody is nearer to a ban, another address goes on, and so does whoever is in the middle of a message.
    ensure!(guard.rows(&["list", "ban"])?.is_empty(), "a ban");
    site.phone.add_address(Site::INTERFACE, "10.77.0.3/24")?;
    let other = site.phone.enter(|| {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from("10.77.0.3:0".parse::<SocketAddr>()?))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).context("another address is refused")?;
        anyhow::Ok(socket)
    })??;
    let _theirs = server.accept()?;
    for (phone, pbx) in phones.iter_mut().zip(&mut pbx) {
        phone.write_all(&OPTIONS[HALF..])?;
        pbx.read_exact(&mut vec![0; OPTIONS.len() - HALF])?;
    }
    ensure!(listed(guard)?["unfinished"] == 0, "{}", listed(guard)?);
    // Their SYNs come again, and pass now; the PBX's queue has no room for all of them at the same moment.
    wait_until("50 of those that were refused come", || {
        while let Some(stream) = server.try_accept()? {
            pbx.push(stream);
        }
        Ok(pbx.len() >= LIMIT + 50)
    })?;
    drop((refused, other));
    Ok(())
}

#[test]
fn a_message_that_is_overdue_is_ended_on_both_sides() -> Result<()> {
    let site = Site::guarded(true, &["--check", "message-ms=1500"])?;
    let scratch = Scratch::new("overdue")?;
    let (guard, to) = (&site.guard, sip(Site::PBX[0]));
    let server = Server::listen(&site.pbx, to)?;
    site.phone.add_address(Site::INTERFACE, "10.77.0.4/24")?;
    let half = |host: &str| -> Result<(Connection, Connection)> {
        let local = SocketAddr::new(host.parse()?, 0);
        let phone = dial::from(&site.phone, local, to, PATIENCE)?.context("no connection")?;
        let (phone, accepted) = (Connection::record(phone)?, server.accept()?);
        accepted.set_nonblocking(false)?;
        let pbx = Connection::record(accepted)?;
        phone.write(&OPTIONS[..HALF])?;
        pbx.wait_for(HALF)?;
        Ok((phone, pbx))
    };
    let expect_ended = |(phone, pbx): &(Connection, Connection)| -> Result<()> {
        ensure!(phone.wait_for_end()? == End::Reset, "{:?}", phone.end());
        let end = pbx.wait_for_end()?;
        ensure!(end == End::Other(std::io::ErrorKind::ConnectionAborted), "{end:?}");
        Ok(())
    };
    let (idle, idle_pbx) = server.connect(&site.phone)?;
    // In monitor mode nothing is ended, whoever is overdue, but for a trunk with a mode of its own.
    run(guard, "mode monitor")?;
    run(guard, "trunk add carrier --peer 10.77.0.4 --mode enforce")?;
    let service = Service::start(&site, &scratch, &[])?;
    let first = half("10.77.0.2")?;
    // What ends the trunk's, which are younger, looks at the phone's in the same round, and tells of it at the end of the round.
    for round in 1..=2 {
        expect_ended(&half("10.77.0.4")?)?;
        let told = "whose message was not finished in time";
        wait_until("it has looked at all", || Ok(service.said()?.matches(told).count() >= round))?;
    }
    ensure!(first.0.end().is_none() && first.1.end().is_none(), "monitor mode ended it");
    wait_until("what is overdue is not counted", || Ok(listed(guard)?["unfinished"] == 0))?;
    run(guard, "mode enforce")?;
    let second = half("10.77.0.2")?;
    for ends in [&second, &first] {
        expect_ended(ends)?;
    }
    let told = "whose message was not finished in time, such as one of 10.77.0.2";
    wait_until("it says so", || Ok(service.said()?.contains(told)))?;
    ensure!(idle.end().is_none() && idle_pbx.end().is_none(), "one between two messages was ended");
    idle.write(OPTIONS)?;
    idle_pbx.wait_for(OPTIONS.len())?;
    ensure!(guard.counted(Reason::SlowMessage)? == 0, "nothing more came of them");
    Ok(())
}

#[test]
fn a_thousand_phones_of_one_office_register_at_the_same_time_and_feel_nothing() -> Result<()> {
    const PHONES: usize = 1000;
    /// How many of them are in the middle of a message at once: of ten segments one came late.
    const LATE: usize = 100;
    many_files()?;
    let site = Site::guarded(true, &[])?;
    let to = sip(Site::PBX[0]);
    let server = Server::listen(&site.pbx, to)?;
    let (mut phones, mut pbx) = (Vec::new(), Vec::new());
    for phone in 0..PHONES {
        phones.push((connection(&site, to)?, register(phone)));
        let accepted = server.accept()?;
        accepted.set_nonblocking(false)?;
        pbx.push(accepted);
    }
    let mut most = 0;
    for at in 0..phones.len() + LATE {
        if let Some((phone, message)) = phones.get_mut(at) {
            phone.write_all(&message[..HALF])?;
        }
        if let Some((phone, message)) = at.checked_sub(LATE).and_then(|at| phones.get_mut(at)) {
            phone.write_all(&message[HALF..])?;
        }
        if at % 200 == 150 {
            // A phone that comes meanwhile is let in.
            most = most.max(number(&listed(&site.guard)?, "unfinished")?);
            drop((connection(&site, to)?, server.accept()?));
        }
    }
    for (stream, (_, message)) in pbx.iter_mut().zip(&phones) {
        let mut got = vec![0; message.len()];
        stream.read_exact(&mut got)?;
        ensure!(got == *message, "another message");
    }
    ensure!(most as usize >= LATE, "{most} were unfinished at the most: nothing was tried");
    ensure!(listed(&site.guard)?["unfinished"] == 0, "{}", listed(&site.guard)?);
    site.guard.expect_nothing_stopped()
}
