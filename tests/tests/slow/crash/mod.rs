//! Which of two hundred devices crashed the PBX, and what a crash loop leaves behind.

mod served;

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::{
    resource::{RLIM_INFINITY, Resource, setrlimit},
    signal::Signal,
    statvfs::statvfs,
};
use serde_json::Value;
use sipguard_core::{
    pins::Pins,
    service::{CoreSettings, CrashSettings, Watched},
};
use sipguard_observe::{
    cores::{CoreWatch as Cores, What},
    crash::{CrashReport, PbxEvent, Recorder, RecorderNotice},
};
use sipguard_tests::{
    application::sip,
    chance::Chance,
    exclusive,
    guard::{Site, neighbour},
    office::{Fault, Office, PHONES, SECRET, SHARING},
    process::Running,
    scratch::Scratch,
    tmpfs::Tmpfs,
};

const POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);

/// A PBX with a fault, its office, and who watches it.
struct Incident {
    // The office and the PBX go before their namespaces.
    office: Office,
    pbx: Option<Running>,
    recorder: Recorder,
    site: Site,
    disk: Tmpfs,
    reports: Scratch,
    memory_mib: u32,
    told: Vec<RecorderNotice>,
    crashes: usize,
}

impl Incident {
    fn new(seed: u64, disk_mib: u32, memory_mib: u32) -> Result<Self> {
        let site = Site::guarded(true, &[])?;
        let (disk, reports) = (Tmpfs::new("pbx", disk_mib)?, Scratch::new("crashes")?);
        let office = Office::open(&site.phone, Site::INTERFACE, sip(Site::PBX[0]), seed)?;
        let settings = settings(&reports, &disk);
        let recorder = Recorder::new(settings, &Pins::new(site.guard.pins()), site.guard.store())?;
        Ok(Self { office, pbx: None, recorder, site, disk, reports, memory_mib, told: vec![], crashes: 0 })
    }

    /// Starts a PBX that a text kills.
    fn start(&mut self, fatal: &str) -> Result<()> {
        self.pbx = Some(start(&self.site, &self.disk, &self.reports, fatal, self.memory_mib)?);
        Ok(())
    }

    /// Watches for a time, or until a report is there.
    fn watch(&mut self, time: Duration) -> Result<Option<CrashReport>> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::thread::sleep(POLL);
            for told in self.recorder.poll()? {
                self.told.push(told.clone());
                if let RecorderNotice::Reported(report, _) = told {
                    return Ok(Some(*report));
                }
            }
        }
        Ok(None)
    }

    /// Whether the PBX has died; counts it.
    fn is_dead(&mut self) -> Result<bool> {
        let Some(pbx) = &mut self.pbx else { return Ok(true) };
        let Some(status) = pbx.try_wait()? else { return Ok(false) };
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        ensure!(signal == Some(Signal::SIGABRT as i32), "it ended otherwise: {status}");
        self.crashes += 1;
        self.pbx = None;
        Ok(true)
    }
}

/// Starts a PBX that a text kills, whose cores are on `disk`, and writes down its process.
fn start(site: &Site, disk: &Tmpfs, notes: &Scratch, fatal: &str, memory_mib: u32) -> Result<Running> {
    let program = neighbour("FRAGILE_PBX", "fragile-pbx")?;
    let mut command = site.pbx.command(&program);
    let address = sip(Site::PBX[0]).to_string();
    command.args(["--seeded", &address, "--fatal", fatal, "--memory", &memory_mib.to_string()]);
    command.current_dir(disk.path());
    // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY)?));
    }
    let pbx = Running::start("fragile-pbx", &mut command)?;
    notes.write("pid", &pbx.pid().to_string())?;
    Ok(pbx)
}

fn settings(reports: &Scratch, disk: &Tmpfs) -> CrashSettings {
    CrashSettings {
        watched: Watched {
            pid_file: Some(reports.join("pid")),
            cores: Some(disk.path().to_owned()),
            ..Watched::default()
        },
        directory: reports.join("reports"),
        settle: Duration::from_secs(1),
        learn: Duration::from_millis(500),
        ..CrashSettings::default()
    }
}

