//! `sipguard serve` beside a guard, and a client of its HTTP.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    application::{PATIENCE, wait_until},
    guard::Site,
    process::Running,
    scratch::Scratch,
};

/// Where it listens when nothing else is said.
pub const ADDRESS: &str = "127.0.0.1:9506";

/// A running `sipguard serve`, ended by drop. Its history and what it says outlive it, in a directory of the test.
#[derive(Debug)]
pub struct Service<'s> {
    site: &'s Site,
    /// The process.
    pub running: Running,
    said: PathBuf,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// The lines of the headers, in lower case.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl<'s> Service<'s> {
    /// Starts it and waits until it answers.
    pub fn start(site: &'s Site, scratch: &Scratch, environment: &[(&str, &str)]) -> Result<Self> {
        let said = scratch.join("serve.log");
        let history = scratch.join("history.db");
        let log = File::options().create(true).append(true).open(&said).context("making a log")?;
        // Nothing outside the directory of the test, unless the test says so.
        let config = scratch.write("serve.toml", "[serve]\njournal = false\nevidence = \"none\"\n")?;
        let mut command = site.guard.command(&["serve", "--history"]);
        command.arg(history).stderr(log).env("SIPGUARD_CONFIG", config).envs(environment.iter().copied());
        let mut service = Self { site, running: Running::start("sipguard serve", &mut command)?, said };
        wait_until("sipguard serve answers", || {
            service.running.expect_alive()?;
            Ok(service.get("/health").is_ok())
        })?;
        Ok(service)
    }

    /// What it said so far, and those before it in the same directory.
    pub fn said(&self) -> Result<String> {
        std::fs::read_to_string(&self.said).context("reading its log")
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> Result<Answer> {
        get(self.site, ADDRESS, path)
    }

    /// Asks for JSON.
    pub fn json(&self, path: &str) -> Result<Value> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        serde_json::from_str(&answer.body).with_context(|| format!("{path} is no JSON: {}", answer.body))
    }

    /// Resident memory in kB, and the CPU time that it took so far.
    pub fn cost(&self) -> Result<(u64, Duration)> {
        let pid = self.running.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let rss = rss.trim().trim_end_matches(" kB").parse()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect();
        // `utime` and `stime` of proc(5), in hundredths of a second.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok((rss, Duration::from_millis(ticks * 10)))
    }
}

/// Asks for a path over HTTP, inside the namespace of the PBX.
pub fn get(site: &Site, address: &str, path: &str) -> Result<Answer> {
    ask(site, address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// Sends a request as it is, and reads the answer to its end.
pub fn ask(site: &Site, address: &str, request: &str) -> Result<Answer> {
    let mut stream = connect(site, address)?;
    stream.write_all(request.as_bytes()).context("asking")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("reading the answer")?;
    let text = String::from_utf8(bytes).context("the answer is no text")?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("no answer: {text:?}") };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
    let headers = head.to_ascii_lowercase();
    // Only Prometheus answers in chunks, the only one of which is the answer.
    let body = if headers.contains("transfer-encoding: chunked") {
        body.split_once("\r\n")
            .map_or(body, |(_, rest)| rest.rsplit_once("\r\n0").map_or(rest, |(chunk, _)| chunk))
    } else {
        body
    };
    Ok(Answer { status, headers, body: body.to_owned() })
}

/// Connects, inside the namespace of the PBX.
pub fn connect(site: &Site, address: &str) -> Result<TcpStream> {
    let stream = site.pbx.enter(|| TcpStream::connect(address))??;
    stream.set_read_timeout(Some(PATIENCE)).context("setting a time-out")?;
    Ok(stream)
}
