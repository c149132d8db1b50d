//! Watching the PBX: which processes it is, when one of them dies, and when a core begins to be written.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use sipguard_core::clock::Clock;
use sipguard_core::service::Watched;

use super::dumps::{Dump, Dumps};
use super::process::{End, Process, children, of_executable};

/// Processes that are watched at once.
const MOST: usize = 256;
/// How long it is waited for whoever reaps a process: only then some kernels tell how it ended.
const REAPED_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked for new workers, and for a process that is not there.
const LOOK: Duration = Duration::from_millis(500);
/// Further deaths and cores so shortly after one are the same incident: the workers of a server die together.
const INCIDENT: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PbxEvent {
    /// The PBX runs, for the first time or again.
    Runs {
        /// Its process.
        pid: i32,
    },
    /// It has crashed, or is about to: while a core is written it goes on being a process.
    Crashed(Crash),
    /// A process of it has ended otherwise, such as when it was told to.
    Ended {
        /// The process.
        pid: i32,
        /// How, in words.
        how: String,
    },
}

/// A crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Its process, where that is known.
    pub pid: Option<i32>,
    /// When it was (`CLOCK_BOOTTIME`, nanoseconds); at the latest, by the time between two polls.
    pub at_ns: u64,
    /// How, in words.
    pub how: String,
    /// Its core, where that is known.
    pub core: Option<PathBuf>,
}

/// A watch on the PBX.
#[derive(Debug)]
pub struct PbxWatch {
    watched: Watched,
    processes: Vec<Process>,
    dying: Vec<(Process, Instant, u64)>,
    dumps: Option<Dumps>,
    core: Option<(Dump, Instant)>,
    looked: Option<Instant>,
    incident: Option<Instant>,
}

impl PbxWatch {
    /// Begins to watch. A PBX that does not run is waited for.
    ///
    /// # Errors
    /// When the directory of the cores can't be watched.
    pub fn new(watched: Watched) -> Result<PbxWatch> {
        let dumps = watched.cores.as_deref().map(Dumps::new).transpose()?;
        Ok(PbxWatch {
            watched,
            processes: Vec::new(),
            dying: Vec::new(),
            dumps,
            core: None,
            looked: None,
            incident: None,
        })
    }

    /// What was seen since the last time; cheap enough for ten times a second.
    pub fn poll(&mut self) -> Result<Vec<PbxEvent>> {
        let clock = Clock::now()?;
        let mut events = Vec::new();
        let dumping: Vec<(i32, Option<i32>)> = self
            .processes
            .iter_mut()
            .filter_map(|process| process.begins_to_dump().map(|signal| (process.pid, signal)))
            .collect();
        // Asked for afterwards: a process dumps before there is a core of it.
        let new = self.dumps.as_mut().and_then(|dumps| dumps.begun(&clock).pop());
        if let Some(dump) = &new {
            self.core = Some((dump.clone(), Instant::now()));
        }
        let core = self.core.as_ref().filter(|(_, since)| since.elapsed() < INCIDENT).map(|(dump, _)| dump);
        let at_ns = core.map_or(clock.boot_ns, |dump| dump.at_ns);
        let path = core.map(|dump| dump.path.clone());
        let mut crashes = Vec::new();
        for (pid, signal) in dumping {
            let how = signal.map_or("dumps its core".to_owned(), |signal| End::Killed(signal, true).words());
            crashes.push(Crash { pid: Some(pid), at_ns, how, core: path.clone() });
        }
        let (ended, alive) = std::mem::take(&mut self.processes).into_iter().partition(Process::has_ended);
        self.processes = alive;
        let ended: Vec<Process> = ended;
        self.dying.extend(ended.into_iter().map(|process| (process, Instant::now(), at_ns)));
        let mut undecided = Vec::new();
        for (process, since, at_ns) in std::mem::take(&mut self.dying) {
            let mut end = process.end();
            if end == End::Unknown && process.main {
                end = self.result();
            }
            if end == End::Unknown && since.elapsed() < REAPED_WITHIN {
                undecided.push((process, since, at_ns));
            } else if process.dumped() {
                // It was told of when it began.
            } else if end.is_crash(process.main)
                || end == End::Unknown && self.dumps.as_ref().is_some_and(Dumps::recent)
            {
                crashes.push(Crash { pid: Some(process.pid), at_ns, how: end.words(), core: path.clone() });
            } else {
                events.push(PbxEvent::Ended { pid: process.pid, how: end.words() });
            }
        }
        self.dying = undecided;
        if let (Some(Dump { path, at_ns }), false) = (new, self.has_process()) {
            crashes.push(Crash { pid: None, at_ns, how: "a core appeared".to_owned(), core: Some(path) });
        }
        if let Some(first) = crashes.into_iter().min_by_key(|crash| crash.at_ns)
            && self.incident.is_none_or(|incident| incident.elapsed() > INCIDENT)
        {
            self.incident = Some(Instant::now());
            self.core = None;
            events.push(PbxEvent::Crashed(first));
        }
        self.look(&mut events);
        Ok(events)
    }

