//! A limit of open connections: the kernel's own sockets are what counts, however they end.

mod endings;
mod monitored;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde_json::Value;
use sipguard_common::abi::{OPEN_COUNT, OPEN_ENTRIES, names, rules_in_use};
use sipguard_common::{Reason, abi::CountedConnection};
use sipguard_core::maps::{self, Plain};
use sipguard_core::{counting, pins::Pins};
use sipguard_tests::{
    application::{PATIENCE, Server, sip, wait_until},
    guard::{Counter, Guard, Site},
    message::OPTIONS,
    netns::Netns,
};

/// Both ends of a connection: the phone's and the PBX's.
type Ends = (TcpStream, TcpStream);

/// How long nobody answers a SYN that is dropped, as far as a test waits: shorter than its repetition. Whoever expects an answer
/// has [`PATIENCE`].
const NO_ANSWER: Duration = Duration::from_millis(600);

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

/// Connects from an address within `patience`, or fails with `TimedOut`.
fn dial(
    from: &Netns,
    local: IpAddr,
    to: SocketAddr,
    patience: Duration,
) -> Result<std::io::Result<TcpStream>> {
    dial_from(from, SocketAddr::new(local, 0), to, patience)
}

/// The same from a port.
fn dial_from(
    from: &Netns,
    local: SocketAddr,
    to: SocketAddr,
    patience: Duration,
) -> Result<std::io::Result<TcpStream>> {
    from.enter(|| {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(patience.as_millis() as i64))?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
        let connected = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
        // SAFETY: the descriptor is this socket's own and given up here.
        let stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
        Ok(match connected {
            Ok(()) => Ok(stream),
            Err(nix::errno::Errno::EINPROGRESS) => Err(ErrorKind::TimedOut.into()),
            Err(error) => Err(error.into()),
        })
    })?
}

/// So many connections from the address.
fn open(site: &Site, server: &Server, local: IpAddr, to: IpAddr, count: usize) -> Result<Vec<Ends>> {
    (0..count)
        .map(|number| {
            let phone = dial(&site.phone, local, sip(to), PATIENCE)?
                .with_context(|| format!("connection {number}"))?;
            let pbx = server.accept()?;
            pbx.set_nonblocking(false)?;
            Ok((phone, pbx))
        })
        .collect()
}

/// Fails unless a SYN of the address is dropped for the limit.
fn expect_refused(site: &Site, local: IpAddr, to: IpAddr) -> Result<()> {
    let before = site.guard.counted(Reason::OpenConnections)?;
    match dial(&site.phone, local, sip(to), NO_ANSWER)? {
        Err(error) if error.kind() == ErrorKind::TimedOut => {}
        other => anyhow::bail!("not refused but {other:?}; counted are {:?}", senders(&site.guard)?),
    }
    ensure!(site.guard.counted(Reason::OpenConnections)? > before, "it was not counted");
    Ok(())
}

/// The limits that a new store did not begin with.
fn limits(guard: &Guard) -> Result<Vec<Value>> {
    let mut rows = guard.rows(&["limit", "list"])?;
    rows.retain(|row| row["author"] != "default");
    Ok(rows)
}

fn senders(guard: &Guard) -> Result<Vec<(CountedConnection, usize)>> {
    counting::senders(&Pins::new(guard.pins()))
}

/// How many connections are counted as open, by the table that the limit goes by.
fn counted(guard: &Guard) -> Result<u64> {
    let words: Array<_, u64> = maps::open(&Pins::new(guard.pins()), names::OPEN)?;
    let mut sum = 0;
    for place in 0..OPEN_ENTRIES {
        sum += words.get(&place, 0)? & OPEN_COUNT;
    }
    Ok(sum)
}

/// Waits until so many are counted, by the table and by the list of sockets.
fn expect_counted(guard: &Guard, count: u64) -> Result<()> {
    let listed =
        || Ok::<_, anyhow::Error>(senders(guard)?.iter().map(|(_, count)| *count as u64).sum::<u64>());
    wait_until(&format!("{count} are counted"), || Ok(counted(guard)? == count && listed()? == count))
        .with_context(|| format!("counted {:?}, listed {:?}", counted(guard), listed()))
}

