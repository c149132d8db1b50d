//! Who sends it, and what and how much may they send. In the order in which a packet comes by: `policy` (`admit`: host and prefix), `port` (may it
//! be ours), `policy` again (`permit`: device, transports), which asks `ban`, `rate` and `open`.

pub mod ban;
pub mod open;
pub mod policy;
pub mod port;
pub mod rate;
