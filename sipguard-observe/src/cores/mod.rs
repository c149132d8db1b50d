//! Core dumps that fill no disk: what a PBX in a crash loop leaves behind is moved away or thinned. Off unless it is asked for.
//!
//! Only regular files are touched whose name is that of a core and which begin as one (ELF, `ET_CORE`); links are never followed.

mod copy;
mod file;
mod watch;

use std::fmt;
use std::path::PathBuf;

pub use watch::CoreWatch;

/// What was done to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It has a name of its own now, so that the next one does not overwrite it.
    Renamed,
    /// It is in the other place.
    Moved,
    /// It is gone.
    Deleted,
    /// It is gone while it was written; what is still written is thrown away.
    Cut,
    /// Nothing could be done.
    Failed,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreAction {
    /// What.
    pub what: What,
    /// The core that it was done to.
    pub path: PathBuf,
    /// Bytes that it occupied.
    pub bytes: u64,
    /// Why, or where to.
    pub why: String,
}

impl fmt::Display for CoreAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Renamed => "renamed",
            What::Moved => "moved",
            What::Deleted => "deleted",
            What::Cut => "cut off",
            What::Failed => "left as it is",
        };
        write!(f, "core {} ({} MiB) {what}: {}", self.path.display(), self.bytes >> 20, self.why)
    }
}

/// Whether a name fits a pattern, in which `*` stands for anything.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            let Some(at) = rest.find(middle) else { return false };
            rest = &rest[at + middle.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("core", "core", true),
            ("core", "core.1", false),
            ("core", "xcore", false),
            ("core.*", "core.", true),
            ("core.*", "core.12", true),
            ("core.*", "score.12", false),
            ("*.core", "asterisk.core", true),
            ("*.core", "asterisk.core.gz", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
