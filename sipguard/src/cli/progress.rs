//! Bars of progress: on a terminal, nothing elsewhere.

#[cfg(feature = "replay")]
use std::path::Path;

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

/// The bar of a file that is read; it goes when it is dropped. It is told how many bytes are read.
#[cfg(feature = "replay")]
pub fn of_file(file: &Path) -> impl Fn(u64) {
    let bar = ClearingBar(bar(std::fs::metadata(file).map_or(0, |about| about.len())));
    move |bytes| bar.0.set_position(bytes)
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