/// Makes the close of a stream a reset.
fn reset_at_close(stream: &TcpStream) -> Result<()> {
    Ok(setsockopt(stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?)
}

#[test]
fn so_many_of_a_source_and_no_more() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    site.phone.add_address(Site::INTERFACE, "10.77.0.3/24")?;
    site.phone.add_address(Site::INTERFACE, "fd77::3/64")?;
    site.phone.add_address(Site::INTERFACE, "fd78::3/64")?;
    site.pbx.add_address(Site::INTERFACE, "fd78::1/64")?;
    let guard = &site.guard;
    let said = run(guard, "limit set --of open 10")?;
    ensure!(said == "limited open for devices: 10 at once\n", "it said {said}");
    ensure!(run(guard, "limit set --of open 10")?.starts_with("nothing changed"), "again");
    // A listener of both families knows IPv4 peers by mapped addresses.
    let server = Server::listen(&site.pbx, "[::]:5060".parse()?)?;
    let ([pbx4, pbx6], [phone4, phone6]) = (Site::PBX, Site::PHONE);
    let mut ends = open(&site, &server, phone4, pbx4, 10)?;
    expect_refused(&site, phone4, pbx4)?;
    // Another source, and the other family, go on; an IPv6 source is its /64.
    let _other = open(&site, &server, "10.77.0.3".parse()?, pbx4, 1)?;
    let mut six = open(&site, &server, phone6, pbx6, 5)?;
    six.extend(open(&site, &server, "fd77::3".parse()?, pbx6, 5)?);
    expect_refused(&site, phone6, pbx6)?;
    expect_refused(&site, "fd77::3".parse()?, pbx6)?;
    let _else = open(&site, &server, "fd78::3".parse()?, "fd78::1".parse()?, 1)?;
    let most: Vec<usize> = senders(guard)?.iter().map(|(_, count)| *count).collect();
    ensure!(most == [10, 10, 1, 1], "counted are {most:?}");
    let rows = limits(guard)?;
    let fullest = rows[0]["fullest"].as_str().unwrap_or_default();
    ensure!(rows[0]["open"] == 10 && ["10.77.0.2", "fd77::/64"].contains(&fullest), "it told {rows:?}");
    // What stands goes on, and one that ends makes room for one.
    let (phone, mut pbx) = ends.pop().context("ten")?;
    (&phone).write_all(OPTIONS)?;
    pbx.read_exact(&mut vec![0; OPTIONS.len()])?;
    drop((phone, pbx));
    expect_counted(guard, 21)?;
    ends.extend(open(&site, &server, phone4, pbx4, 1)?);
    expect_refused(&site, phone4, pbx4)?;
    // The PBX dials as often as it likes, also from a guarded port to one.
    let trunk = Server::listen(&site.phone, sip(phone4))?;
    let guarded = SocketAddr::new(pbx4, 5061);
    let _dialled = (dial_from(&site.pbx, guarded, sip(phone4), PATIENCE)??, trunk.accept()?);
    expect_counted(guard, 22)?;
    // Allowed, or with a larger limit, it may.
    run(guard, "allow 10.77.0.2")?;
    ends.extend(open(&site, &server, phone4, pbx4, 1)?);
    run(guard, "unallow 10.77.0.2")?;
    expect_refused(&site, phone4, pbx4)?;
    run(guard, "limit set --of open 12")?;
    ends.extend(open(&site, &server, phone4, pbx4, 1)?);
    expect_refused(&site, phone4, pbx4)?;
    run(guard, "limit clear --of open")?;
    ends.extend(open(&site, &server, phone4, pbx4, 1)?);
    drop((ends, six, _other, _else));
    expect_counted(guard, 0)
}

