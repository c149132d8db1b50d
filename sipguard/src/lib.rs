//! The command line and the live screen.

pub mod cli;
mod interrupt;
mod table;
#[cfg(feature = "top")]
mod top;
