//! Reports on disk: three files each, a bounded number of them, the oldest of its own deleted first.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::libc;

use super::report::{CrashReport, SCHEMA};

/// The endings of a report's files, the one that is read first.
pub(super) const ENDINGS: [&str; 3] = ["json", "txt", "pcapng"];
/// A report that is larger is none of ours.
const LARGEST: u64 = 4 << 20;

/// Reports that were read, with when their files were written last and how long they were.
#[derive(Debug, Default)]
pub struct ReportCache {
    read: BTreeMap<PathBuf, (SystemTime, u64, Option<CrashReport>)>,
}

impl ReportCache {
    /// All reports that can be read, the oldest first. What was read and has not changed is not read again.
    pub fn all(&mut self, reports: &Reports) -> Vec<CrashReport> {
        let mut old = std::mem::take(&mut self.read);
        for name in reports.names() {
            let path = reports.path(&name, "json");
            let Ok(about) = std::fs::symlink_metadata(&path) else { continue };
            let state = (about.modified().unwrap_or(SystemTime::UNIX_EPOCH), about.len());
            let report = match old.remove(&path) {
                Some((written, len, report)) if (written, len) == state => report,
                _ => reports.read(&name).ok(),
            };
            self.read.insert(path, (state.0, state.1, report));
        }
        // The names have the time of the crash.
        self.read.values().filter_map(|(.., report)| report.clone()).collect()
    }
}

/// The reports of a directory.
#[derive(Clone, Debug)]
pub struct Reports {
    directory: PathBuf,
    most: usize,
    limit: u64,
}

impl Reports {
    /// Those of a directory, which need not be there; `most` of them and `limit` bytes are kept.
    #[must_use]
    pub fn of(directory: &Path, most: usize, limit: u64) -> Reports {
        Reports { directory: directory.to_owned(), most, limit }
    }

    /// Names of the reports, the oldest first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return Vec::new() };
        let name = |name: &str| name.strip_suffix(".json").filter(|name| is_name(name)).map(str::to_owned);
        let mut names: Vec<String> =
            entries.filter_map(|entry| name(entry.ok()?.file_name().to_str()?)).collect();
        names.sort_unstable();
        names
    }

    /// A report.
    ///
    /// # Errors
    /// When there is none of that name, or it can't be read.
    pub fn read(&self, name: &str) -> Result<CrashReport> {
        anyhow::ensure!(is_name(name), "`{name}` is no report: `sipguard crash list` names them");
        let path = self.path(name, "json");
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = file.with_context(|| format!("reading the report {}", path.display()))?;
        let mut text = String::new();
        file.take(LARGEST)
            .read_to_string(&mut text)
            .with_context(|| format!("reading {}", path.display()))?;
        let report: CrashReport = serde_json::from_str(&text)
            .with_context(|| format!("{} is no report of sipguard", path.display()))?;
        // A report of an older version is shown under the names of this one.
        Ok(CrashReport { schema: SCHEMA.to_owned(), ..report })
    }

    /// All reports that can be read, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<CrashReport> {
        self.names().iter().filter_map(|name| self.read(name).ok()).collect()
    }

    /// Writes a report with its packets, once there is room for it, and gives the path of its text.
    ///
    /// # Errors
    /// When a file can't be written. What was written of it is removed.
    pub fn write(&self, report: &CrashReport, packets: &[u8]) -> Result<PathBuf> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750);
        builder.create(&self.directory).with_context(|| format!("making {}", self.directory.display()))?;
        let json = serde_json::to_vec_pretty(report).context("writing the report as JSON")?;
        let text = report.text().into_bytes();
        self.make_room((json.len() + text.len() + packets.len()) as u64)?;
        // The one that makes it a report is written last.
        for (ending, bytes) in [("pcapng", packets), ("txt", &text), ("json", &json)] {
            let path = self.path(&report.name, ending);
            if let Err(error) = write(&path, bytes) {
                self.remove(&report.name);
                return Err(error).with_context(|| format!("writing {}", path.display()));
            }
        }
        Ok(self.path(&report.name, "txt"))
    }

    /// Path of a file of a report.
    #[must_use]
    pub fn path(&self, name: &str, ending: &str) -> PathBuf {
        self.directory.join(format!("{name}.{ending}"))
    }

    fn make_room(&self, bytes: u64) -> Result<()> {
        let mut names = self.names();
        loop {
            let used: u64 = names.iter().map(|name| self.bytes(name)).sum();
            let fits = names.len() < self.most.max(1) && used + bytes <= self.limit;
            if fits || names.is_empty() {
                anyhow::ensure!(
                    bytes <= self.limit,
                    "the report has {bytes} bytes, more than the {} that all reports may have",
                    self.limit
                );
                return Ok(());
            }
            self.remove(&names.remove(0));
        }
    }

    fn bytes(&self, name: &str) -> u64 {
        let len =
            |ending: &&str| std::fs::symlink_metadata(self.path(name, ending)).map_or(0, |about| about.len());
        ENDINGS.iter().map(len).fold(0, u64::wrapping_add)
    }

    fn remove(&self, name: &str) {
        for ending in ENDINGS {
            // One that is not there was not written.
            let _none = std::fs::remove_file(self.path(name, ending));
        }
    }
}

