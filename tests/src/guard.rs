//! sipguard as an operator uses it: its command line, inside the namespace of the PBX.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::Array;
use serde_json::Value;
use sipguard_common::{
    Class, Reason,
    abi::{ObserveSettings, names},
};
use sipguard_core::{
    maps::{Plain, open},
    pins::Pins,
};

use crate::netns::{Netns, veth};

/// No verb takes long, but under an emulated processor that has little time; one that waits for ever must not keep a test or the demo from cleaning up.
const LONGEST_RUN_SECS: &str = "300";

/// A program of the workspace: named by the environment's `variable`, or else next to this executable.
pub fn neighbour(variable: &str, name: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => path.into(),
        None => {
            let own = std::env::current_exe().context("asking for the path of this executable")?;
            let directory = own.parent().unwrap_or(Path::new("."));
            // Test executables lie one directory below the programs of their profile.
            let below = directory.file_name().is_some_and(|name| name == "deps");
            directory.parent().filter(|_| below).unwrap_or(directory).join(name)
        }
    };
    if !path.exists() {
        bail!(
            "there is no {}: `cargo build --bin {name}` makes it, or name it in the variable {variable}",
            path.display()
        );
    }
    Ok(path)
}

/// sipguard in one namespace, with pins and a store of its own. Drop detaches it and removes both.
#[derive(Debug)]
pub struct Guard {
    program: PathBuf,
    /// The namespace's file: a guard may live in one struct with its namespace, before it.
    network: String,
    pins: PathBuf,
    store: PathBuf,
}

/// How a run of sipguard ended and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// One line of `sipguard counters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// The interface.
    pub interface: String,
    /// The reason's word.
    pub reason: String,
    /// What became of the packets.
    pub action: String,
    /// How many there were.
    pub packets: u64,
}

impl Guard {
    /// A guard that is not attached to anything yet.
    pub fn new(namespace: &Netns, program: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/sgt-{}-{number}", std::process::id()));
        let directory = format!("sipguard-store-{}-{number}", std::process::id());
        let store = std::env::temp_dir().join(directory).join("rules.db");
        Self { program: program.to_owned(), network: namespace.path(), pins, store }
    }

    /// `sipguard attach` with these interfaces and options.
    pub fn attach(&self, words: &[&str]) -> Result<()> {
        self.run(&[&["attach"], words].concat())?.expect(0).map(drop)
    }

    /// Where its pins are, or will be.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Where its rules are, or will be; the directory is its own.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// A command of it; it becomes the program (no fork), so the child's pid is the program's.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.enter();
        command.arg(&self.program).args(words);
        command
    }

    /// Runs a command of it to its end, without input.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        self.run_with_input(words, "")
    }

    /// Runs a command of it to its end, with `input` on its standard input.
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Result<Output> {
        let shown = || format!("sipguard {}", words.join(" "));
        let mut command = self.enter();
        command.args(["timeout", LONGEST_RUN_SECS]).arg(&self.program).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", shown()))?;
        let mut stdin = child.stdin.take().context("no pipe to sipguard")?;
        // A program that does not read its input is content without it.
        let _unread = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("running {}", shown()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = output.status.code().with_context(|| format!("{}: {}", shown(), output.status))?;
        Ok(Output { status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// What a command that must succeed says as JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let output = self.run(&[words, &["-o", "json"]].concat())?.expect(0)?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("sipguard {} printed no JSON", words.join(" ")))
    }

    /// The rows of what a command says as JSON.
    pub fn rows(&self, words: &[&str]) -> Result<Vec<Value>> {
        let mut answer = self.json(words)?;
        match answer["rows"].take() {
            Value::Array(rows) => Ok(rows),
            _ => bail!("no rows in {answer}"),
        }
    }

    /// Every rule, however many there are.
    pub fn rules(&self) -> Result<Vec<Value>> {
        self.rows(&["list", "--limit", "all"])
    }

    /// `sipguard counters`, row by row.
    pub fn counter_rows(&self) -> Result<Vec<Counter>> {
        self.rows(&["counters"])?.iter().map(counter).collect()
    }

    /// `sipguard counters`: packets by reason, over all interfaces and actions.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let mut sums = BTreeMap::new();
        for row in self.counter_rows()? {
            *sums.entry(row.reason).or_default() += row.packets;
        }
        Ok(sums)
    }

    /// The packets of one reason.
    pub fn counted(&self, reason: Reason) -> Result<u64> {
        Ok(self.counters()?.get(reason.name()).copied().unwrap_or(0))
    }

    /// Packets by reason and action that were judged malformed; empty when there were none.
    pub fn malformed(&self) -> Result<BTreeMap<(String, String), u64>> {
        let ends = |reason: &Reason| matches!(reason.class(), Class::Malformed | Class::Reset);
        let ends = |word: &str| Reason::ALL.iter().any(|reason| reason.name() == word && ends(reason));
        let rows = self.counter_rows()?.into_iter().filter(|row| ends(&row.reason));
        Ok(rows.map(|row| ((row.reason, row.action), row.packets)).collect())
    }

    /// What the kernel is asked to record, by `capture` or another.
    pub fn taps(&self) -> Result<ObserveSettings> {
        let map: Array<_, Plain<ObserveSettings>> = open(&Pins::new(&self.pins), names::TAPS)?;
        Ok(map.get(&0, 0).context("reading what is captured")?.0)
    }

    /// Fails when anything was counted as malformed, or dropped: with good peers on a good wire nothing is.
    pub fn expect_nothing_stopped(&self) -> Result<()> {
        let rows = self.counter_rows()?;
        let stopped: Vec<&Counter> = rows.iter().filter(|row| row.action != "pass").collect();
        ensure!(stopped.is_empty(), "stopped, or would have been: {stopped:?}");
        Ok(())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network)).arg("--").env("SIPGUARD_PINS", &self.pins);
        // Whatever the machine's own configuration is: an empty one.
        command.env("SIPGUARD_STORE", &self.store).env("SIPGUARD_CONFIG", "/dev/null");
        command
    }

    /// Those of containers, which a test that failed leaves.
    fn detach_containers(&self) {
        let beginning = format!("{}@", self.pins.file_name().unwrap_or_default().to_string_lossy());
        let parent = self.pins.parent().unwrap_or(&self.pins);
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_of = entry.file_name().to_string_lossy().starts_with(&beginning);
            if is_of && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                eprintln!("lab: {} stays behind: {error}", entry.path().display());
            }
        }
    }

    fn detach(&self) {
        self.detach_containers();
        if !self.pins.exists() {
            return;
        }
        if let Err(error) = self.run(&["detach", "--all"]).and_then(|output| output.expect(0)) {
            eprintln!("lab: detaching: {error:#}");
        }
        // Also when detaching failed: a pin would keep the program alive.
        if self.pins.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.pins)
        {
            eprintln!("lab: {} stays behind: {error}", self.pins.display());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.detach();
        let directory = self.store.parent().unwrap_or(&self.store);
        if directory.exists()
            && let Err(error) = std::fs::remove_dir_all(directory)
        {
            eprintln!("lab: {} stays behind: {error}", directory.display());
        }
    }
}

