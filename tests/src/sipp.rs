//! Real phones and trunks by the hundred: SIPp in a namespace.

use std::{
    collections::HashMap,
    fs::File,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::{application::PATIENCE, netns::Netns, process::Running, scratch::Scratch};

/// What SIPp plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A phone that registers; each call is another user.
    Register,
    /// A caller: INVITE with SDP, ACK, BYE.
    Uac,
    /// The called side on port 5060: a trunk.
    Uas,
    /// A phone that subscribes to its mailbox and answers five NOTIFY; each call is another user.
    Subscriber,
    /// The PBX on port 5060 to which it subscribes: the CSeq of its NOTIFYs are [`NOTIFIED`], and each answer must have the same one.
    Notifier,
}

/// The sequence numbers of [`Scenario::Notifier`], in their order.
pub const NOTIFIED: [u32; 5] = [1 << 31, (1 << 31) + 1, 3_000_000_000, u32::MAX - 1, u32::MAX];

/// Over what it plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP, one socket for all calls.
    Udp,
    /// TCP, one connection for all calls.
    Tcp,
    /// TCP, one connection a call.
    TcpPerCall,
}

/// What SIPp shall do. Start from [`Order::new`] and change what differs.
#[derive(Debug, Clone)]
pub struct Order {
    /// What to play.
    pub scenario: Scenario,
    /// Over what.
    pub transport: Transport,
    /// `ADDRESS:PORT` of the proxy; not used by whoever listens.
    pub remote: String,
    /// The address it uses and announces; chosen by the route when `None`.
    pub local: Option<String>,
    /// How many calls or registrations; whoever listens answers until it is stopped.
    pub calls: u32,
    /// New calls a second.
    pub rate: u32,
    /// What its users are called; the number of the call is appended.
    pub user: String,
    /// Whom a [`Scenario::Uac`] calls.
    pub callee: String,
    /// How long a call lasts.
    pub hold: Duration,
    /// After this time SIPp gives up.
    pub timeout: Duration,
}

/// What SIPp counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Calls begun.
    pub created: u64,
    /// Calls completed as the scenario wants.
    pub successful: u64,
    /// Calls that ended otherwise.
    pub failed: u64,
    /// Messages sent again.
    pub retransmissions: u64,
    /// SIPp's exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// What it said when it was not content; empty when all went well.
    pub errors: String,
}

/// A SIPp that runs. Drop ends it.
#[derive(Debug)]
pub struct Sipp {
    // The process goes before the directory it writes to.
    process: Running,
    scratch: Scratch,
    order: Order,
}

impl Order {
    /// Ten calls or registrations, ten a second, at `remote`, within 30 seconds.
    #[must_use]
    pub fn new(scenario: Scenario, transport: Transport, remote: &str) -> Self {
        Self {
            scenario,
            transport,
            remote: remote.to_owned(),
            local: None,
            calls: 10,
            rate: 10,
            user: "u".to_owned(),
            callee: "9100".to_owned(),
            hold: Duration::from_millis(200),
            timeout: Duration::from_secs(30),
        }
    }

    /// Plays it to its end.
    pub fn run(&self, namespace: &Netns) -> Result<Outcome> {
        self.start(namespace)?.wait()
    }

    /// Begins to play it; [`Scenario::Uas`] and [`Scenario::Notifier`] listen when this returns.
    pub fn start(&self, namespace: &Netns) -> Result<Sipp> {
        let scratch = Scratch::new("sipp")?;
        scratch.write("scenario.xml", self.scenario.text())?;
        let screen = File::create(scratch.join("screen")).context("making the log of sipp")?;
        let mut command = namespace.command("sipp");
        command.current_dir(scratch.path()).args(self.arguments()).stdin(Stdio::null());
        command.stdout(screen.try_clone()?).stderr(screen);
        let process = Running::start("sipp", &mut command)?;
        let mut sipp = Sipp { process, scratch, order: self.clone() };
        if self.scenario.listens() {
            sipp.wait_until_it_listens(namespace)?;
        }
        Ok(sipp)
    }

    fn arguments(&self) -> Vec<String> {
        let transport = match self.transport {
            Transport::Udp => "u1",
            Transport::Tcp => "t1",
            Transport::TcpPerCall => "tn",
        };
        let mut words: Vec<String> = vec![];
        let mut say = |text: &[&str]| words.extend(text.iter().map(ToString::to_string));
        say(&["-sf", "scenario.xml", "-t", transport, "-nostdin", "-skip_rlimit", "-trace_err"]);
        say(&["-error_file", "errors", "-trace_stat", "-stf", "statistics", "-fd", "1"]);
        say(&["-timeout", &format!("{}s", self.timeout.as_secs().max(1)), "-timeout_error"]);
        if let Some(local) = &self.local {
            say(&["-i", local]);
        }
        match self.scenario {
            Scenario::Uas | Scenario::Notifier => say(&["-p", "5060"]),
            Scenario::Register | Scenario::Uac | Scenario::Subscriber => {
                say(&["-m", &self.calls.to_string(), "-r", &self.rate.to_string()]);
                say(&["-key", "user", &self.user, "-key", "callee", &self.callee]);
                say(&["-d", &self.hold.as_millis().to_string()]);
                // A connection that the other side closes fails its calls; it does not end the run.
                say(&[
                    "-max_reconnect",
                    "1000",
                    "-reconnect_sleep",
                    "100",
                    "-recv_timeout",
                    "8000",
                    &self.remote,
                ]);
            }
        }
        words
    }
}

