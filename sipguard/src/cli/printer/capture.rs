//! `capture`.

use anyhow::{Result, bail};
use serde::Serialize;
use sipguard_core::notice::Notice;
use sipguard_observe::ops::capture::{End, Outcome};

use super::{Format, notice, object, plural};

/// A capture that ended.
#[derive(Serialize)]
struct CaptureDocument {
    file: String,
    packets: u64,
    bytes: u64,
    /// Packets that came too fast, and are not in the file.
    missed: u64,
}

/// Prints how it ended: on standard error where the packets themselves went to standard output.
pub fn capture(format: Format, outcome: &Outcome) -> Result<()> {
    let Outcome { end, file, packets, bytes, missed } = outcome;
    let why = match end {
        End::Asked | End::Count | End::Reader => "",
        End::Size => "; the file is as large as `--max-size` lets it be",
        End::Disk => "; the disk is nearly full",
        End::Detached => "; the guard was detached",
    };
    let count = plural(usize::try_from(*packets).unwrap_or(usize::MAX), "packet");
    let missing =
        if *missed > 0 { format!(", {missed} more came too fast and are missing") } else { String::new() };
    let text = format!("{count} written{missing}{why}");
    match file {
        None => notice(&Notice(text)),
        Some(path) => {
            let file = path.display().to_string();
            let document = CaptureDocument { file, packets: *packets, bytes: *bytes, missed: *missed };
            object(format, "sipguard.capture/1", &document, || text + "\n")?;
        }
    }
    if *end == End::Disk { bail!("the capture ended early: the disk is nearly full") } else { Ok(()) }
}
