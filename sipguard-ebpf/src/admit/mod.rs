//! Admission: who is the sender, and what and how much may it send. In this order: `policy::admit` (rules of hosts and prefixes), `port` (is
//! the port guarded), `policy::permit` (rules of devices, transports), which uses `ban`, `rate`, `connections` and `unfinished`. `checks` says
//! which faults of the sender's messages are refused.

pub mod ban;
pub mod checks;
pub mod connections;
pub mod policy;
pub mod port;
pub mod rate;
pub mod unfinished;