/// Whether it is the name of a report, and no way out of the directory.
fn is_name(name: &str) -> bool {
    name.strip_prefix("crash-").is_some_and(|time| {
        !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    })
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_report_is_read_again_only_when_it_was_written_again() {
        let directory = std::env::temp_dir().join(format!("sipguard-cached-{}", std::process::id()));
        let reports = Reports::of(&directory, 9, 1 << 20);
        let report = |number: u32| CrashReport { name: format!("crash-{number}"), ..CrashReport::default() };
        let mut cache = ReportCache::default();
        assert!(cache.all(&reports).is_empty());
        (1..=2).for_each(|number| drop(reports.write(&report(number), b"").unwrap()));
        assert_eq!(cache.all(&reports), reports.all());
        // Other words of the same length at the same time: whoever reads them has read the file.
        let path = reports.path("crash-1", "json");
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace("crash-1", "crash-7");
        std::fs::write(&path, &text).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        assert_eq!(cache.all(&reports)[0].name, "crash-1", "it was read again");
        let later = written + std::time::Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(cache.all(&reports)[0].name, "crash-7", "it was not read again");
        reports.remove("crash-2");
        assert_eq!(cache.all(&reports).len(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_oldest_goes_first_and_others_files_never() {
        let directory = std::env::temp_dir().join(format!("sipguard-reports-{}", std::process::id()));
        let reports = Reports::of(&directory, 3, 1 << 20);
        assert!(reports.names().is_empty());
        let report = |number: u32| CrashReport { name: format!("crash-{number}"), ..CrashReport::default() };
        reports.write(&report(1), b"packets").unwrap();
        std::fs::write(directory.join("notes.json"), "{}").unwrap();
        for number in 2..=5 {
            reports.write(&report(number), b"packets").unwrap();
        }
        assert_eq!(reports.names(), ["crash-3", "crash-4", "crash-5"]);
        assert!(directory.join("notes.json").exists() && !directory.join("crash-2.pcapng").exists());
        let mode = std::fs::metadata(reports.path("crash-5", "pcapng")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(reports.write(&report(5), b"").is_err(), "written over");
        let small = Reports::of(&directory, 3, reports.bytes("crash-4") * 3 / 2);
        small.write(&report(6), b"packets").unwrap();
        assert_eq!(small.names(), ["crash-6"]);
        assert!(small.write(&report(7), &[0; 1 << 16]).is_err(), "larger than all may be");
        for name in ["../etc/passwd", "crash-", "crash-1/../x", ""] {
            assert!(reports.read(name).is_err(), "{name}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
