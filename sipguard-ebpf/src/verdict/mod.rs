//! What becomes of the packet: `action` makes an XDP action of its reason, and `reset` a RST of a malformed segment.

mod action;
pub mod reset;

pub use action::{act, resets};
