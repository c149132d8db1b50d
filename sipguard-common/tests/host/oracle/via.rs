//! What the byte-wise framer knows of a Via line (RFC 3261 section 20.42).

use sipguard_common::Reason;

use super::bytewise::{trim, value_of};
use super::lines::blank;

/// Port of the first sent-by and ttl in the value of a Via line, of which nothing is seen behind its first 64 bytes.
pub fn via(visible: &[u8], long: bool) -> Result<(), Reason> {
    let end = visible.iter().position(|b| matches!(b, b';' | b',')).unwrap_or(visible.len());
    let whole = end < visible.len() || !long;
    if let Some(port) = port(&visible[..end]) {
        let port = trim(port);
        let count = port.iter().take_while(|b| b.is_ascii_digit()).count();
        let rest = &port[count..];
        let bad = count == 0 || count > 16 || value_of(&port[..count]) > 65535;
        let goes_on = port.is_empty() && end == visible.len() || rest.is_empty() && !whole;
        if !goes_on && (bad || rest.first().is_some_and(|b| !blank(*b))) {
            return Err(Reason::BadNumber);
        }
    }
    for at in 5..visible.len() {
        let digits = visible[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits >= 5 && visible[at - 5..at].eq_ignore_ascii_case(b";ttl=") {
            return Err(Reason::BadNumber);
        }
    }
    Ok(())
}

/// What is behind the colon of a port, if it is clear which one that is.
fn port(sent_by: &[u8]) -> Option<&[u8]> {
    let colons = |text: &[u8]| text.iter().filter(|b| **b == b':').count();
    let behind = match sent_by.iter().position(|b| *b == b']') {
        Some(at) => &sent_by[at..],
        None if colons(sent_by) > 1 => return None,
        None => sent_by,
    };
    behind.iter().position(|b| *b == b':').map(|at| &behind[at + 1..])
}