/// What faults and devices come of: always the same, a number that `SIPGUARD_SEED` says, or with `SIPGUARD_SEED=chance` another each time. How near
/// to its death the PBX got which packet is chance in any case.
fn seed() -> u64 {
    const SAME: u64 = 1_795_414_372_623_900_480;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let seed = match std::env::var("SIPGUARD_SEED") {
        Ok(word) if word == "chance" => now(),
        Ok(number) => number.parse().unwrap_or(SAME),
        Err(_) => SAME,
    };
    println!("SIPGUARD_SEED={seed}");
    seed
}

#[test]
fn twenty_crashes_name_twenty_devices() -> Result<()> {
    let _shared = exclusive::beside_others();
    const RUNS: usize = 20;
    let seed = seed();
    let mut chance = Chance::new(seed);
    let mut incident = Incident::new(seed, 256, 8)?;
    let (mut right, mut cores, mut wrong) = (0, 0, vec![]);
    for run in 0..RUNS {
        let (fault, phone) = (Fault::new(&mut chance), chance.below(PHONES as u32) as usize);
        incident.start(&fault.fatal)?;
        let calm = Duration::from_millis(3000 + u64::from(chance.below(1000)));
        ensure!(incident.watch(calm)?.is_none(), "run {run}: a crash before the fault");
        incident.office.send(phone, &fault);
        let report = incident
            .watch(PATIENCE)?
            .with_context(|| format!("run {run}: no report of {fault:?} of {phone}"))?;
        let until = Instant::now() + PATIENCE;
        while !incident.is_dead()? && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        let first = report.suspects.first().context("nobody is suspected")?;
        let margin = report
            .suspects
            .get(1)
            .map_or(f64::INFINITY, |second| first.assessment.score - second.assessment.score);
        println!(
            "run {run}: {} of {} devices, {:.1} bits, {margin:.1} ahead, {}; {}",
            first.target,
            report.devices,
            first.assessment.score,
            report.how,
            first.assessment.why.join("; ")
        );
        cores += usize::from(report.core.is_some());
        ensure!(report.how.contains("SIGABRT"), "{report:?}");
        if first.assessment.identity.as_deref() == Some(&Office::identity(phone))
            && first.src_ip == Office::address(phone).to_string()
        {
            right += 1;
        } else {
            wrong.push((run, phone, fault, report.text()));
        }
        for name in incident.disk.names()? {
            std::fs::remove_file(incident.disk.join(&name))?;
        }
    }
    println!("{cores} of {RUNS} named their core");
    ensure!(right == RUNS, "{right} of {RUNS}: {wrong:#?}");
    for entry in std::fs::read_dir(incident.reports.join("reports"))? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        let shows = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        ensure!(!shows, "{} shows credentials", path.display());
    }
    let guard = &incident.site.guard;
    let directory = incident.reports.join("reports").display().to_string();
    let all = guard.rows(&["crash", "list", "--directory", &directory])?;
    ensure!(all.len() == RUNS && all.iter().all(|one| one["suspect"].is_string()), "{all:?}");
    let last = guard.json(&["crash", "show", "--directory", &directory])?;
    ensure!(last["schema"] == "sipguard.crash/2" && last["name"] == all[RUNS - 1]["name"], "{last}");
    let by_hand = guard.json(&["crash", "report", "--directory", &directory])?;
    ensure!(by_hand["devices"].as_u64().is_some_and(|devices| devices > 150), "{by_hand}");
    Ok(())
}

#[test]
fn who_is_told_to_stop_has_not_crashed() -> Result<()> {
    let _shared = exclusive::beside_others();
    let mut incident = Incident::new(1, 64, 1)?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        incident.start("never")?;
        ensure!(incident.watch(Duration::from_secs(2))?.is_none(), "a crash");
        let pbx = incident.pbx.as_mut().context("no PBX")?;
        pbx.signal(signal)?;
        pbx.wait_at_most(PATIENCE)?;
        ensure!(incident.watch(Duration::from_secs(3))?.is_none(), "{signal}: {:?}", incident.told.last());
        incident.pbx = None;
    }
    let seen: Vec<&PbxEvent> = incident
        .told
        .iter()
        .map(|told| if let RecorderNotice::Seen(event) = told { Ok(event) } else { bail!("{told:?}") })
        .collect::<Result<_>>()?;
    ensure!(
        matches!(
            seen[..],
            [PbxEvent::Runs { .. }, PbxEvent::Ended { .. }, PbxEvent::Runs { .. }, PbxEvent::Ended { .. }]
        ),
        "{seen:?}"
    );
    Ok(())
}

