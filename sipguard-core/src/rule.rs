//! What a rule does, and whether it does it. Pure.

use crate::named::named;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleVerb {
    /// Stops what comes from there.
    Block,
    /// Lets it come in spite of blocks of shorter prefixes and of everything automatic.
    Allow,
}

/// Whether a block stops, or only counts what it would stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleMode {
    /// Stops.
    Enforce,
    /// Counts.
    Monitor,
}

named!(RuleVerb { Block = "block", Allow = "allow" });
named!(RuleMode { Enforce = "enforce", Monitor = "monitor" });
