//! A process that is killed at any of its steps: just before a system call that would change something which outlives it.
//!
//! Between two such calls a kill leaves the same, so that all moments are tried in as many runs as there are steps.

use std::{
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    libc,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// `op` of `struct ptrace_syscall_info` at the beginning of a call.
const ENTRY: u8 = 1;
/// Longest path that is read.
const PATH_BYTES: usize = 256;

/// What a run did.
#[derive(Debug)]
pub struct Run {
    /// Its steps, the one at which it was killed as the last.
    pub steps: Vec<String>,
    /// Whether it was killed; otherwise it came to its end.
    pub killed: bool,
}

/// Runs a command, whose program is called `program`, and kills it before the step of that number; without one it comes to its end, which must be good.
///
/// # Errors
/// When it can't be traced, or fails by itself.
pub fn run(command: &mut Command, program: &str, kill_before: Option<usize>) -> Result<Run> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: between fork and exec only ptrace is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let outcome = follow(Pid::from_raw(child.id().cast_signed()), program, kill_before);
    if outcome.is_err() {
        // It may be gone, and reaped.
        let _gone = child.kill().and_then(|()| child.wait());
    }
    outcome.with_context(|| format!("following {program}"))
}

/// Follows a process that stopped for the first time.
fn follow(pid: Pid, program: &str, kill_before: Option<usize>) -> Result<Run> {
    let mut run = Run { steps: Vec::new(), killed: false };
    let mut is_program = false;
    ensure!(
        matches!(waitpid(pid, None)?, WaitStatus::Stopped(_, Signal::SIGTRAP)),
        "it did not stop at its beginning"
    );
    ptrace::setoptions(
        pid,
        ptrace::Options::PTRACE_O_TRACESYSGOOD
            | ptrace::Options::PTRACE_O_TRACEEXEC
            | ptrace::Options::PTRACE_O_EXITKILL,
    )?;
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(..) => {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).context("its name")?;
                is_program = name.trim_end() == program;
            }
            WaitStatus::PtraceSyscall(_) if is_program => {
                let Some(step) = step(pid)? else { continue };
                run.steps.push(step);
                if kill_before == Some(run.steps.len() - 1) {
                    kill(pid, Signal::SIGKILL)?;
                    let end = waitpid(pid, None)?;
                    ensure!(
                        matches!(end, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
                        "it ended with {end:?}"
                    );
                    run.killed = true;
                    return Ok(run);
                }
            }
            WaitStatus::Stopped(_, sent) => signal = Some(sent),
            WaitStatus::Exited(_, 0) => return Ok(run),
            end @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => bail!("it ended with {end:?}"),
            _ => {}
        }
    }
}

