//! Bytes of packets as text that a terminal, a log or a page can show.

use std::fmt::Write as _;

/// What is not printable ASCII becomes an escape such as `\r` or `\x00`.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

/// The same, but CRLF ends a line of the text, and all else that is not printable becomes `\xNN`.
#[must_use]
pub fn escaped_lines(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut before = 0;
    for byte in bytes {
        match byte {
            b'\n' if before == b'\r' => {
                text.truncate(text.len() - "\\x0d".len());
                text.push('\n');
            }
            b' '..=b'~' => text.push(*byte as char),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        before = *byte;
    }
    text
}

/// Printable ASCII and line ends as they are, all else as dots: the `payload_printable` of Suricata's EVE.
#[must_use]
pub fn dotted(bytes: &[u8]) -> String {
    let shown = |byte: &u8| if matches!(byte, b' '..=b'~' | b'\r' | b'\n') { char::from(*byte) } else { '.' };
    bytes.iter().map(shown).collect()
}

/// Two hexadecimal digits a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_shows_what_it_should() {
        let bytes = b"A: \"b\"\r\n\0\n\r\xff\x1b[2J";
        assert_eq!(escaped(bytes), "A: \"b\"\\r\\n\\x00\\n\\r\\xff\\x1b[2J");
        assert_eq!(escaped_lines(bytes), "A: \"b\"\n\\x00\\x0a\\x0d\\xff\\x1b[2J");
        assert_eq!(dotted(bytes), "A: \"b\"\r\n.\n\r..[2J");
        assert_eq!(hex(&bytes[..3]), "413a20");
    }
}
