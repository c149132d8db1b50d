//! What the kernel side shows of packets: events of what was stopped, what a capture asked for, and the last packets of each device.
//!
//! The rings are memory of the kernel that any number of readers look at at once (`../memory.rs`). Nobody takes anything out of them,
//! so readers cost the guard nothing and do not disturb each other; who is too slow misses records, and knows how many.

mod packet;
mod recorded;
mod records;
mod ring;

pub use packet::{Names, TapPacket};
pub use recorded::recorded;
pub(crate) use records::{is_recording, set_records};
pub use ring::{Start, TapRing, Which, lost, ring_id};
