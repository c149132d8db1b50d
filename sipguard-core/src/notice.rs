//! Notices: what an operator is to be told beside a result, such as that a damaged store was set aside.
//!
//! The library writes to no terminal. It sends notices to the receiver that the program has installed, as the `log` crate does with records;
//! without a receiver they are dropped. An operation hands its own notices back in its outcome.

use std::fmt;
use std::sync::OnceLock;

/// One sentence for an operator, without the name of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice(pub String);

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Notice {
    fn from(text: String) -> Notice {
        Notice(text)
    }
}

static RECEIVER: OnceLock<fn(&Notice)> = OnceLock::new();

/// Installs the receiver of a process. Only the first call has an effect.
pub fn receive(receiver: fn(&Notice)) {
    let _first = RECEIVER.set(receiver);
}

/// Hands a notice to the receiver.
pub fn send(notice: impl Into<Notice>) {
    if let Some(receiver) = RECEIVER.get() {
        receiver(&notice.into());
    }
}
