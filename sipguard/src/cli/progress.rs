//! Bars of progress: on a terminal, nothing elsewhere.

#[cfg(feature = "replay")]
use std::path::Path;

#[cfg(feature = "replay")]
use indicatif::MultiProgress;
use indicatif::{ProgressBar, ProgressStyle};
use sipguard_core::ops::import::Progress;

/// The bar of an import. It goes when it is dropped.
#[derive(Default)]
pub struct Entries(Option<ClearingBar>);

impl Entries {
    /// Takes what the import tells.
    pub fn take(&mut self, progress: Progress) {
        match (progress, &self.0) {
            (Progress::Entries(count), _) => self.0 = Some(ClearingBar(bar(count as u64))),
            (Progress::Step, Some(ClearingBar(bar))) => bar.inc(1),
            (Progress::Step, None) => {}
        }
    }
}

/// The bars of files that are read, each with the time that is left. They go when they are dropped.
#[cfg(feature = "replay")]
#[derive(Default)]
pub struct Files(MultiProgress);

#[cfg(feature = "replay")]
impl Files {
    /// The bar of a file, as it begins. It is told how many bytes are read.
    pub fn of(&self, file: &Path) -> Box<dyn Fn(u64)> {
        // How much a pipe will bring nobody knows.
        let length = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|about| about.len());
        let (bar, template) = match length {
            Some(bytes) => (ProgressBar::new(bytes), "{prefix} {bar:30} {percent}% {elapsed}, {eta} left"),
            None => (ProgressBar::no_length(), "{prefix} {bytes} {elapsed}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let bar = ClearingBar(self.0.add(bar.with_style(style).with_prefix(name)));
        Box::new(move |bytes| bar.0.set_position(bytes))
    }
}

struct ClearingBar(ProgressBar);

impl Drop for ClearingBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{bar:40} {percent}% {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
