//! The terminal: taken, and given back whatever happens.
//!
//! What the store says on standard error (that it is damaged, for one) would land in the middle of the screen. So meanwhile standard error is a
//! file in memory, from which the loop reads what is new.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{dup, dup2_stderr};
use ratatui::DefaultTerminal;

/// The terminal while it is ours. Drop gives it back.
pub struct Screen {
    /// What is drawn on.
    pub terminal: DefaultTerminal,
    said: Said,
}

/// What goes to standard error meanwhile.
struct Said {
    file: File,
    read: u64,
    before: Arc<OwnedFd>,
}

impl Said {
    fn begin() -> Result<Said> {
        let file: File =
            memfd_create("sipguard-top", MFdFlags::MFD_CLOEXEC).context("making a file in memory")?.into();
        let before = Arc::new(dup(std::io::stderr()).context("keeping standard error")?);
        dup2_stderr(&file).context("taking standard error")?;
        Ok(Said { file, read: 0, before })
    }

    fn next(&mut self) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.file.read_at(&mut buffer, self.read) {
            text.extend(&buffer[..count]);
            self.read += count as u64;
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        // Nothing more can be done where this fails: there is no place to say so.
        let _lost = dup2_stderr(&self.before);
    }
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it can't be set as needed.
    pub fn open() -> Result<Screen> {
        let said = Said::begin()?;
        // ratatui's own hook gives the terminal back before a panic is told; ours lets it be told where it is read.
        let terminal = ratatui::try_init().context("taking the terminal")?;
        let before = Arc::clone(&said.before);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _lost = dup2_stderr(&before);
            hook(panic);
        }));
        Ok(Screen { terminal, said })
    }

    /// What was said on standard error since the last time, without `sipguard: `; `None` when nothing was.
    pub fn said(&mut self) -> Option<String> {
        let text = self.said.next();
        let line = text.lines().rfind(|line| !line.trim().is_empty())?;
        Some(line.strip_prefix("sipguard: ").unwrap_or(line).to_owned())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
