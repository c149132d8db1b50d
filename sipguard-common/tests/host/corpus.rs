//! Messages that real user agents sent must pass, whole and in any two pieces.

use std::path::Path;

use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, Limits, PHASE_IDLE, Stream, feed};

#[test]
fn every_legal_message_passes_in_any_two_pieces() {
    let directory = Path::new("../tests/corpus/legal");
    let mut messages = 0;
    for entry in std::fs::read_dir(directory).expect("the corpus is part of the repository") {
        let path = entry.expect("the corpus can be listed").path();
        if path.extension().is_none_or(|extension| extension != "sip") {
            continue;
        }
        let message = std::fs::read(&path).expect("a message can be read");
        if path.to_string_lossy().contains("-udp-") && !has_length(&message) {
            // Content-Length is optional over UDP (RFC 3261 section 18.3), and only there.
            let (mut stream, mut buffer) = (Stream::NEW, Buffer::NEW);
            let alone = feed(&mut stream, &Limits::default(), &mut buffer, &message);
            assert_eq!(
                alone.map_err(|malformed| malformed.reason),
                Err(Reason::MissingContentLength),
                "{}",
                path.display()
            );
            messages += 1;
            continue;
        }
        for cut in 0..message.len() {
            let (mut stream, mut buffer) = (Stream::NEW, Buffer::NEW);
            for piece in [&message[..cut], &message[cut..]] {
                let fed = feed(&mut stream, &Limits::default(), &mut buffer, piece);
                assert_eq!(fed, Ok(()), "{} cut at {cut}", path.display());
            }
            assert_eq!(stream.phase, PHASE_IDLE, "{} cut at {cut} does not end", path.display());
        }
        messages += 1;
    }
    assert!(messages > 0, "no message in {}", directory.display());
}

fn has_length(message: &[u8]) -> bool {
    String::from_utf8_lossy(message)
        .lines()
        .any(|line| line.to_ascii_lowercase().starts_with("content-length:"))
}
