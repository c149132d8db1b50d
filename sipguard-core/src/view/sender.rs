//! Who sends how much.

use serde::{Deserialize, Serialize};

use crate::senders::SenderRow;

/// A source that is no trunk's, or a trunk, and how much it sends over UDP and TCP together, below every limit as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderView {
    /// The address, of IPv6 its /64; null for a trunk.
    pub source: Option<String>,
    /// The name of the trunk; null for a source.
    pub trunk: Option<String>,
    /// In about the last 10 s.
    pub last_10_seconds: SentView,
    /// Since it is followed: since the attach, or since another source had its place in the kernel's table.
    pub total: SentView,
}

/// How much was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentView {
    /// SIP messages.
    pub messages: u64,
    /// REGISTER requests.
    pub register: u64,
    /// INVITE requests.
    pub invite: u64,
    /// New TCP connections.
    pub connections: u64,
}

impl SenderView {
    /// Of a row.
    #[must_use]
    pub fn of_row(row: &SenderRow) -> SenderView {
        let sent = |[messages, register, invite, connections]: [u64; 4]| SentView {
            messages,
            register,
            invite,
            connections,
        };
        SenderView {
            source: row.source.map(|source| source.to_string()),
            trunk: row.trunk.clone(),
            last_10_seconds: sent(row.lately),
            total: sent(row.totals),
        }
    }
}
