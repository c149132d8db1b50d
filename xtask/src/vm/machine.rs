//! One virtual machine: started, listened to within its time, and ended.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{kernel::Kernel, table::Outcome};

/// How long a machine may take before its first cell.
const BOOT: Duration = Duration::from_secs(240);
/// How long a cell may take. An emulated processor is slow, and the machine may have other things to do.
const CELL: Duration = Duration::from_secs(3600);
/// An emulated machine with two network cards on one cable, which leads nowhere else.
const HARDWARE: &str = "-accel tcg,thread=multi -machine q35 -cpu max -smp 2 -m 1024M -display none -monitor none -nodefaults \
    -netdev hubport,hubid=1,id=a -device virtio-net-pci,netdev=a -netdev hubport,hubid=1,id=b -device virtio-net-pci,netdev=b";

/// What the kernel is told: to say on its console what goes wrong, to end with a panic, to look at each page that is freed or taken,
/// and to be patient with a slow processor.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic page_poison=1 watchdog_thresh=60 \
    rcupdate.rcu_cpu_stall_timeout=120 net.ifnames=0 no_timer_check";

/// What a machine is started with.
#[derive(Debug)]
pub struct Spec<'a> {
    /// Its kernel.
    pub kernel: &'a Kernel,
    /// Its initramfs.
    pub image: &'a Path,
    /// Its disk, when it is to start from one; such a machine may reboot.
    pub disk: Option<&'a Path>,
    /// What it is to try.
    pub cells: &'a [String],
    /// Where what the kernel says goes.
    pub console: &'a Path,
}

/// Starts a machine, and returns an outcome of each cell up to one in which it died.
pub fn run(spec: &Spec<'_>) -> Result<Vec<Outcome>> {
    let Spec { cells, console, .. } = spec;
    let machine = Machine::start(&mut command(spec))?;
    let mut outcomes = Vec::new();
    let mut running: Option<String> = None;
    let mut until = Instant::now() + BOOT;
    loop {
        let line = match machine.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(end) => {
                // Without a name it is the machine itself that did not come so far.
                if let Some(name) = running.or_else(|| outcomes.is_empty().then(|| cells[0].clone())) {
                    let outcome = Outcome { name, failure: Some(death(end, console)), detail: String::new() };
                    println!("vm:   {outcome}");
                    outcomes.push(outcome);
                }
                return Ok(outcomes);
            }
        };
        until = Instant::now() + CELL;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let (name, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        let failure = match verb {
            "begin" => {
                running = Some(name.to_owned());
                continue;
            }
            "ok" => None,
            "failed" => Some(detail.to_owned()),
            // The rest of what it says is for people.
            _ => continue,
        };
        running = None;
        let detail = if failure.is_none() { detail.to_owned() } else { String::new() };
        let outcome = Outcome { name: name.to_owned(), failure, detail };
        println!("vm:   {outcome}");
        outcomes.push(outcome);
    }
}

fn command(spec: &Spec<'_>) -> Command {
    let mut command = Command::new("nice");
    command.args("-n 10 qemu-system-x86_64".split(' ')).args(HARDWARE.split_whitespace());
    command.args(["-serial", &format!("file:{}", spec.console.display()), "-serial", "stdio"]);
    command.arg("-kernel").arg(&spec.kernel.image).arg("-initrd").arg(spec.image);
    let append = match spec.disk {
        Some(disk) => {
            command.args(["-drive", &format!("file={},format=raw,if=virtio", disk.display())]);
            COMMAND_LINE.to_owned()
        }
        None => {
            command.arg("-no-reboot");
            format!("{COMMAND_LINE} cells={}", spec.cells.join(","))
        }
    };
    command.args(["-append", &append]);
    command
}

/// Why a machine said no more.
fn death(end: RecvTimeoutError, console: &Path) -> String {
    let log = fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let why = complaint(&log).unwrap_or_else(|| "without a word on its console".to_owned());
    match end {
        RecvTimeoutError::Timeout => format!("the machine hangs: {why}"),
        RecvTimeoutError::Disconnected => format!("the machine ended: {why}"),
    }
}

/// The line of a console that tells most about a death.
fn complaint(log: &str) -> Option<String> {
    let find = |words: &str| log.lines().find(|line| line.contains(words));
    let found = ["BUG:", "Oops", "Kernel panic", "WARNING:"].into_iter().find_map(find)?;
    // Without the time.
    let text = found.split_once("] ").map_or(found, |(_, text)| text);
    Some(text.trim().to_owned())
}

/// A machine that is ended by drop.
struct Machine {
    child: Child,
    lines: Receiver<String>,
}

impl Machine {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("starting qemu-system-x86_64")?;
        let output = child.stdout.take().context("no pipe to the machine")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line.trim().to_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A machine that ended by itself can't be killed, and need not be.
        let _ended = self.child.kill();
        if let Err(error) = self.child.wait() {
            eprintln!("vm: waiting for the machine: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_by_its_first_cause() {
        let log = "[   21.1] virtio_net: up\n[   30.5] BUG: Bad page state in process a\n[   31.0] Kernel panic - not syncing: b\n";
        assert_eq!(complaint(log).unwrap(), "BUG: Bad page state in process a");
        assert_eq!(
            complaint("[ 31.0] Kernel panic - not syncing: b").unwrap(),
            "Kernel panic - not syncing: b"
        );
        assert_eq!(complaint("[ 1.0] all is well"), None);
    }
}
