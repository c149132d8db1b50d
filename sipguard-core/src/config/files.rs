//! Which files there are, and what is in them.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::source::{ConfigSource, Sources};

/// Default place of the configuration.
pub const DEFAULT_FILE: &str = "/etc/sipguard/sipguard.toml";
/// Most bytes of all files together.
const MOST_BYTES: u64 = 1 << 20;
/// Most files beside the first.
const MOST_FILES: usize = 64;
/// Permission bit of others to write.
const OTHERS_WRITE: u32 = 0o002;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct FoundFiles {
    /// The files.
    pub sources: Sources,
    /// Warnings about them, for people.
    pub warnings: Vec<String>,
}

/// Reads a file, or the default one, and `conf.d/*.toml` beside it in the order of their names. The default file need not be there.
///
/// # Errors
/// What is wrong, for people: a named file that is not there, or one that can't be read.
pub(super) fn find(named: Option<&Path>) -> Result<FoundFiles, String> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let mut found = FoundFiles::default();
    let mut paths = vec![path.to_owned()];
    paths.extend(beside(path)?);
    let mut left = MOST_BYTES;
    for each in paths {
        let is_optional = named.is_none() && each == path;
        if let Some(source) = read(&each, is_optional, &mut left, &mut found.warnings)? {
            found.sources.0.push(source);
        }
    }
    Ok(found)
}

/// `conf.d/*.toml` beside a file. Other names, and hidden ones, are left alone.
fn beside(path: &Path) -> Result<Vec<PathBuf>, String> {
    let directory = path.parent().unwrap_or(Path::new(".")).join("conf.d");
    let unreadable = |error| format!("{} can't be read: {error}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(unreadable)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > MOST_FILES {
        let count = paths.len();
        return Err(format!(
            "{} has {count} files, the most are {MOST_FILES}: put some together",
            directory.display()
        ));
    }
    paths.sort();
    Ok(paths)
}

fn read(
    path: &Path,
    is_optional: bool,
    left: &mut u64,
    warnings: &mut Vec<String>,
) -> Result<Option<ConfigSource>, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => {
            format!(
                "there is no {shown}: name another file with `--config FILE`, or write it: `sipguard config example` prints one"
            )
        }
        ErrorKind::InvalidData => format!("{shown} is not UTF-8: save it as such"),
        _ => format!("{shown} can't be read: {error}"),
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && is_optional => return Ok(None),
        file => file.map_err(unreadable)?,
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && metadata.mode() & OTHERS_WRITE != 0 {
        warnings.push(format!("{shown} can be written by everybody: `chmod o-w {shown}`"));
    }
    let mut text = String::new();
    file.take(*left + 1).read_to_string(&mut text).map_err(unreadable)?;
    let length = text.len() as u64;
    *left = left.checked_sub(length).ok_or_else(|| {
        format!("{shown}: the configuration is larger than {MOST_BYTES} bytes, all files together: is it the right file?")
    })?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(Some(ConfigSource { path: path.to_owned(), text }))
}
