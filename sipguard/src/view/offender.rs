//! Who sent what was malformed.

use serde::{Deserialize, Serialize};

use crate::escape::{escaped, hex};
use crate::offenders::OffenderRow;
use crate::redact;

/// A sender and a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffenderView {
    /// Address of the sender.
    pub src_ip: String,
    /// Port of the sender: behind a NAT it tells one device from its neighbours.
    pub src_port: u16,
    /// Name of the reason.
    pub reason: String,
    /// Name of the reason's class.
    pub class: String,
    /// Malformed packets.
    pub packets: u64,
    /// When the first one came.
    pub first_seen_at: Option<String>,
    /// When the last one came.
    pub last_seen_at: Option<String>,
    /// The first bytes of the first one, 64 at the most, escaped.
    pub sample: String,
    /// The same as hexadecimal digits.
    pub sample_hex: String,
}

impl OffenderView {
    /// With what was sent as it came, for whoever may read the kernel's maps.
    #[must_use]
    pub fn of_row(row: &OffenderRow) -> OffenderView {
        OffenderView::with_sample(row, &row.sample)
    }

    /// With credentials overwritten, for whoever reads it over HTTP. A segment may begin within one.
    #[must_use]
    pub fn redacted(row: &OffenderRow) -> OffenderView {
        let mut sample = row.sample.clone();
        redact::overwrite(&mut sample, true);
        OffenderView::with_sample(row, &sample)
    }

    fn with_sample(row: &OffenderRow, sample: &[u8]) -> OffenderView {
        OffenderView {
            src_ip: row.address.to_string(),
            src_port: row.port,
            reason: row.reason.name().to_owned(),
            class: row.reason.class().name().to_owned(),
            packets: row.packets,
            first_seen_at: row.first_seen.map(|seen| seen.to_string()),
            last_seen_at: row.last_seen.map(|seen| seen.to_string()),
            sample: escaped(sample),
            sample_hex: hex(sample),
        }
    }
}
