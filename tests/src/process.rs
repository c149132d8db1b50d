//! Child processes that never outlive their guard.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// How long a process may take to obey SIGTERM: long, since one that is killed has not told what it was to tell.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// A running child in a process group of its own. Drop ends it (SIGTERM, then SIGKILL to the whole group) and
/// reaps it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts `command`; `name` is what error messages call it.
    ///
    /// Its own process group keeps a Ctrl-C at the terminal away from it, so that the lab takes things down in
    /// its own order, and lets the guard reach the workers that a server forks.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.process_group(0).spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, status: None })
    }

    /// Its process id, which is also its group.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("waiting for {}", self.name))?;
        }
        Ok(self.status)
    }

    /// Waits at most `limit`; `None` when it still runs then. Ends early with an error on an interrupt.
    pub fn wait_at_most(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            crate::interrupt::pause(POLL)?;
        }
    }

    /// Fails when it has ended although it should run on.
    pub fn expect_alive(&mut self) -> Result<()> {
        match self.try_wait()? {
            Some(status) => bail!("{} ended unexpectedly: {status}", self.name),
            None => Ok(()),
        }
    }

    /// Sends a signal to the process itself, not to its group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Ends and reaps it now, without heed to an interrupt, and returns how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let until = Instant::now() + PATIENCE;
        while self.try_wait()?.is_none() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        // Once more for workers that outlived their parent; no such group is the good case.
        let _gone = killpg(self.pid(), Signal::SIGKILL);
        match self.status {
            Some(status) => Ok(status),
            None => {
                let status = self.child.wait().with_context(|| format!("reaping {}", self.name))?;
                self.status = Some(status);
                Ok(status)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Runs `command` to its end and returns its standard output; on failure the error carries its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().with_context(|| format!("running {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ends_a_stubborn_group() -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]);
        let running = Running::start("two sleepers", &mut command)?;
        let group = running.pid();
        drop(running);
        // The orphaned sleeper is reaped by init, so the group may take a moment to vanish.
        let until = Instant::now() + PATIENCE;
        while killpg(group, None).is_ok() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        assert!(killpg(group, None).is_err());
        Ok(())
    }

    #[test]
    fn failure_names_the_command() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains("exit status: 3"), "{error}");
    }
}
