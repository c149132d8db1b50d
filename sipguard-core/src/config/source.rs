//! The text of the files, and which place of which file a position is.

use std::fmt;
use std::path::{Path, PathBuf};

/// A file and its text.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// All files, as if they were one text, in the order in which they are read.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub Vec<ConfigSource>);

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// A mistake, or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub location: Location,
    /// The key that it is about; may be empty.
    pub key: String,
    /// What, and the remedy.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { location, key, text } = self;
        if key.is_empty() { write!(f, "{location}: {text}") } else { write!(f, "{location}: {key}: {text}") }
    }
}

impl Sources {
    /// Each file with the position at which it begins.
    pub fn each(&self) -> impl Iterator<Item = (usize, &ConfigSource)> {
        self.0.iter().scan(0, |next, source| {
            let start = *next;
            // One more, so that the end of a file is not the start of the next.
            *next += source.text.len() + 1;
            Some((start, source))
        })
    }

    /// The place of a position.
    #[must_use]
    pub fn location(&self, position: usize) -> Location {
        let found = self.each().filter(|(start, _)| *start <= position).last();
        let Some((start, ConfigSource { path, text })) = found else {
            return Location { path: PathBuf::new(), line: 1, column: 1 };
        };
        let before = text.get(..position - start).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Location {
            path: path.clone(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }

    /// The files, in the order in which they are read.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.0.iter().map(|source| source.path.as_path()).collect()
    }
}
