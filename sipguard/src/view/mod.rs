//! The documents of packets that were stopped, beside those of [`sipguard_core::view`].

mod event;
mod offender;
mod replay;

pub use event::EventView;
pub use offender::OffenderView;
pub use replay::{ExplanationView, ReasonView, ReplayView, SourceView, TrunkReasonView};
