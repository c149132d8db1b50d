//! What of sipguard is seen: the command line, the live screen, the service, and the packets that were stopped.

pub mod capture;
pub mod cores;
pub mod crash;
pub mod events;
pub mod evidence;
pub mod header;
pub mod hep;
pub mod interrupt;
pub mod metrics;
pub mod ops;
pub mod redact;
pub mod replay;
pub mod serve;
pub mod table;
pub mod tap;
pub mod top;
pub mod view;

pub mod cli;
