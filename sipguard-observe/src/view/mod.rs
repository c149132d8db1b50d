//! The documents of packets that were stopped, beside those of [`sipguard_core::view`].

mod event;
mod offender;

pub use event::EventView;
pub use offender::{AddressView, FaultView, OffenderView, ReasonCountView};
