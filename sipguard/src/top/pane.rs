//! The panes and their columns. Pure.

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// Who sent what was malformed or over a limit, by address.
    Sources,
    /// Packets by reason.
    Reasons,
    /// Packets by trunk.
    Trunks,
    /// What was stopped, as it happens.
    Events,
    /// Blocks, allowances and bans.
    Blocks,
    /// Who sends how much, below every limit as well.
    Senders,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its head; one without is no order.
    pub head: &'static str,
    /// Its width in characters; the last one takes what is left. An address is given more where it needs more.
    pub width: u16,
    /// Whether it holds numbers, which stand at the right.
    pub number: bool,
}

const fn text(head: &'static str, width: u16) -> Column {
    Column { head, width, number: false }
}

const fn number(head: &'static str, width: u16) -> Column {
    Column { head, width, number: true }
}

impl Pane {
    /// All, in the order of the tabs.
    pub const ALL: [Pane; 6] =
        [Pane::Sources, Pane::Reasons, Pane::Trunks, Pane::Events, Pane::Blocks, Pane::Senders];

    /// Its place in [`Pane::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word of its tab.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["Sources", "Reasons", "Trunks", "Events", "Blocks", "Senders"][self.index()]
    }

    /// Its columns.
    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        match self {
            Pane::Sources => {
                &const {
                    [
                        text("", 1),
                        text("SOURCE", 15),
                        text("REASON", 24),
                        number("PACKETS", 8),
                        number("RATE/S", 6),
                        number("PORTS", 5),
                        number("GOOD", 4),
                        number("LAST", 4),
                        text("AGENT", 0),
                    ]
                }
            }
            Pane::Reasons => {
                &const {
                    [
                        text("REASON", 26),
                        text("ACTION", 11),
                        number("PACKETS", 11),
                        number("RATE/S", 7),
                        text("", 0),
                    ]
                }
            }
            Pane::Trunks => {
                &const {
                    [
                        text("TRUNK", 16),
                        number("RECEIVED", 11),
                        number("RATE/S", 7),
                        number("DROPPED", 11),
                        number("DROPS/S", 8),
                        number("WOULD DROP", 11),
                        text("", 0),
                    ]
                }
            }
            Pane::Events => {
                &const {
                    [
                        text("TIME", 8),
                        text("SOURCE", 21),
                        text("REASON", 24),
                        text("ACTION", 11),
                        number("COUNT", 7),
                        text("FIRST BYTES", 0),
                    ]
                }
            }
            Pane::Senders => {
                &const {
                    [
                        text("SENDER", 24),
                        number("MESSAGES/10S", 12),
                        number("REGISTER", 9),
                        number("INVITE", 8),
                        number("CONNECTS", 9),
                        number("MESSAGES", 10),
                        text("", 0),
                    ]
                }
            }
            Pane::Blocks => {
                &const {
                    [
                        text("TARGET", 21),
                        text("RULE", 13),
                        number("ENDS IN", 9),
                        number("PACKETS", 11),
                        text("BY", 9),
                        text("REASON", 0),
                    ]
                }
            }
        }
    }

    /// The column that it is sorted by at first, and whether the greatest comes first.
    #[must_use]
    pub fn order(self) -> (usize, bool) {
        match self {
            Pane::Sources => (4, true),
            Pane::Reasons => (3, true),
            Pane::Trunks => (4, true),
            Pane::Events => (0, true),
            Pane::Senders => (1, true),
            // Blocks, bans, allowances.
            Pane::Blocks => (1, true),
        }
    }
}
