//! What `status` says beside the state of the guard: what comes now, from whom, what was stopped last, what is nearly full, and whether `serve` runs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sipguard_core::by_address::{self, AddressRow};
use sipguard_core::config;
use sipguard_core::counters::{CounterReading, per_sec};
use sipguard_core::fill::{self, TableFill};
use sipguard_core::ops::Context;
use sipguard_core::ops::status::GuardStatus;
use sipguard_core::protect;
use sipguard_core::service::Listen;
use sipguard_core::store;

use super::events::{Event, Reader, Request};

/// The time over which drops a second are measured.
const SAMPLE: Duration = Duration::from_millis(500);
/// How long `serve` may take to answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// A table of which more than this share is in use is nearly full.
const NEARLY_FULL: f64 = 0.8;

/// Whether `serve` runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServeState {
    /// Where it is asked: where the configuration file lets it listen, or the default.
    pub listen: String,
    /// Whether something answers there as it does.
    pub is_up: bool,
}

/// What is seen at a glance.
#[derive(Debug)]
pub struct Glance {
    /// Packets a second that are stopped now, and that would be where something only counts; measured over half a second.
    pub per_second: (f64, f64),
    /// Who sends the most of what is malformed or over a limit.
    pub top: Option<AddressRow>,
    /// What was stopped last.
    pub last: Option<Event>,
    /// The tables that are nearly full.
    pub nearly_full: Vec<TableFill>,
    /// Whether `serve` runs.
    pub serve: ServeState,
}

/// Looks.
///
/// # Errors
/// When no guard is attached, or a map can't be read.
pub fn read(host: &Context, status: &GuardStatus) -> Result<Glance> {
    let pins = &host.pins;
    let before = CounterReading::now(pins)?;
    let serve = serve();
    let trunks = store::all_trunks(&host.store).unwrap_or_default();
    let top = by_address::read(pins, &trunks, &protect::protected())?.into_iter().next();
    let last = Reader::open(host, Request::default())?.read(Some(1))?.pop();
    let mut tables = fill::read(pins)?;
    let flows = &status.connections;
    tables.push(TableFill { name: "flows", entries: flows.flows, capacity: flows.flows_max });
    tables.retain(is_nearly_full);
    std::thread::sleep(SAMPLE.saturating_sub(before.at.elapsed()));
    let (span, rows) = CounterReading::now(pins)?.since(&before);
    let sum = |is: fn(&sipguard_core::counters::CounterRow) -> bool| {
        per_sec(rows.iter().filter(|row| is(row)).map(|row| row.packets).sum(), span)
    };
    let per_second = (sum(|row| row.action.stops()), sum(|row| row.action.would_stop()));
    Ok(Glance { per_second, top, last, nearly_full: tables, serve })
}

/// Tables of what comes by themselves, such as offenders, flows and fragments, let the oldest go when they are full, and ended connections stay until
/// then: of these only flows hold what is needed.
fn is_nearly_full(table: &TableFill) -> bool {
    table.name != "offenders" && table.entries as f64 > f64::from(table.capacity) * NEARLY_FULL
}

/// Whether `serve` answers where it should.
fn serve() -> ServeState {
    let configured = config::load(None).ok().and_then(|loaded| loaded.config.serve.listen);
    let Listen(listen) = configured.unwrap_or_default();
    let addresses = listen.to_socket_addrs().into_iter().flatten();
    let is_up = addresses.into_iter().any(|address| answers(address).unwrap_or(false));
    ServeState { listen, is_up }
}

fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    // What takes longer than the patience is no answer in full.
    let _partly = stream.take(1 << 16).read_to_string(&mut answer);
    Ok(answer.starts_with("HTTP/1.1 ") && answer.contains("sipguard.health/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_nearly_full_before_it_is_full() {
        let table = |name, entries| TableFill { name, entries, capacity: 100 };
        assert!(is_nearly_full(&table("flows", 81)) && is_nearly_full(&table("hosts", 100)));
        assert!(!is_nearly_full(&table("flows", 80)) && !is_nearly_full(&table("offenders", 100)));
    }

    #[test]
    fn another_server_is_not_serve() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for body in ["{\"schema\":\"sipguard.health/1\"}", "hello"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 256];
                assert!(stream.read(&mut request).unwrap() > 0);
                write!(stream, "HTTP/1.1 503 x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        assert!(answers(address).unwrap(), "it is up, whatever its health");
        assert!(!answers(address).unwrap());
        server.join().unwrap();
        assert!(answers(address).is_err());
    }
}
