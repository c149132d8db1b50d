//! What the dashboard is looked at with: a host in the night of an incident, and a history of days.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rusqlite::{Connection, params};
use sipguard_tests::application::{Connection as Stream, Server, sip, wait_until};
use sipguard_tests::guard::Site;
use sipguard_tests::message::{bent, register};

/// The phone that reconnects again and again.
pub const ERRANT: &str = "10.77.0.23";
/// Its User-Agent.
pub const AGENT: &str = "Errant-Phone 3.1.4";
/// What a device says in the middle of whose header section there is a control byte.
pub fn faulty(number: usize) -> Vec<u8> {
    let line = format!("User-Agent: {AGENT}\r\nX-Serial: 00\x01{number}\r\nCSeq: ");
    bent(&register(number), "CSeq: ", line)
}

/// Gives the machine of the phones further addresses.
pub fn addresses(site: &Site, addresses: &[&str]) -> Result<()> {
    addresses.iter().try_for_each(|one| site.phone.add_address(Site::INTERFACE, &format!("{one}/24")))
}

/// Sends a datagram from an address and a port that was not used before.
pub fn datagram(site: &Site, from: &str, message: &[u8]) -> Result<()> {
    let socket = site.phone.enter(|| UdpSocket::bind((from, 0)))??;
    site.phone.enter(|| socket.send_to(message, sip(Site::PBX[0])))??;
    Ok(())
}

/// Connects from an address and says a message, until that was read, or the connection is cut off.
pub fn reconnect(site: &Site, server: &Server, from: &str, message: &[u8]) -> Result<()> {
    let from: IpAddr = from.parse()?;
    let (phone, pbx) = site.phone.enter(|| dial(from, sip(Site::PBX[0])))??.accepted_by(server)?;
    phone.write(message)?;
    wait_until("the PBX has read it, or is cut off", || {
        Ok(pbx.end().is_some() || pbx.bytes().len() >= message.len())
    })
}

struct Dialled(TcpStream);

impl Dialled {
    fn accepted_by(self, server: &Server) -> Result<(Stream, Stream)> {
        Ok((Stream::record(self.0)?, Stream::record(server.accept()?)?))
    }
}

/// A connection from an address of this machine.
fn dial(from: IpAddr, to: SocketAddr) -> Result<Dialled> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let own = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(own.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    connect(own.as_raw_fd(), &SockaddrStorage::from(to)).context("connecting")?;
    Ok(Dialled(own.into()))
}

/// Writes so many hours into the history of `serve`: a slot of ten seconds each for the last day, before it of five minutes. An hour of the
/// day before is missing.
pub fn history(file: &Path, hours: i64, what: &str) -> Result<()> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let mut db = Connection::open(file).context("opening the history")?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    let tx = db.transaction()?;
    let reasons = ["control-byte", "blocked-host", "rate-register", "transport-denied", "sequence-gap"];
    // `serve` may know some of them already.
    let mut ids = [0_i64; 5];
    for (id, reason) in ids.iter_mut().zip(reasons) {
        let row = params!["eth0", what, reason];
        tx.execute(
            "INSERT OR IGNORE INTO series (kind, name, what, reason) VALUES ('interface', ?1, ?2, ?3)",
            row,
        )?;
        let sql =
            "SELECT id FROM series WHERE kind = 'interface' AND name = ?1 AND what = ?2 AND reason = ?3";
        *id = tx.query_row(sql, row, |row| row.get(0))?;
    }
    let day = (now - 86_400).div_euclid(300) * 300;
    let slots = (now - hours * 3600).div_euclid(300) * 300..day;
    let fine = (now - hours * 3600).div_euclid(10).max(day / 10) * 10..now - 60;
    let both = [(300, slots), (10, fine)];
    for (at, length) in both
        .into_iter()
        .flat_map(|(length, range)| range.step_by(length as usize).map(move |at| (at, length)))
    {
        let ago = now - at;
        if (108_000..111_600).contains(&ago) {
            continue;
        }
        tx.execute("INSERT OR REPLACE INTO spans VALUES (?1, ?2)", params![at, length * 1000])?;
        let (hour, turn) = (at.rem_euclid(86_400) / 3600, at / 10);
        let by_day = if (7..20).contains(&hour) { 3 } else { 1 };
        let rates = [
            if ago < hours * 1500 { 15 + turn % 3 } else { 0 },
            if turn.rem_euclid(40) < 9 { 4 * by_day } else { 0 },
            if (hours * 900..hours * 1100).contains(&ago) { 42 + turn % 5 } else { 0 },
            i64::from(turn % 11 == 0) * 3 * by_day,
            turn % 2,
        ];
        for (id, packets) in ids.into_iter().zip(rates).filter(|(_, packets)| *packets > 0) {
            let row = params![at, id, packets * length / 10];
            tx.execute("INSERT OR REPLACE INTO counts VALUES (?1, ?2, ?3)", row)?;
        }
    }
    tx.commit().context("writing the history")
}
