//! What can be asked of what was stopped: one file an operation, as in [`sipguard_core::ops`].

pub mod capture;
pub mod crash;
pub mod events;
pub mod glance;
pub mod lookup;
pub mod metrics;
pub mod reading;
mod serve_state;
