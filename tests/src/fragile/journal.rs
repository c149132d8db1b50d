//! What the application read, on disk before it crashes.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::Path,
};

use anyhow::{Context as _, Result};

/// One read of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From whom, as the application sees it.
    pub peer: SocketAddr,
    /// How many bytes.
    pub bytes: usize,
    /// The name of the fault that these bytes completed.
    pub fault: Option<String>,
}

/// A file with a line for each read: `PEER BYTES ok` or `PEER BYTES FAULT`.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens it to append, so that it outlives crashes and restarts.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| format!("opening {}", path.display()))?))
    }

    /// Adds an entry. One write, so that entries of several threads do not mix.
    pub fn note(&self, entry: &Entry) -> Result<()> {
        let line = format!("{} {} {}\n", entry.peer, entry.bytes, entry.fault.as_deref().unwrap_or("ok"));
        (&self.0).write_all(line.as_bytes()).context("writing the journal")
    }

    /// All entries of a journal that another process writes; none when there is no file yet.
    pub fn read(path: &Path) -> Result<Vec<Entry>> {
        if !path.exists() {
            return Ok(vec![]);
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        text.lines().map(parse).collect()
    }
}

fn parse(line: &str) -> Result<Entry> {
    let mut words = line.split(' ');
    let mut next = || words.next().with_context(|| format!("{line:?} is no line of a journal"));
    let peer = next()?.parse().with_context(|| format!("no address in {line:?}"))?;
    let bytes = next()?.parse().with_context(|| format!("no count in {line:?}"))?;
    let fault = Some(next()?.to_owned()).filter(|word| word != "ok");
    Ok(Entry { peer, bytes, fault })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn entries_come_back() -> Result<()> {
        let scratch = Scratch::new("journal")?;
        let path = scratch.join("journal");
        assert_eq!(Journal::read(&path)?, []);
        let good = Entry { peer: "10.77.0.2:4".parse()?, bytes: 7, fault: None };
        let bad = Entry { peer: "[fd77::2]:5".parse()?, bytes: 9, fault: Some("bare-line-feed".into()) };
        for entry in [&good, &bad] {
            Journal::open(&path)?.note(entry)?;
        }
        assert_eq!(Journal::read(&path)?, [good, bad]);
        assert!(parse("10.77.0.2:4 x ok").is_err());
        Ok(())
    }
}