impl Output {
    /// Itself, when it ended with `status`.
    pub fn expect(self, status: i32) -> Result<Self> {
        ensure!(
            self.status == status,
            "sipguard ended with {} instead of {status}: {}",
            self.status,
            self.stderr.trim()
        );
        Ok(self)
    }
}

fn counter(row: &Value) -> Result<Counter> {
    Ok(Counter {
        interface: text(row, "interface")?,
        reason: text(row, "reason")?,
        action: text(row, "action")?,
        packets: number(row, "packets")?,
    })
}

/// A field of a row that holds text.
pub fn text(row: &Value, key: &str) -> Result<String> {
    Ok(row[key].as_str().with_context(|| format!("no {key} in {row}"))?.to_owned())
}

/// A field of a row that holds a whole number.
pub fn number(row: &Value, key: &str) -> Result<u64> {
    row[key].as_u64().with_context(|| format!("no {key} in {row}"))
}

/// The bytes of a `sample_hex`: the hexadecimal form is exact where the text is made for people.
pub fn sample(row: &Value) -> Result<Vec<u8>> {
    let hex = text(row, "sample_hex")?;
    let byte = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.with_context(|| format!("{hex:?} is not hexadecimal"))
}

/// A PBX and a phone on one cable, and the guard of the PBX, not yet attached.
#[derive(Debug)]
pub struct Site {
    // The guard goes before the namespace that it runs in.
    /// The guard of the PBX.
    pub guard: Guard,
    /// The machine with the PBX.
    pub pbx: Netns,
    /// The machine at the other end.
    pub phone: Netns,
}

impl Site {
    /// The interface of either machine.
    pub const INTERFACE: &str = "eth0";
    /// Addresses of the PBX.
    pub const PBX: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V6(v6(1))];
    /// Addresses of the phone.
    pub const PHONE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), IpAddr::V6(v6(2))];

    /// Lays the cable; `offload` as for [`veth`].
    pub fn new(offload: bool) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces and XDP need root: run this test with sudo"
        );
        let program = neighbour("SIPGUARD", "sipguard")?;
        let (pbx, phone) = (Netns::new("pbx")?, Netns::new("phone")?);
        let eth = Self::INTERFACE;
        veth(&pbx, eth, "10.77.0.1/24", &phone, eth, "10.77.0.2/24", offload)?;
        pbx.add_address(eth, "fd77::1/64")?;
        phone.add_address(eth, "fd77::2/64")?;
        Ok(Self { guard: Guard::new(&pbx, &program), pbx, phone })
    }

    /// The same, with the guard attached with these options.
    pub fn guarded(offload: bool, options: &[&str]) -> Result<Self> {
        let site = Self::new(offload)?;
        site.guard.attach(&[&[Self::INTERFACE], options].concat())?;
        Ok(site)
    }
}

const fn v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counters_need_their_fields() {
        let good = json!({"interface": "office", "reason": "ok", "action": "pass", "packets": 4});
        assert_eq!(counter(&good).unwrap().packets, 4);
        assert!(counter(&json!({"interface": "office"})).is_err());
    }

    #[test]
    fn a_sample_is_hexadecimal() {
        assert_eq!(sample(&json!({"sample_hex": "00ff41"})).unwrap(), [0, 255, b'A']);
        assert!(sample(&json!({"sample_hex": "0"})).is_err() && sample(&json!({})).is_err());
    }
}
