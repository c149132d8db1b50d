//! What the verb outside reads: lines on the second serial port, where the kernel writes nothing.

use std::{fs::File, io::Write as _};

use anyhow::{Context as _, Result};

/// The second serial port; the first is the kernel's console.
const PORT: &str = "/dev/ttyS1";

/// Where lines go.
#[derive(Debug)]
pub struct Report(File);

impl Report {
    /// Opens the port.
    ///
    /// # Errors
    /// When the machine has none.
    pub fn open() -> Result<Self> {
        let port = File::options().write(true).open(PORT).with_context(|| format!("opening {PORT}"))?;
        Ok(Self(port))
    }

    /// Writes one line; what would end it early becomes a space.
    ///
    /// # Errors
    /// Those of writing.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let text = text.replace(['\n', '\r'], " ");
        self.0.write_all(format!("{text}\n").as_bytes()).with_context(|| format!("writing to {PORT}"))
    }
}
