//! What userspace can observe: `count` (counters), `offender` (senders of malformed traffic), `points` (events and whole packets). Nothing here
//! decides about a packet.

pub mod count;
pub mod offender;
pub mod points;
