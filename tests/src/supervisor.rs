//! What init does to a server that crashes: start it again. And what the disk gets: core dumps.

use std::{
    os::unix::{
        fs::MetadataExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::{
    resource::{RLIM_INFINITY, Resource, setrlimit},
    signal::Signal,
};

use crate::{netns::Netns, process::Running, scratch::Scratch};

/// How long the supervisor waits before it starts a crashed program again.
const RESTART: Duration = Duration::from_millis(500);

/// How a supervised program fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How often it was started.
    pub starts: u32,
    /// How often SIGABRT ended it.
    pub crashes: u32,
    /// How often it ended otherwise, by itself.
    pub other_ends: u32,
    /// How many of its ends the kernel reported as "core dumped".
    pub core_dumps: u32,
    /// Core files found; fewer than dumps (or none) where the kernel sends cores elsewhere.
    pub core_files: u32,
    /// What the core files occupy on disk.
    pub core_bytes: u64,
}

/// Keeps a program running in a namespace. Drop stops it and removes its core files.
#[derive(Debug)]
pub struct Supervisor {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
    tally: Arc<Mutex<Tally>>,
    // Last, as the program dumps its core into it.
    directory: Scratch,
}

impl Supervisor {
    /// Starts `program` in a directory of its own, without a limit to its core dumps.
    pub fn start(namespace: &Netns, program: &Path, arguments: &[&str]) -> Result<Self> {
        let directory = Scratch::new("cores")?;
        let mut command = namespace.command(program);
        command.args(arguments).current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(directory.join("log")).context("making the supervisor's log")?);
        // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe and allocates
        // nothing.
        unsafe {
            command.pre_exec(|| {
                // Where the hard limit forbids it the dumps stay away and only the crashes are counted.
                let _refused = setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY);
                Ok(())
            });
        }
        let first = Running::start(&program.to_string_lossy(), &mut command)?;
        let tally = Arc::new(Mutex::new(Tally { starts: 1, ..Tally::default() }));
        let (stop, stopped) = mpsc::channel();
        let watch = Watch {
            program: program.to_owned(),
            command,
            directory: directory.path().to_owned(),
            tally: Arc::clone(&tally),
            stopped,
        };
        let thread = Some(std::thread::spawn(move || watch.keep_running(first)));
        Ok(Self { stop: Some(stop), thread, tally, directory })
    }

    /// How it has fared until now.
    #[must_use]
    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the program and says how it fared.
    pub fn stop(mut self) -> Result<Tally> {
        self.end()?;
        Ok(self.tally())
    }

    /// Where the program runs and dumps its cores.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn end(&mut self) -> Result<()> {
        self.stop.take();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("the supervisor's thread panicked")),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// The supervisor's thread. It stops when the sender of `stopped` is gone.
struct Watch {
    program: PathBuf,
    command: Command,
    directory: PathBuf,
    tally: Arc<Mutex<Tally>>,
    stopped: mpsc::Receiver<()>,
}

impl Watch {
    fn keep_running(mut self, mut running: Running) -> Result<()> {
        while !self.stop_wanted_within(Duration::from_millis(10)) {
            let Some(status) = running.try_wait()? else { continue };
            self.record(status)?;
            if self.stop_wanted_within(RESTART) {
                break;
            }
            running = Running::start(&self.program.to_string_lossy(), &mut self.command)?;
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).starts += 1;
        }
        Ok(())
    }

    fn stop_wanted_within(&self, time: Duration) -> bool {
        self.stopped.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    fn record(&self, status: ExitStatus) -> Result<()> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if status.signal() == Some(Signal::SIGABRT as i32) {
            tally.crashes += 1;
        } else {
            tally.other_ends += 1;
        }
        tally.core_dumps += u32::from(status.core_dumped());
        // Plain `core` is the name of every dump; the next crash must not overwrite this one.
        for core in new_cores(&self.directory)? {
            tally.core_files += 1;
            tally.core_bytes += bytes_on_disk(&core)?;
            let kept = self.directory.join(format!("dump.{}", tally.core_files));
            std::fs::rename(&core, kept).with_context(|| format!("renaming {}", core.display()))?;
        }
        Ok(())
    }
}

fn new_cores(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let mut cores = vec![];
    for entry in entries {
        let entry = entry.with_context(|| format!("listing {}", directory.display()))?;
        if entry.file_name().to_string_lossy().starts_with("core") {
            cores.push(entry.path());
        }
    }
    Ok(cores)
}

/// A core file has holes, so its length says little.
fn bytes_on_disk(path: &Path) -> Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let metadata = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(metadata.blocks() * BLOCK_BYTES)
}
