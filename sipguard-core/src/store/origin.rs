//! Words that people and lists give to a rule.

use super::{CONFIGURATION, OPERATOR};

/// Who sets a rule: a short word.
pub fn origin(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no name of an origin: 1 to 64 letters, digits and -_.:/@"))
}

/// A reason: one line that can be shown.
pub fn reason(text: &str) -> Result<String, String> {
    if text.len() <= 200 && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("a comment is one line of up to 200 bytes".to_owned())
}

/// Whether what a source says is the operator's word, by hand or in the configuration file; all else is automatic.
#[must_use]
pub(super) fn is_operators(origin: &str) -> bool {
    [OPERATOR, CONFIGURATION].contains(&origin)
}
