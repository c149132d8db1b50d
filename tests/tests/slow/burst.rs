//! A million malformed packets at once, with `serve` beside the guard and a disk that is full: every packet is counted, events are
//! a sample whose rest is told, and evidence stays within its limits.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::application::wait_until;
use sipguard_tests::exclusive;
use sipguard_tests::guard::Site;
use sipguard_tests::packet::Peer;
use sipguard_tests::scratch::Scratch;
use sipguard_tests::service::Service;
use sipguard_tests::tmpfs::Tmpfs;
use sipguard_tests::wire::Wire;

const PACKETS: usize = 1_000_000;
/// Sources of the burst.
const SOURCES: usize = 5000;
/// Packets between two looks at whether the guard keeps up: a veth throws away what it has no room for.
const STEP: usize = 10_000;
/// What `serve` may take of memory.
const MOST_KB: u64 = 64 << 10;
/// What evidence may take of the disk, and the disk.
const EVIDENCE_KB: u64 = 4 << 10;
const DISK_KB: u64 = 24 << 10;
const FREE_KB: u64 = 2 << 10;

const BAD: [(Reason, &[u8]); 4] = [
    (Reason::ControlByte, b"OPTIONS sip:a@b SIP/2.0\r\nVia: \x01\r\nContent-Length: 0\r\n\r\n"),
    (Reason::BadContentLength, b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: -1\r\n\r\n"),
    (Reason::BareCr, b"OPTIONS sip:a@b SIP/2.0\r\nSubject: a\rb\r\n\r\n"),
    (Reason::BadVersion, b"OPTIONS sip:a@b SIP/3.0\r\nContent-Length: 0\r\n\r\n"),
];

fn metric(service: &Service<'_>, name: &str) -> Result<u64> {
    let body = service.get("/metrics")?.body;
    let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no {name} in {body}"))?.parse().context("a number")
}

#[test]
fn a_million_malformed_packets() -> Result<()> {
    let _alone = exclusive::alone();
    let (site, scratch, disk) =
        (Site::guarded(true, &[])?, Scratch::new("burst")?, Tmpfs::new("burst", (DISK_KB >> 10) as u32)?);
    let guard = &site.guard;
    let config = scratch.write(
        "sipguard.toml",
        &format!(
            "[serve]\njournal = false\nlog = \"{}\"\nevidence = \"{}\"\nevidence-size = \"{EVIDENCE_KB}K\"\nfree = \"{FREE_KB}K\"\n",
            disk.path().join("events.json").display(),
            disk.path().join("evidence").display(),
        ),
    )?;
    let service = Service::start(&site, &scratch, &[("SIPGUARD_CONFIG", &config.to_string_lossy())])?;
    // Somebody else has filled the disk but for a little.
    std::fs::write(disk.path().join("others"), vec![1; (DISK_KB - FREE_KB - 512) as usize * 1024])?;
    let wire = Wire::open(&site.phone, Site::INTERFACE)?;
    let frames: Vec<Vec<u8>> = (0..SOURCES)
        .map(|source| {
            let from = format!("10.{}.{}.9:5060", 100 + source / 250, source % 250);
            Peer::new(&from, "10.77.0.1:5060").udp(BAD[source % BAD.len()].1)
        })
        .collect();
    let (_, before) = service.cost()?;
    let start = Instant::now();
    let mut sent = 0;
    while sent < PACKETS {
        for chunk in frames.chunks(STEP.min(SOURCES)) {
            wire.send_all(chunk)?;
            sent += chunk.len();
        }
        if sent % STEP == 0 {
            let malformed = || {
                guard.counters().map(|counts| {
                    BAD.iter().map(|(reason, _)| counts.get(reason.name()).copied().unwrap_or(0)).sum::<u64>()
                })
            };
            wait_until("the guard has counted what was sent", || Ok(malformed()? == sent as u64))?;
        }
    }
    let burst = start.elapsed();
    for (reason, _) in BAD {
        ensure!(guard.counted(reason)? == (PACKETS / BAD.len()) as u64, "{:?}", guard.counters()?);
    }
    // Two rounds of the loop of events later.
    std::thread::sleep(Duration::from_secs(1));
    let (memory_kb, cpu) = service.cost()?;
    let wall = start.elapsed();
    let events = guard.run(&["events", "-o", "ndjson"])?.expect(0)?.stdout.lines().count();
    let lost = metric(&service, "sipguard_events_lost_total")?;
    println!(
        "{PACKETS} packets in {burst:.2?}: {events} events in the ring, {lost} packets without one; serve took {memory_kb} kB and {:.1} % of a core",
        (cpu - before).as_secs_f64() * 100.0 / wall.as_secs_f64()
    );
    ensure!(memory_kb < MOST_KB, "serve has {memory_kb} kB");
    ensure!(events > 0 && events <= 1024 && lost > 0, "{events} events, {lost} lost");
    let size = |name: &str| -> Result<u64> {
        let path = disk.path().join(name);
        let files = if path.is_dir() {
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.len())).collect::<Result<Vec<_>>>()?
        } else {
            vec![std::fs::metadata(path)?.len()]
        };
        Ok(files.iter().sum())
    };
    let (evidence, log) = (size("evidence")?, size("events.json")?);
    let about = nix::sys::statvfs::statvfs(disk.path())?;
    let free = about.blocks_available() * about.fragment_size();
    println!("evidence {evidence} bytes, log {log} bytes, {free} bytes free; it said:\n{}", service.said()?);
    ensure!(evidence > 0 && evidence <= EVIDENCE_KB << 10, "evidence has {evidence} bytes");
    ensure!(free >= (FREE_KB << 10) - 8192, "only {free} bytes are free");
    Ok(())
}