    /// Whether processes are watched, and not only a directory.
    fn has_process(&self) -> bool {
        let Watched { unit, pid_file, pid, exe, cores: _ } = &self.watched;
        unit.is_some() || pid_file.is_some() || pid.is_some() || exe.is_some()
    }

    /// Looks for the PBX when it is not there, and for new workers.
    fn look(&mut self, events: &mut Vec<PbxEvent>) {
        if !self.has_process() || self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let has_main = self.processes.iter().any(|process| process.main);
        let mains = if has_main { Vec::new() } else { self.mains() };
        for pid in mains {
            if self.add(pid, true) {
                events.push(PbxEvent::Runs { pid });
            }
        }
        let mains: Vec<i32> =
            self.processes.iter().filter(|process| process.main).map(|process| process.pid).collect();
        let workers = self.watched.unit.as_deref().map(of_unit).unwrap_or_default();
        for pid in workers.into_iter().chain(mains.into_iter().flat_map(children)) {
            self.add(pid, false);
        }
    }

    fn add(&mut self, pid: i32, main: bool) -> bool {
        let known = self.processes.iter().any(|process| process.pid == pid);
        if known || self.processes.len() == MOST {
            return false;
        }
        self.processes.extend(Process::open(pid, main));
        self.processes.last().is_some_and(|process| process.pid == pid)
    }

    fn mains(&self) -> Vec<i32> {
        if let Some(unit) = &self.watched.unit
            && let Some(pid) =
                property(unit, "MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0)
        {
            return vec![pid];
        }
        if let Some(path) = &self.watched.pid_file
            && let Ok(text) = std::fs::read_to_string(path)
            && let Ok(pid) = text.trim().parse()
        {
            return vec![pid];
        }
        if let Some(pid) = self.watched.pid {
            return vec![pid];
        }
        self.watched.exe.as_deref().map(of_executable).unwrap_or_default()
    }

    /// What systemd says of the end of the unit's process.
    fn result(&self) -> End {
        let Some(unit) = &self.watched.unit else { return End::Unknown };
        let status = property(unit, "ExecMainStatus").and_then(|status| status.parse::<i32>().ok());
        match (property(unit, "Result").as_deref(), status) {
            (Some("core-dump"), Some(signal)) => End::Killed(signal, true),
            (Some("signal"), Some(signal)) => End::Killed(signal, false),
            (Some("exit-code"), Some(status)) => End::Exited(status),
            (Some("success"), _) => End::Exited(0),
            _ => End::Unknown,
        }
    }
}

/// The processes of a unit, without asking systemd.
fn of_unit(unit: &str) -> Vec<i32> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let read =
        |place: &str| std::fs::read_to_string(format!("{place}/system.slice/{unit}/cgroup.procs")).ok();
    let text = places.into_iter().find_map(read).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A property of a unit, as systemd tells it; `None` also where there is no systemd.
fn property(unit: &str, name: &str) -> Option<String> {
    let output = Command::new("systemctl").args(["show", "-p", name, "--value", "--", unit]).output().ok()?;
    let value = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !value.is_empty()).then_some(value)
}
