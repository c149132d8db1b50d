//! A deliberately fragile SIP over TCP endpoint.
//!
//! It stands for the stacks that crashed on malformed framing: where those ran into an assertion, a negative
//! length or a wild read, this one calls `abort`, so a crash is a real SIGABRT with a real core dump. It also
//! keeps a [journal](Journal) of every read, so a test can say what reached the application.

mod framing;
mod journal;
pub mod seeded;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};

pub use self::{
    framing::{Fault, Step, frame},
    journal::{Entry, Journal},
};

/// Serves REGISTER and OPTIONS (and whatever else) with 200 on `address`, until the first fault.
pub fn serve(address: SocketAddr, journal: Journal) -> Result<()> {
    let journal = Arc::new(journal);
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let journal = Arc::clone(&journal);
        // A connection that ends, however it ends, is none of the server's concern.
        std::thread::spawn(move || drop(converse(stream, &journal)));
    }
    Ok(())
}

/// Dials a trunk as its client, asks it OPTIONS every second over one connection, and dials again whenever the
/// connection ends; until the first fault in an answer.
pub fn dial(address: SocketAddr, journal: &Journal) -> Result<()> {
    loop {
        // No trunk there, or a connection that broke: both mean to try again.
        if let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            drop(ask(stream, journal));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn converse(mut stream: TcpStream, journal: &Journal) -> Result<()> {
    let mut buffer = Vec::new();
    while read(&mut stream, &mut buffer, journal)? {
        while let Step::Message { bytes, header_bytes } = frame(&buffer) {
            if let Some(answer) = answer(&buffer[..header_bytes]) {
                stream.write_all(answer.as_bytes())?;
            }
            buffer.drain(..bytes);
        }
    }
    Ok(())
}

fn ask(mut stream: TcpStream, journal: &Journal) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let mut buffer = Vec::new();
    for sequence in 1u32.. {
        let request = format!(
            "OPTIONS sip:{remote};transport=tcp SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bKdial{sequence}\r\n\
             From: <sip:pbx@sipguard.test>;tag=dial\r\nTo: <sip:trunk@sipguard.test>\r\nCall-ID: dial-{local}\r\n\
             CSeq: {sequence} OPTIONS\r\nMax-Forwards: 70\r\nUser-Agent: fragile-pbx\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        loop {
            if let Step::Message { bytes, .. } = frame(&buffer) {
                buffer.drain(..bytes);
                break;
            }
            if !read(&mut stream, &mut buffer, journal)? {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// One read: what came is appended to `buffer` and noted in the journal; the first fault ends the process.
/// False at the end of the stream.
fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, journal: &Journal) -> Result<bool> {
    let peer = stream.peer_addr()?;
    let mut chunk = [0; 4096];
    let bytes = stream.read(&mut chunk)?;
    if bytes == 0 {
        return Ok(false);
    }
    buffer.extend_from_slice(&chunk[..bytes]);
    let fault = first_fault(buffer);
    journal.note(&Entry { peer, bytes, fault: fault.map(|fault| fault.name().to_owned()) })?;
    if let Some(fault) = fault {
        eprintln!("fragile-pbx: {} from {peer}", fault.name());
        std::process::abort();
    }
    Ok(true)
}

/// The first fault in any of the messages that `stream` holds.
fn first_fault(mut stream: &[u8]) -> Option<Fault> {
    loop {
        match frame(stream) {
            Step::Fault(fault) => return Some(fault),
            Step::More => return None,
            Step::Message { bytes, .. } => stream = &stream[bytes..],
        }
    }
}

/// A 200 for a request, nothing for a response.
fn answer(header: &[u8]) -> Option<String> {
    let header = String::from_utf8_lossy(header);
    let mut lines = header.trim_start().split("\r\n");
    if lines.next()?.starts_with("SIP/") {
        return None;
    }
    let echoed = ["via:", "v:", "from:", "f:", "to:", "t:", "call-id:", "i:", "cseq:", "contact:", "m:"];
    let mut answer = String::from("SIP/2.0 200 OK\r\n");
    for line in lines {
        let lower = line.to_ascii_lowercase();
        if echoed.iter().any(|name| lower.starts_with(name)) {
            answer.push_str(line);
            let untagged_to =
                (lower.starts_with("to:") || lower.starts_with("t:")) && !lower.contains(";tag=");
            answer.push_str(if untagged_to { ";tag=fragile\r\n" } else { "\r\n" });
        }
    }
    answer.push_str("Expires: 60\r\nContent-Length: 0\r\n\r\n");
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_and_responses_are_not() {
        let request =
            b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP x;branch=z9hG4bK1\r\nTo: <sip:a>\r\nX: y\r\n\r\n";
        let answer = answer(request).unwrap();
        assert!(answer.starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP x;branch=z9hG4bK1\r\n"), "{answer}");
        assert!(answer.contains("To: <sip:a>;tag=fragile\r\n") && !answer.contains("X: y"), "{answer}");
        assert!(matches!(frame(answer.as_bytes()), Step::Message { .. }));
        assert_eq!(super::answer(answer.as_bytes()), None);
    }

    #[test]
    fn a_fault_behind_a_good_message_is_found() {
        let good = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n".to_vec();
        assert_eq!(first_fault(&good), None);
        assert_eq!(first_fault(&[good, b"rubbish\r\n".to_vec()].concat()), Some(Fault::GarbageStartLine));
    }
}
