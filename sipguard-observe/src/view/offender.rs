//! Who sent what was malformed.

use serde::{Deserialize, Serialize};
use sipguard_core::escape::{escaped, hex};
use sipguard_core::offenders::OffenderRow;

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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sipguard_common::Reason;
    use sipguard_core::view::json;

    use super::*;

    #[test]
    fn credentials_are_in_the_document_of_the_kernel_and_not_in_that_of_http() {
        let row = OffenderRow {
            address: "203.0.113.7".parse().unwrap(),
            port: 4001,
            reason: Reason::BareLf,
            packets: 2,
            first_seen: Timestamp::from_millisecond(1_767_225_600_600).ok(),
            last_seen: None,
            sample: b"REGISTER sip:a SIP/2.0\nAuthorization: Digest a=1".to_vec(),
        };
        insta::assert_snapshot!("offender", format!("{:#}", json(&OffenderView::of_row(&row))));
        let redacted = OffenderView::redacted(&row);
        assert!(
            redacted.sample.ends_with("Digest xxx") && !redacted.sample_hex.contains("613d31"),
            "{redacted:?}"
        );
    }
}
