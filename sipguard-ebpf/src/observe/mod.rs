//! What userspace gets to see: `count` (counters), `offender` (who sent what was malformed), `tap` (events and whole packets). Nothing here decides
//! about a packet.

pub mod count;
pub mod offender;
pub mod tap;
