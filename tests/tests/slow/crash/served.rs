//! The same by `sipguard serve`, which its configuration file tells what to watch.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use sipguard_tests::{
    application::sip,
    chance::Chance,
    exclusive,
    guard::Site,
    office::{Fault, Office},
    scratch::Scratch,
    service::Service,
    tmpfs::Tmpfs,
};

use super::{PATIENCE, Service as Neighbour, seed, start};

#[test]
fn serve_ends_a_crash_loop_and_says_whose_it_was() -> Result<()> {
    let _shared = exclusive::beside_others();
    const PHONE: usize = 77;
    const MEMORY_MIB: u32 = 48;
    let seed = seed();
    let mut chance = Chance::new(seed);
    let site = Site::guarded(true, &[])?;
    let (disk, notes) = (Tmpfs::new("pbx", 320)?, Scratch::new("crashes")?);
    let office = Office::open(&site.phone, Site::INTERFACE, sip(Site::PBX[0]), seed)?;
    let shown = |path: &std::path::Path| path.display().to_string();
    let config = format!(
        "[serve]\njournal = false\nevidence = \"none\"\nlog = \"{}\"\n\
         [crash]\npid-file = \"{}\"\ncores = \"{}\"\ndirectory = \"{}\"\nquarantine = \"10m\"\n\
         [cores]\ndirectory = \"{}\"\nkeep = 2\nlimit = \"170M\"\nfree = \"80M\"\n",
        shown(&notes.join("events.json")),
        shown(&notes.join("pid")),
        shown(disk.path()),
        shown(&notes.join("reports")),
        shown(disk.path()),
    );
    let config = notes.write("sipguard.toml", &config)?;
    let service = Service::start(&site, &notes, &[("SIPGUARD_CONFIG", &shown(&config))])?;
    let neighbour = Neighbour::start(disk.join("log"));
    let fault = Fault::new(&mut chance);
    let (mut crashes, mut least) = (0, u64::MAX);
    let mut pbx = start(&site, &disk, &notes, &fault.fatal, MEMORY_MIB)?;
    let mut alive_since = Instant::now();
    let until = Instant::now() + PATIENCE * 4;
    // It lives for so long in spite of the fault only when that does not arrive.
    while alive_since.elapsed() < Duration::from_secs(12) {
        ensure!(Instant::now() < until, "the loop does not end: {}", service.said()?);
        if let Some(status) = pbx.try_wait()? {
            ensure!(status.signal() == Some(Signal::SIGABRT as i32), "it ended otherwise: {status}");
            crashes += 1;
            pbx = start(&site, &disk, &notes, &fault.fatal, MEMORY_MIB)?;
            alive_since = Instant::now();
        }
        if alive_since.elapsed() > Duration::from_secs(3) {
            office.send(PHONE, &fault);
        }
        std::thread::sleep(Duration::from_millis(100));
        let about = statvfs(disk.path())?;
        least = least.min((about.blocks_available() * about.fragment_size()) >> 20);
    }
    let writes = neighbour.end()?;
    println!(
        "{crashes} crashes, never less than {least} of 320 MiB free, {writes} writes of the neighbour\n{}",
        service.said()?
    );
    ensure!((1..=3).contains(&crashes), "{crashes} crashes");
    ensure!(least > 0, "the disk was full");
    let blocks = site.guard.rows(&["list", "block", "--origin", "crash"])?;
    let [block] = &blocks[..] else { bail!("{blocks:?}") };
    ensure!(block["target"] == Office::address(PHONE).to_string(), "{block}");
    let log = std::fs::read_to_string(notes.join("events.json")).context("the log of events")?;
    let address = Office::address(PHONE).to_string();
    ensure!(
        log.lines().any(|line| line.contains("\"notice\":\"crash\"") && line.contains(&address)),
        "{log}"
    );
    ensure!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    let metrics = service.get("/metrics")?.body;
    ensure!(metrics.contains(&format!("sipguard_pbx_crashes_total {crashes}\n")), "{metrics}");
    Ok(())
}
