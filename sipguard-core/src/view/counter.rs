//! What was counted, by reason and action.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::thousandths;
use crate::counters::{Action, CounterRow, per_sec};

/// A counter of an interface or of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterView {
    /// The interface; left out in a counter of a trunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The trunk; left out in a counter of an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Name of the reason.
    pub reason: String,
    /// Name of the reason's class: `pass`, `drop`, `reset` or `malformed`.
    pub class: String,
    /// The reason as a sentence.
    pub text: String,
    /// What happened to the packets: `pass`, `drop`, `reset`, `would-drop` or `would-reset`.
    pub action: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Whether these packets are no part of `received`: a limit or a block let them pass. What a limit let pass is in another row as well, with
    /// what became of it; so is what a block let pass that only counts, and not what it let pass in monitor mode.
    #[serde(default)]
    pub counted_again: bool,
}

impl CounterView {
    /// Of an interface.
    #[must_use]
    pub fn of_interface(row: &CounterRow) -> CounterView {
        CounterView { interface: Some(row.interface.clone()), ..CounterView::bare(row) }
    }

    /// Of a trunk, whose name the row has in place of an interface.
    #[must_use]
    pub fn of_trunk(row: &CounterRow) -> CounterView {
        CounterView { trunk: Some(row.interface.clone()), ..CounterView::bare(row) }
    }

    fn bare(row: &CounterRow) -> CounterView {
        CounterView {
            interface: None,
            trunk: None,
            reason: row.reason.name().to_owned(),
            class: row.reason.class().name().to_owned(),
            text: row.reason.text().to_owned(),
            action: row.action.name().to_owned(),
            packets: row.packets,
            bytes: row.bytes,
            counted_again: !row.is_received(),
        }
    }
}

/// A counter of an interface, and how fast it grew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateView {
    /// What was counted.
    #[serde(flatten)]
    pub counter: CounterView,
    /// The time in which it was counted.
    pub span_seconds: f64,
    /// Packets a second, to thousandths.
    pub packets_per_second: f64,
    /// Bytes a second, to thousandths.
    pub bytes_per_second: f64,
}

impl RateView {
    /// Of what was counted within a time.
    #[must_use]
    pub fn of_interface(row: &CounterRow, span: Duration) -> RateView {
        RateView {
            counter: CounterView::of_interface(row),
            span_seconds: thousandths(span.as_secs_f64()),
            packets_per_second: thousandths(per_sec(row.packets, span)),
            bytes_per_second: thousandths(per_sec(row.bytes, span)),
        }
    }
}

/// Sums of counters, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All that the guard looked at, each once; what a block let pass in monitor mode is in `would_drop_packets` alone.
    pub received_packets: u64,
    /// Dropped, or turned into a reset of their connection.
    pub dropped_packets: u64,
    /// Let pass by monitor mode, or by a check, limit or block that only counts.
    pub would_drop_packets: u64,
}

impl Totals {
    /// The sums of some counters.
    #[must_use]
    pub fn of<'r>(rows: impl IntoIterator<Item = &'r CounterRow>) -> Totals {
        let mut totals = Totals::default();
        for row in rows {
            if row.is_received() {
                totals.received_packets += row.packets;
            }
            match row.action {
                Action::Pass => {}
                Action::Drop | Action::Reset => totals.dropped_packets += row.packets,
                Action::WouldDrop | Action::WouldReset => totals.would_drop_packets += row.packets,
            }
        }
        totals
    }
}
