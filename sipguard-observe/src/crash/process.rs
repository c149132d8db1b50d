//! A process that is watched: a descriptor of it, so that its death is noticed at once and its number may be used again.

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal, and whether a core was dumped.
    Killed(i32, bool),
    /// This kernel (older than 6.15) does not tell.
    Unknown,
}

impl End {
    fn of(status: i32) -> End {
        match status & 0x7f {
            0 => End::Exited(status >> 8 & 0xff),
            signal => End::Killed(signal, status & 0x80 != 0),
        }
    }

    /// Whether it is a crash; `main` when the process is not one of several workers. A server that is told to stop exits, or dies of the signal
    /// that tells it.
    #[must_use]
    pub(super) fn is_crash(&self, main: bool) -> bool {
        match self {
            End::Exited(status) => main && ![0, 128 + libc::SIGINT, 128 + libc::SIGTERM].contains(status),
            End::Killed(_, true) => true,
            End::Killed(signal, false) => is_fault(*signal),
            End::Unknown => false,
        }
    }

    /// In words.
    #[must_use]
    pub(super) fn words(&self) -> String {
        match self {
            End::Exited(status) => format!("exited with status {status}"),
            End::Killed(signal, core) => {
                let core = if *core { ", core dumped" } else { "" };
                format!("killed by {}{core}", name(*signal))
            }
            End::Unknown => "ended; how, this kernel does not tell".to_owned(),
        }
    }
}

/// Signals that a program brings upon itself.
fn is_fault(signal: i32) -> bool {
    [libc::SIGSEGV, libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS]
        .contains(&signal)
}

fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number.
    pub pid: i32,
    /// Whether it is the one that was asked for, and not one of its workers.
    pub main: bool,
    descriptor: OwnedFd,
    dumps: bool,
}

/// What `PIDFD_GET_INFO` tells (linux/pidfd.h), as of Linux 6.16.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
    coredump: [u32; 2],
}

const INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xff << 8 | 11;

impl Process {
    /// The process of a number; `None` when there is none, or it has ended.
    #[must_use]
    pub(super) fn open(pid: i32, main: bool) -> Option<Process> {
        // SAFETY: plain numbers; what it returns is a new descriptor of ours, or negative.
        let descriptor = unsafe {
            let descriptor = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            (descriptor >= 0).then(|| OwnedFd::from_raw_fd(descriptor as i32))?
        };
        let process = Process { pid, main, descriptor, dumps: false };
        (!process.has_ended()).then_some(process)
    }

    /// Whether it has ended; a dump of its core is over by then.
    #[must_use]
    pub(super) fn has_ended(&self) -> bool {
        self.events().is_some()
    }

    /// Whether somebody has heard how it ended, since when it can be asked.
    #[must_use]
    pub(super) fn is_reaped(&self) -> bool {
        self.events().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    fn events(&self) -> Option<PollFlags> {
        let mut polled = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => None,
            _ => Some(polled[0].revents().unwrap_or(PollFlags::POLLIN)),
        }
    }

    /// Whether it has begun to dump its core since the last time, and of which signal where that is known.
    pub(super) fn begins_to_dump(&mut self) -> Option<Option<i32>> {
        if self.dumps {
            return None;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let dumps = status
            .lines()
            .any(|line| line.strip_prefix("CoreDumping:").is_some_and(|value| value.trim() == "1"));
        // The number may be another process' by now.
        if !dumps || self.has_ended() {
            return None;
        }
        self.dumps = true;
        Some(self.status().map(|status| status & 0x7f).filter(|signal| *signal != 0))
    }

    /// Whether its core was being dumped.
    #[must_use]
    pub(super) fn dumped(&self) -> bool {
        self.dumps
    }

    /// How it ended, as far as that is told.
    #[must_use]
    pub(super) fn end(&self) -> End {
        let mut info = Info { mask: INFO_EXIT, ..Info::default() };
        // SAFETY: the request's size is that of `info`, which is written to.
        let done = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), GET_INFO, &raw mut info) };
        if done == 0 && info.mask & INFO_EXIT != 0 {
            return End::of(info.exit_code);
        }
        if self.is_reaped() {
            return End::Unknown;
        }
        self.status().map_or(End::Unknown, End::of)
    }

    /// Exit status in the kernel's form, which `/proc` has of a process that ends until it is reaped.
    fn status(&self) -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name of the program, which may hold anything, ends at the last bracket; then come the third field and the others.
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(49)?.parse().ok()
    }
}

/// The workers of a process: its children.
#[must_use]
pub(super) fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Processes of an executable, by its name (`asterisk`) or its path (`/usr/sbin/asterisk`), the oldest first; not those that another one of
/// them has started.
#[must_use]
pub(super) fn of_executable(name: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut found: Vec<i32> = numbers.filter(|pid| runs(*pid, name)).collect();
    let all = found.clone();
    found.retain(|pid| parent(*pid).is_none_or(|parent| !all.contains(&parent)));
    found.sort_unstable();
    found
}

fn runs(pid: i32, name: &str) -> bool {
    let Ok(path) = std::fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let path = path.to_string_lossy();
    // A package that was updated has removed what runs.
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    path == name || path.rsplit('/').next() == Some(name)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::*;

    fn shell(script: &str) -> Child {
        // No core is to be left behind.
        Command::new("sh").args(["-c", &format!("ulimit -c 0; {script}")]).spawn().unwrap()
    }

    fn end_of(script: &str) -> End {
        let mut child = shell(&format!("sleep 0.2; {script}"));
        let process = Process::open(child.id() as i32, true).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while !process.has_ended() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!process.is_reaped(), "reaped by nobody");
        let notices = process.end();
        child.wait().unwrap();
        if process.end() != End::Unknown {
            assert_eq!(process.end(), notices, "reaped and not");
        }
        notices
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(end_of("exit 0"), End::Exited(0));
        assert_eq!(end_of("exit 3"), End::Exited(3));
        assert_eq!(end_of("kill -TERM $$"), End::Killed(libc::SIGTERM, false));
        assert_eq!(end_of("kill -SEGV $$"), End::Killed(libc::SIGSEGV, false));
        for (end, crash) in [
            (End::Exited(0), false),
            (End::Exited(143), false),
            (End::Exited(255), true),
            (End::Killed(libc::SIGTERM, false), false),
            (End::Killed(libc::SIGKILL, false), false),
            (End::Killed(libc::SIGABRT, false), true),
            (End::Killed(libc::SIGQUIT, true), true),
            (End::Unknown, false),
        ] {
            assert_eq!(end.is_crash(true), crash, "{end:?}");
        }
        assert!(!End::Exited(255).is_crash(false), "a worker may end as it likes");
    }

    #[test]
    fn processes_are_found() {
        let mut child = shell("sleep 30 & wait");
        let pid = child.id() as i32;
        let until = Instant::now() + Duration::from_secs(5);
        while children(pid).is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(children(pid).len(), 1, "its sleeper");
        let own = std::env::current_exe().unwrap();
        let mine = std::process::id() as i32;
        assert!(of_executable(own.to_str().unwrap()).contains(&mine));
        assert!(of_executable(own.file_name().unwrap().to_str().unwrap()).contains(&mine));
        assert!(of_executable("no-such-program").is_empty());
        for pid in children(pid) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        child.wait().unwrap();
        assert!(Process::open(pid, true).is_none());
    }
}
