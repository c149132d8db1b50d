//! What the kernel complains about.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context as _, Result};
use nix::{errno::Errno, libc};

/// What no good kernel says, whatever it is asked to do; what tells most comes first.
const COMPLAINTS: [&str; 10] = [
    "Bad page",
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection",
    "refcount_t:",
    "detected stalls",
    "blocked for more than",
    "Out of memory",
    "Call Trace",
];

/// The log from now on.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// Begins behind what was said so far.
    ///
    /// # Errors
    /// When the log can't be opened.
    pub fn from_now() -> Result<Self> {
        let mut log = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("opening the kernel's log")?;
        log.seek(SeekFrom::End(0)).context("going to the end of the kernel's log")?;
        Ok(Self(log))
    }

    /// The first complaint since then, with the line that follows it.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn complaint(&mut self) -> Result<Option<String>> {
        let mut lines = Vec::new();
        // A record is read whole or not at all; the longest is shorter.
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(count) => lines.push(text(&record[..count])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Records were overwritten before they were read: the next one is there.
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
                Err(error) => return Err(error).context("reading the kernel's log"),
            }
        }
        Ok(first_complaint(&lines))
    }
}

/// What a record says, without its numbers and what it adds for programs.
fn text(record: &[u8]) -> String {
    let record = String::from_utf8_lossy(record);
    let message = record.split_once(';').map_or(&*record, |(_, message)| message);
    message.lines().next().unwrap_or_default().to_owned()
}

fn first_complaint(lines: &[String]) -> Option<String> {
    let at = COMPLAINTS.iter().find_map(|words| lines.iter().position(|line| line.contains(words)))?;
    Some(lines[at..].iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" / "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_found_among_what_is_usual() {
        let record = |text: &str| format!("4,1203,88123,-;{text}\n SUBSYSTEM=net\n");
        let lines: Vec<String> = [
            "eth0: entered promiscuous mode",
            "Call Trace:",
            "BUG: Bad page state in process ksoftirqd/1  pfn:03a2f",
            "page:00000000 refcount:-1",
        ]
        .iter()
        .map(|line| text(record(line).as_bytes()))
        .collect();
        let found = first_complaint(&lines).unwrap();
        assert_eq!(
            found,
            "BUG: Bad page state in process ksoftirqd/1  pfn:03a2f / page:00000000 refcount:-1"
        );
        assert_eq!(first_complaint(&lines[..1]), None);
    }
}