#[test]
fn what_is_older_or_elsewhere_is_nobodys() -> Result<()> {
    let site = Site::new(true)?;
    let ([pbx, _], [phone, _]) = (Site::PBX, Site::PHONE);
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let old = open(&site, &server, phone, pbx, 5)?;
    site.guard.attach(&[Site::INTERFACE])?;
    run(&site.guard, "limit set --of open 3")?;
    let _new = open(&site, &server, phone, pbx, 3)?;
    expect_refused(&site, phone, pbx)?;
    drop(old);
    std::thread::sleep(Duration::from_millis(100));
    expect_counted(&site.guard, 3)?;
    expect_refused(&site, phone, pbx)?;
    // The same address and port in another namespace are not counted here.
    let other = Site::new(true)?;
    let elsewhere = Server::listen(&other.pbx, sip(pbx))?;
    let _theirs = open(&other, &elsewhere, phone, pbx, 4)?;
    drop(_new);
    expect_counted(&site.guard, 0)?;
    let _again = open(&site, &server, phone, pbx, 3)?;
    expect_refused(&site, phone, pbx)
}

#[test]
fn a_trunks_peers_share_its_limit() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    site.phone.add_address(Site::INTERFACE, "10.77.0.3/24")?;
    let guard = &site.guard;
    let ([pbx4, pbx6], [phone4, phone6]) = (Site::PBX, Site::PHONE);
    run(guard, "trunk add carrier --peer 10.77.0.2 fd77::/64")?;
    run(guard, "limit set --of open 1")?;
    run(guard, "limit set --trunk carrier --of open 4")?;
    let server = Server::listen(&site.pbx, "[::]:5060".parse()?)?;
    let mut ends = open(&site, &server, phone4, pbx4, 2)?;
    ends.extend(open(&site, &server, phone6, pbx6, 2)?);
    expect_refused(&site, phone4, pbx4)?;
    expect_refused(&site, phone6, pbx6)?;
    let rows = limits(guard)?;
    ensure!(rows[1]["open"] == 4 && rows[0]["open"] == 0, "it told {rows:?}");
    // Whoever is no peer has the limit of a source.
    let _device = open(&site, &server, "10.77.0.3".parse()?, pbx4, 1)?;
    expect_refused(&site, "10.77.0.3".parse()?, pbx4)?;
    drop(ends.pop());
    expect_counted(guard, 4)?;
    ends.extend(open(&site, &server, phone4, pbx4, 1)?);
    expect_refused(&site, phone4, pbx4)?;
    // Its trunk's mode decides whether that is enforced.
    run(guard, "mode monitor --trunk carrier")?;
    let before = guard.counted(Reason::OpenConnections)?;
    ends.extend(open(&site, &server, phone4, pbx4, 1)?);
    ensure!(guard.counted(Reason::OpenConnections)? == before + 1, "it passes, and is counted");
    // What was counted for the trunk is taken back from it, also when it is gone.
    run(guard, "trunk remove carrier")?;
    drop((ends, _device));
    expect_counted(guard, 0)
}