/// Another service that lives on the same disk.
struct Service {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Service {
    fn start(path: PathBuf) -> Self {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, written) = (Arc::clone(&stop), Arc::clone(&writes));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut file = File::create(&path)?;
                std::io::Write::write_all(&mut file, &[7; 1 << 20]).context("the service can't write")?;
                written.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        Self { stop, writes, thread: Some(thread) }
    }

    fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the service panicked"))??;
        }
        Ok(self.writes.load(Ordering::Relaxed))
    }
}

/// A phone sends its fault again and again, and the PBX is started again and again.
fn crash_loop(phone: usize, wanted: &str) -> Result<()> {
    let _shared = exclusive::beside_others();
    const DISK_MIB: u32 = 320;
    const LOOP: usize = 9;
    let seed = seed();
    let mut incident = Incident::new(seed, DISK_MIB, 48)?;
    let kept = CoreSettings {
        directory: Some(incident.disk.path().to_owned()),
        keep: 2,
        limit: 170 << 20,
        free: 80 << 20,
        ..CoreSettings::default()
    };
    let mut cores = Cores::new(kept)?;
    let service = Service::start(incident.disk.join("log"));
    let mut chance = Chance::new(seed);
    let fault = Fault::new(&mut chance);
    let (mut done, mut least) = (BTreeMap::<String, usize>::new(), u64::MAX);
    let mut quarantined = false;
    let mut alive_since = None;
    let neighbour = if phone < SHARING { phone + 1 } else { phone ^ 2 };
    let mut answered = 0;
    let until = Instant::now() + Duration::from_secs(150);
    loop {
        ensure!(Instant::now() < until, "the loop does not end: {:?}", incident.told.last());
        if incident.is_dead()? {
            if incident.crashes == LOOP && !quarantined {
                // From here on the likely cause is blocked.
                quarantined = true;
                incident.recorder = {
                    let settings = CrashSettings {
                        quarantine: Some(Duration::from_secs(600)),
                        ..settings(&incident.reports, &incident.disk)
                    };
                    Recorder::new(
                        settings,
                        &Pins::new(incident.site.guard.pins()),
                        incident.site.guard.store(),
                    )?
                };
            }
            incident.start(&fault.fatal)?;
            alive_since = Some(Instant::now());
            answered = incident.office.answers(neighbour);
        }
        // Long enough to register, short enough to be a loop.
        if alive_since.is_some_and(|since| since.elapsed() > Duration::from_millis(1500)) {
            incident.office.send(phone, &fault);
        }
        incident.watch(POLL)?;
        for action in cores.poll()? {
            *done.entry(format!("{:?}", action.what)).or_default() += 1;
            ensure!(action.what != What::Failed, "{action}");
        }
        let disk = statvfs(incident.disk.path())?;
        least = least.min((disk.blocks_available() * disk.fragment_size()) >> 20);
        let is_past = alive_since.is_some_and(|since| since.elapsed() > Duration::from_secs(8));
        if quarantined && is_past && incident.office.answers(neighbour) > answered {
            break;
        }
    }
    let writes = service.end()?;
    println!(
        "{} crashes, {done:?}, never less than {least} of {DISK_MIB} MiB free, {writes} writes of the service",
        incident.crashes
    );
    ensure!(least > 0 && done.contains_key("Deleted"), "{least} MiB free, {done:?}");
    ensure!(incident.crashes <= LOOP + 3, "{} crashes in spite of the quarantine", incident.crashes);
    let blocks = incident.site.guard.rows(&["list", "block", "--origin", "crash"])?;
    let [block] = &blocks[..] else { bail!("{blocks:?}") };
    ensure!(block["target"] == wanted, "{block}");
    ensure!(
        block["comment"].as_str().is_some_and(|reason| reason.starts_with("likely cause of crash-")),
        "{block}"
    );
    ensure!(block["expires_at"] != Value::Null, "for good: {block}");
    ensure!(incident.office.answers(neighbour) > answered, "the neighbour gets no answers");
    Ok(())
}

#[test]
fn a_crash_loop_ends_with_the_address_of_a_phone() -> Result<()> {
    crash_loop(42, &Office::address(42).to_string())
}

#[test]
fn a_crash_loop_ends_with_one_phone_behind_a_nat() -> Result<()> {
    crash_loop(133, &Office::identity(133))
}
