//! `counters --format prometheus`: everything that is counted, as text for Prometheus.

use anyhow::Result;
use sipguard_core::notice::Notice;
use sipguard_core::ops::Context;

use crate::metrics::{self, Own, Request};

/// Text for Prometheus, and a notice of what is left out.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The text.
    pub text: String,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
}

/// Everything that is counted, for Prometheus. What the kernel counts is told also when the store can't be read.
///
/// # Errors
/// When no guard is attached, or a map can't be read.
pub fn read(host: &Context, request: Request) -> Result<Metrics> {
    host.pins.check()?;
    let (pins, store) = (&host.pins, &host.store);
    let mut notices = Vec::new();
    let stored = metrics::Stored::read(store);
    let stored = stored.map_err(|error| {
        let text = format!("the counters of trunks and the number of blocks are left out: {error:#}");
        notices.push(Notice(text));
    });
    let kernel = metrics::Kernel::read(pins, &metrics::Sizes::read(pins, store)?, stored.ok().as_ref())?;
    Ok(Metrics { text: metrics::text(Some(&kernel), &Own::default(), request)?, notices })
}