#[test]
fn two_thousand_connections_that_end_in_every_way_leave_nothing() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    run(&site.guard, "limit set --of open 1000")?;
    let [pbx, _] = Site::PBX;
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let way = |stream: TcpStream, number: usize| -> Result<()> {
        match number % 4 {
            0 => drop(stream),
            1 => {
                reset_at_close(&stream)?;
                drop(stream);
            }
            2 => {
                stream.shutdown(Shutdown::Write)?;
                stream.set_read_timeout(Some(Duration::from_millis(20)))?;
                let _reset_or_end = (&stream).read(&mut [0; 64]);
            }
            _ => {
                let _reset_or_sent = (&stream).write_all(OPTIONS);
            }
        }
        Ok(())
    };
    let pinned = |cpu: usize| -> Result<()> {
        let mut set = nix::sched::CpuSet::new();
        set.set(cpu)?;
        Ok(nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?)
    };
    std::thread::scope(|scope| -> Result<()> {
        let dialling = [0, 1].map(|cpu| {
            let site = &site;
            scope.spawn(move || -> Result<()> {
                pinned(cpu)?;
                for number in 0..1000 {
                    // That the other end was faster is a way to end, too.
                    match site.phone.enter(|| TcpStream::connect_timeout(&sip(pbx), PATIENCE))? {
                        Ok(stream) => drop(way(stream, number)),
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            })
        });
        pinned(0)?;
        let mut accepted = 0;
        loop {
            let done = dialling.iter().all(std::thread::ScopedJoinHandle::is_finished);
            match server.try_accept()? {
                Some(stream) => {
                    stream.set_nonblocking(false)?;
                    drop(way(stream, accepted / 4));
                    accepted += 1;
                }
                None if done => break,
                None => std::thread::yield_now(),
            }
        }
        for thread in dialling {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        println!("{accepted} connections were accepted");
        ensure!(accepted > 1000, "too few to tell anything");
        Ok(())
    })?;
    expect_counted(&site.guard, 0)?;
    println!("2000 connections ended, 0 counted");
    Ok(())
}

#[test]
fn limits_of_open_connections_are_kept_and_said() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let pins = Pins::new(guard.pins());
    let limited = || Ok::<_, anyhow::Error>(maps::settings(&pins)?.rules & rules_in_use::OPEN != 0);
    ensure!(!limited()?, "the kernel looks for limits that there are not");
    for (words, status, says) in [
        (
            "limit set --of open 500/s",
            2,
            "`500/s` is no limit of open connections: write how many at once, such as 500",
        ),
        ("limit set --of open 0", 2, "`0` is no limit of open connections"),
        ("limit set --of open 5 burst 7", 2, "`5 burst 7` is no limit of open connections"),
        ("limit set --trunk nobody --of open 5", 2, "there is no trunk nobody"),
        ("limit set --of opened 5", 2, "write one of packets, messages, register, invite, connections, open"),
    ] {
        let output = guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(status)?;
        ensure!(output.stderr.contains(says), "{words}: it said {}", output.stderr);
    }
    run(guard, "trunk add carrier --peer 10.77.0.2")?;
    run(guard, "limit set --of open 5")?;
    run(guard, "limit set --of invite 5/s")?;
    run(guard, "limit set --trunk carrier --of open 7")?;
    let before = limits(guard)?;
    let told: Vec<String> = before
        .iter()
        .map(|row| format!("{} {} {}", row["trunk"], row["of"], row["at_once"]).replace('"', ""))
        .collect();
    ensure!(told == ["null invite null", "null open 5", "carrier open 7"], "it told {told:?}");
    let (links, gone) = (pins.counting(names::CONNECTION_PROGRAMS[0])[1].clone(), guard.pins().to_owned());
    ensure!(links.exists(), "nothing counts");
    run(guard, "detach --all")?;
    ensure!(!gone.exists(), "pins stay behind");
    guard.attach(&[Site::INTERFACE])?;
    ensure!(limited()? && limits(guard)? == before, "they did not come back");
    // Found in the kernel when the store is gone.
    std::fs::remove_file(guard.store())?;
    run(guard, "block 192.0.2.7")?;
    let rows = limits(guard)?;
    let found: Vec<_> =
        rows.iter().filter(|row| row["of"] == "open").map(|row| row["at_once"].clone()).collect();
    ensure!(found == [5, 7], "{rows:?}");
    // `clear` without a kind takes all of a source's.
    run(guard, "limit clear")?;
    run(guard, "trunk remove recovered-1")?;
    ensure!(limits(guard)?.is_empty() && !limited()?, "something is limited still");
    // Without the programs there is nobody to count, and only this limit is missing.
    std::fs::remove_file(&links)?;
    let output = guard.run(&["limit", "set", "--of", "open", "5"])?.expect(5)?;
    ensure!(output.stderr.contains("open connections are not counted here"), "it said {}", output.stderr);
    ensure!(limits(guard)?.is_empty() && !limited()?, "half of it is left");
    run(guard, "limit set --of connections 5/s")?;
    let settings: Array<_, Plain<sipguard_common::abi::Settings>> = maps::open(&pins, names::SETTINGS)?;
    ensure!(settings.get(&0, 0)?.0.open == 0, "a limit that nobody counts for");
    Ok(())
}
