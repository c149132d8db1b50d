//! baresip (the libre stack): keeps its flow open as RFC 5626 wants, with line ends over TCP and STUN over UDP.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Line;
use crate::{
    application::{PATIENCE, wait_until},
    netns::Netns,
    process::Running,
    scratch::Scratch,
};

/// Its sound is a bridge from itself to itself, which needs no sound card.
const CONFIG: &str = "\
module_path /usr/lib/baresip/modules
module uuid.so
module account.so
module g711.so
module aubridge.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:4444
audio_player aubridge,lab
audio_source aubridge,lab
audio_alert aubridge,lab
";

/// A baresip that registers, answers every call and does what it is told. Drop ends it and removes its files.
#[derive(Debug)]
pub struct Baresip {
    // The process goes before the directory it writes to.
    process: Running,
    control: TcpStream,
    unread: Vec<u8>,
    events: Vec<String>,
    scratch: Scratch,
}

impl Baresip {
    /// Starts it; it registers by itself. One in a namespace, as its control port is always the same.
    pub fn start(namespace: &Netns, line: &Line<'_>) -> Result<Self> {
        let scratch = Scratch::new("baresip")?;
        scratch.write("config", CONFIG)?;
        scratch.write("accounts", &account(line))?;
        scratch.write("contacts", "")?;
        let log = File::create(scratch.join("log")).context("making the log of baresip")?;
        let mut command = namespace.command("baresip");
        // `-s`: the log shows each message that it sends and gets.
        command.arg("-f").arg(scratch.path()).arg("-s");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Running::start("baresip", &mut command)?;
        let mut control = None;
        wait_until("baresip takes orders", || {
            process.expect_alive()?;
            control = namespace.enter(|| TcpStream::connect("127.0.0.1:4444"))?.ok();
            Ok(control.is_some())
        })?;
        let control = control.context("no connection to baresip")?;
        control.set_read_timeout(Some(Duration::from_millis(100))).context("setting a timeout")?;
        Ok(Self { process, control, unread: vec![], events: vec![], scratch })
    }

    /// Tells it to do something, such as `dial` with a URI, and waits until it says that it understood.
    pub fn order(&mut self, command: &str, parameters: &str) -> Result<()> {
        let order = json!({"command": command, "params": parameters, "token": "lab"}).to_string();
        write!(self.control, "{}:{order},", order.len()).context("giving baresip an order")?;
        let until = Instant::now() + PATIENCE;
        loop {
            match self.news(until, command)? {
                news if news["response"] == true => {
                    ensure!(news["ok"] == true, "baresip refused {command} {parameters}: {news}");
                    return Ok(());
                }
                event => self.note(&event),
            }
        }
    }

    /// Waits for an event that was not waited for yet, such as `CALL_ESTABLISHED`.
    pub fn wait_for(&mut self, event: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.events.iter().position(|seen| seen == event) {
                self.events.drain(..=at);
                return Ok(());
            }
            let news = self.news(until, event)?;
            self.note(&news);
        }
    }

    /// Makes it cancel its registration and end.
    pub fn quit(mut self) -> Result<()> {
        self.order("quit", "")?;
        let status = self.process.wait_at_most(PATIENCE)?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "baresip ended with {status:?}: {}",
            self.log()
        );
        Ok(())
    }

    /// The end of what it logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.scratch.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]).into_owned()
    }

    fn note(&mut self, news: &Value) {
        self.events.extend(news["type"].as_str().map(str::to_owned));
    }

    /// The next thing that it says.
    fn news(&mut self, until: Instant, what: &str) -> Result<Value> {
        loop {
            if let Some((text, length)) = netstring(&self.unread)? {
                let news = serde_json::from_slice(text).context("baresip said no JSON")?;
                self.unread.drain(..length);
                return Ok(news);
            }
            let mut chunk = [0; 4096];
            match self.control.read(&mut chunk) {
                Ok(0) => bail!("baresip went away: {}", self.log()),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    ensure!(Instant::now() < until, "no {what} from baresip: {}", self.log());
                    crate::interrupt::check()?;
                }
                Err(error) => return Err(error).context("listening to baresip"),
            }
        }
    }
}

fn account(line: &Line<'_>) -> String {
    format!(
        "<sip:{}@sipguard.test;transport={}>;auth_pass=none;outbound=\"{}\";sipnat=outbound;regint={};\
         answermode=auto\n",
        line.user,
        line.transport.parameter(),
        line.uri(None),
        line.renewal_secs
    )
}

/// The first netstring (`4:text,`) of `bytes` and how many bytes it takes, if it is there to its end.
fn netstring(bytes: &[u8]) -> Result<Option<(&[u8], usize)>> {
    let Some(colon) = bytes.iter().position(|byte| *byte == b':') else { return Ok(None) };
    let digits = std::str::from_utf8(&bytes[..colon]).context("no netstring")?;
    let length: usize = digits.parse().with_context(|| format!("{digits:?} is no length"))?;
    let end = colon + 1 + length;
    Ok(bytes.get(end).map(|_comma| (&bytes[colon + 1..end], end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netstrings_come_in_pieces() {
        for part in ["", "4", "4:", "4:text"] {
            assert_eq!(netstring(part.as_bytes()).unwrap(), None);
        }
        assert_eq!(netstring(b"4:text,1:x,").unwrap(), Some((&b"text"[..], 7)));
        assert!(netstring(b"x:text,").is_err());
    }
}
