//! The records of a TLS port, from RFC 8446 section 5.1 and docs/reference/checks.md.

use sipguard_common::Reason;
use sipguard_common::framer::Limits;

use super::bytewise::oracle;
use super::flow::Outcome;

/// Judges the stream of a TLS port, from a connection's first byte where that is `known`, else from a record's.
pub fn tls_oracle(bytes: &[u8], known: bool, limits: &Limits) -> Outcome {
    match bytes {
        [b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n', ..] if known => oracle(bytes, limits),
        [0..=21 | 23.., ..] if known => (0, Some(Reason::NotTls)),
        _ => (0, records(bytes, known).err()),
    }
}

/// `hello` while the first record is to come, which begins with a ClientHello or a ServerHello.
fn records(mut rest: &[u8], mut hello: bool) -> Result<(), Reason> {
    while let [kind, major, minor, high, low, content @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // RFC 5246 section 6.2.3: 2^14 + 2048 at most.
        if !(20..=24).contains(kind) || *major != 3 || *minor > 4 || length > 16384 + 2048 {
            return Err(Reason::BadTlsRecord);
        }
        if hello && (length == 0 || content.first().is_some_and(|byte| !matches!(byte, 1 | 2))) {
            return Err(Reason::NotTls);
        }
        hello = false;
        rest = content.get(length..).unwrap_or_default();
    }
    Ok(())
}
