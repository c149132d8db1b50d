//! Where events go, in the order in which they get there: evidence comes before what tells where the evidence is.

mod cores;
mod crash;
mod evidence;
mod homer;
mod journal;
mod lazy;
mod log;

use std::path::Path;

use sipguard_core::pins::Pins;
use sipguard_core::service::Options;

use super::sink::Sinks;

/// Adds what the options ask for.
pub(crate) fn add(sinks: &mut Sinks, options: &Options, pins: &Pins, store: &Path) {
    if let Some(directory) = &options.evidence {
        sinks.add(Box::new(evidence::EvidenceSink::new(directory, options.evidence_limits)));
    }
    if let Some(file) = &options.log {
        sinks.add(Box::new(log::LogSink::new(file, options.log_bytes, options.evidence_limits.floor)));
    }
    if options.journal && journal::is_there() {
        sinks.add(Box::new(journal::JournalSink::new()));
    }
    if let Some(homer) = &options.homer {
        sinks.add(Box::new(homer::HomerSink::new(homer)));
    }
    if options.crash.watched.is_any() {
        sinks.add(Box::new(crash::CrashSink::new(&options.crash, pins, store)));
    }
    if options.cores.directory.is_some() {
        sinks.add(Box::new(cores::CoresSink::new(&options.cores)));
    }
}