/// What the call that begins would change; `None` for one that changes nothing, or only what ends with the process.
fn step(pid: Pid) -> Result<Option<String>> {
    let info = ptrace::syscall_info(pid)?;
    if info.op != ENTRY {
        return Ok(None);
    }
    // SAFETY: `op` says that this is the member of the union that the kernel has filled in.
    let (number, words) = unsafe { (info.u.entry.nr.cast_signed(), info.u.entry.args) };
    let path = |word: usize| format!(" {}", string(pid, words[word]).unwrap_or_default());
    let file = || {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{}", words[0])).unwrap_or_default();
        format!(" {}", link.display())
    };
    Ok(Some(match number {
        libc::SYS_bpf => match words[0] {
            2 | 26 => "update an entry".to_owned(),
            3 | 27 => "delete an entry".to_owned(),
            // The path is the first field of the attributes.
            6 => format!("pin {}", pointer(pid, words[1]).and_then(|at| string(pid, at)).unwrap_or_default()),
            17 => "attach to a tracepoint".to_owned(),
            22 => "freeze a map".to_owned(),
            28 => "attach".to_owned(),
            29 => "replace a program".to_owned(),
            34 => "detach".to_owned(),
            _ => return Ok(None),
        },
        libc::SYS_mkdirat => format!("make{}", path(1)),
        libc::SYS_unlinkat => format!("remove{}", path(1)),
        libc::SYS_renameat | libc::SYS_renameat2 => format!("rename{} to{}", path(1), path(3)),
        libc::SYS_linkat => format!("link{}", path(3)),
        libc::SYS_symlinkat => format!("link{}", path(2)),
        libc::SYS_openat if words[2] & libc::O_CREAT as u64 != 0 => format!("create{}", path(1)),
        libc::SYS_pwrite64 => format!("write{}", file()),
        libc::SYS_write if words[0] > 2 => format!("write{}", file()),
        libc::SYS_ftruncate => format!("truncate{}", file()),
        libc::SYS_sendto => "ask rtnetlink".to_owned(),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => format!("make{}", path(0)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink | libc::SYS_rmdir => format!("remove{}", path(0)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => format!("rename{} to{}", path(0), path(1)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link | libc::SYS_symlink => format!("link{}", path(1)),
        _ => return Ok(None),
    }))
}

/// Bytes of the memory of a process that is stopped; fewer at the end of what it has.
fn memory(pid: Pid, at: u64, bytes: &mut [u8]) -> Option<usize> {
    std::fs::File::open(format!("/proc/{pid}/mem")).ok()?.read_at(bytes, at).ok()
}

fn pointer(pid: Pid, at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (memory(pid, at, &mut bytes)? == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

fn string(pid: Pid, at: u64) -> Option<String> {
    let mut bytes = [0; PATH_BYTES];
    let length = memory(pid, at, &mut bytes)?;
    bytes[..length].split(|byte| *byte == 0).next().map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Runs of a command at the most, unless `SIPGUARD_KILLS` says otherwise.
const RUNS: usize = 16;

/// Which steps are worth a run: of those that do one after the other the same in one directory, the first two and the last; of more than 16, so
/// many that lie evenly among them. `SIPGUARD_KILLS` is another number of runs, or `all` for each step.
///
/// # Errors
/// When `SIPGUARD_KILLS` is neither.
pub fn telling(steps: &[String]) -> Result<Vec<usize>> {
    let runs = match std::env::var("SIPGUARD_KILLS") {
        Err(_) => RUNS,
        Ok(all) if all == "all" => return Ok((0..steps.len()).collect()),
        Ok(number) => number.parse().context("SIPGUARD_KILLS is a number, or all")?,
    };
    let kind = |at: usize| {
        let step = steps.get(at)?;
        let parent = Path::new(step).parent().map(Path::to_string_lossy).unwrap_or_default();
        Some(if parent.is_empty() { step.clone() } else { parent.into_owned() })
    };
    let is_telling = |at: &usize| {
        let same = |other: Option<usize>| other.is_some_and(|other| kind(other) == kind(*at));
        !same(at.checked_sub(1)) || !same(at.checked_sub(2)) || !same(at.checked_add(1))
    };
    let telling: Vec<usize> = (0..steps.len()).filter(is_telling).collect();
    let runs = runs.clamp(2, telling.len().max(2));
    if telling.len() <= runs {
        return Ok(telling);
    }
    Ok((0..runs).map(|run| telling[run * (telling.len() - 1) / (runs - 1)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "exec cp --no-preserve=all /proc/self/stat \"$0\""]);
        command
    }

    #[test]
    fn it_is_killed_before_a_step_and_what_came_before_is_done() -> Result<()> {
        let scratch = crate::scratch::Scratch::new("steps")?;
        let whole = run(shell().arg(scratch.join("a")), "cp", None)?;
        let find = |start: &str| whole.steps.iter().position(|step| step.starts_with(start));
        let create = find("create").context("it creates no file")?;
        assert!(!whole.killed && whole.steps[create].ends_with("/a"), "{:?}", whole.steps);
        let write = find("write").context("it writes nothing")?;
        for (step, file) in [(create, false), (write, true)] {
            let killed = run(shell().arg(scratch.join("b")), "cp", Some(step))?;
            assert!(killed.killed && killed.steps.len() == step + 1, "{killed:?}");
            let length = std::fs::metadata(scratch.join("b")).map(|found| found.len()).ok();
            assert_eq!(length, file.then_some(0), "{killed:?}");
        }
        assert!(run(Command::new("sh").args(["-c", "exit 3"]), "sh", None).is_err());
        Ok(())
    }

    #[test]
    fn of_what_is_repeated_the_first_two_and_the_last_are_tried() {
        let steps: Vec<String> =
            ["make /a", "pin /a/b/1", "pin /a/b/2", "pin /a/b/3", "pin /a/b/4", "pin /a/c/1", "attach"]
                .map(String::from)
                .to_vec();
        assert_eq!(telling(&steps).unwrap(), [0, 1, 2, 4, 5, 6]);
        let steps: Vec<String> = (0..100).map(|number| format!("make /{number}/a")).collect();
        let chosen = telling(&steps).unwrap();
        assert_eq!((chosen.len(), chosen[0], chosen[RUNS - 1]), (RUNS, 0, 99), "{chosen:?}");
    }
}
