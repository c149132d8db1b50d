//! `sipguard top`: what an operator looks at in an incident, live.
//!
//! | file | does |
//! |---|---|
//! | `model.rs` | readings of `ops::reading` to rates and their past; pure, as is all up to `view.rs` |
//! | `pane.rs`, `rows.rs` | the model to the rows of a pane |
//! | `state.rs` | what the operator chose: pane, order, filter, row |
//! | `order.rs`, `dialog.rs` | what may be changed, and the questions before it |
//! | `input.rs` | a key to what it does |
//! | `theme.rs`, `view.rs`, `boxes.rs` | all of it to a screen |
//! | `capture.rs` | starts a capture |
//! | `once.rs` | one reading as JSON and as tables |
//! | `terminal.rs` | the terminal, always given back |
//! | `app.rs` | the loop, with a thread that reads |

#![deny(clippy::exit, clippy::print_stderr, clippy::print_stdout)]

mod app;
mod boxes;
mod capture;
mod dialog;
#[cfg(test)]
mod fixture;
mod input;
mod model;
mod offenders;
mod once;
mod order;
mod pane;
mod rows;
mod state;
mod terminal;
mod theme;
mod view;

pub use app::{App, run};
pub use capture::capture;
pub use model::Model;
pub use once::{text, view};
pub use order::{CAPTURE_SECS, TopCommand};
pub use sipguard_observe::ops::reading::TopReader;
