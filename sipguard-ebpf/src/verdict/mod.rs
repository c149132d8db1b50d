//! The verdict: `action` turns a reason into an XDP action, and `reset` rewrites a malformed segment to a RST.

mod action;
pub mod reset;

pub use action::{emit, resets};