impl Outcome {
    /// Fails unless every one of the calls was completed.
    pub fn expect_all(&self, calls: u32) -> Result<()> {
        if self.successful == u64::from(calls) && self.failed == 0 {
            return Ok(());
        }
        bail!("sipp completed {} of {calls} calls, {} failed: {}", self.successful, self.failed, self.errors);
    }
}

impl Sipp {
    /// Waits until it has done its work; ends it when that takes longer than its own timeout allows.
    pub fn wait(mut self) -> Result<Outcome> {
        self.process.wait_at_most(self.order.timeout + Duration::from_secs(20))?;
        self.outcome()
    }

    /// Asks it to finish the calls that are open and returns what it counted.
    pub fn stop(mut self) -> Result<Outcome> {
        self.process.signal(Signal::SIGUSR1)?;
        self.process.wait_at_most(Duration::from_secs(3))?;
        self.outcome()
    }

    fn outcome(&mut self) -> Result<Outcome> {
        let status = self.process.stop()?.code();
        let statistics = std::fs::read_to_string(self.scratch.join("statistics")).unwrap_or_default();
        let mut outcome = parse_statistics(&statistics)
            .with_context(|| format!("sipp ended with {status:?}: {}", self.complaint()))?;
        outcome.status = status;
        if status != Some(0) || outcome.failed > 0 {
            outcome.errors = self.complaint();
        }
        Ok(outcome)
    }

    /// The first errors that it noted, or else the end of what it printed.
    fn complaint(&self) -> String {
        let read = |name| std::fs::read(self.scratch.join(name)).unwrap_or_default();
        let (errors, screen) = (read("errors"), read("screen"));
        let errors = String::from_utf8_lossy(&errors);
        if errors.trim().is_empty() {
            let screen = String::from_utf8_lossy(&screen);
            let last: Vec<&str> = screen.lines().filter(|line| !line.trim().is_empty()).collect();
            return last[last.len().saturating_sub(5)..].join(" | ");
        }
        errors.chars().take(1500).collect()
    }

    fn wait_until_it_listens(&mut self, namespace: &Netns) -> Result<()> {
        let flag = if self.order.transport == Transport::Udp { "-lunH" } else { "-ltnH" };
        let until = Instant::now() + PATIENCE;
        while !namespace.run(&["ss", flag, "sport", "=", ":5060"])?.contains("5060") {
            if self.process.try_wait()?.is_some() || Instant::now() > until {
                bail!("sipp does not listen on port 5060: {}", self.complaint());
            }
            crate::interrupt::pause(Duration::from_millis(20))?;
        }
        Ok(())
    }
}

impl Transport {
    /// The word of a SIP URI's `transport`.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp | Self::TcpPerCall => "tcp",
        }
    }
}

impl Scenario {
    const fn listens(self) -> bool {
        matches!(self, Self::Uas | Self::Notifier)
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Register => include_str!("../fixtures/register.xml"),
            Self::Uac => include_str!("../fixtures/uac.xml"),
            Self::Uas => include_str!("../fixtures/uas.xml"),
            Self::Subscriber => include_str!("../fixtures/subscriber.xml"),
            Self::Notifier => include_str!("../fixtures/notifier.xml"),
        }
    }
}

/// Reads the last row of SIPp's statistics: names in the first row, semicolons between, "(C)" means since start.
fn parse_statistics(text: &str) -> Result<Outcome> {
    let mut rows = text.lines().filter(|line| !line.trim().is_empty());
    let names = rows.next().context("sipp wrote no statistics")?;
    let last = rows.next_back().context("sipp wrote no row of statistics")?;
    let values: HashMap<&str, &str> = names.split(';').zip(last.split(';')).collect();
    let number = |name: &str| -> Result<u64> {
        let value = values.get(name).with_context(|| format!("sipp's statistics have no {name}"))?;
        value.trim().parse().with_context(|| format!("{name} of sipp's statistics is {value:?}"))
    };
    Ok(Outcome {
        created: number("TotalCallCreated")?,
        successful: number("SuccessfulCall(C)")?,
        failed: number("FailedCall(C)")?,
        retransmissions: number("Retransmissions(C)")?,
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_counts() {
        let text = "StartTime;TotalCallCreated;SuccessfulCall(P);SuccessfulCall(C);FailedCall(C);\
                    Retransmissions(C);\nx;1;0;0;0;0;\nx;10;5;8;2;3;\n";
        let outcome = parse_statistics(text).unwrap();
        assert_eq!((outcome.created, outcome.successful, outcome.failed), (10, 8, 2));
        assert_eq!(outcome.retransmissions, 3);
        let error = outcome.expect_all(10).unwrap_err().to_string();
        assert!(error.contains("8 of 10"), "{error}");
    }

    #[test]
    fn the_notifier_counts_as_it_says() {
        let text = Scenario::Notifier.text();
        let counted = text.lines().filter_map(|line| line.strip_prefix("CSeq: ")?.strip_suffix(" NOTIFY"));
        assert!(counted.eq(NOTIFIED.map(|number| number.to_string())));
        let answers = NOTIFIED.map(|number| text.contains(&format!("\"^ *{number} NOTIFY *$\"")));
        assert_eq!(answers, [true; NOTIFIED.len()]);
        assert_eq!(Scenario::Subscriber.text().matches("request=\"NOTIFY\"").count(), NOTIFIED.len());
    }

    #[test]
    fn no_statistics_is_an_error() {
        assert!(parse_statistics("").is_err());
        assert!(parse_statistics("TotalCallCreated;\n").is_err());
    }
}
