//! The one device: it registers, but what it sends is malformed, each time in another way.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;

use crate::netns::Netns;

/// The name it gives in its User-Agent header.
pub const USER_AGENT: &str = "BrokenPhone/1.0";

/// How long it waits for an answer, and how long it then rests.
const PATIENCE: Duration = Duration::from_millis(300);

/// The device, while it sends.
#[derive(Debug)]
pub struct Errant {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Errant {
    /// Lets it loose on all `servers` at once.
    pub fn start(namespace: &Netns, servers: &[SocketAddr]) -> Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let threads = namespace.enter(|| {
            let start = |server: &SocketAddr| {
                let (server, stop, sent) = (*server, Arc::clone(&stop), Arc::clone(&sent));
                std::thread::spawn(move || pester(server, &stop, &sent))
            };
            servers.iter().map(start).collect()
        })?;
        Ok(Self { stop, sent, threads })
    }

    /// How many malformed messages it has sent.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Unplugs it and returns how many malformed messages it sent.
    pub fn stop(mut self) -> u32 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Errant {
    fn drop(&mut self) {
        self.end();
    }
}

fn pester(server: SocketAddr, stop: &AtomicBool, sent: &AtomicU32) {
    let messages = malformed();
    for message in messages.iter().cycle() {
        // A server that has just crashed refuses; the device keeps on trying, as devices do.
        while !stop.load(Ordering::Relaxed) {
            let delivered = send(server, message).is_ok();
            std::thread::sleep(PATIENCE);
            if delivered {
                sent.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Sends it over a connection of its own; fails only when there is no connection.
fn send(server: SocketAddr, message: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A reset in the midst of a long message, an answer, or nothing: the device takes no notice.
    let _ = stream.write_all(message);
    let _ = stream.read(&mut [0; 1024]);
    Ok(())
}

/// A registration of the device with `start` as its first line and `rest` behind its good headers.
fn register(start: &str, rest: &[u8]) -> Vec<u8> {
    let head = format!(
        "{start}\r\nUser-Agent: {USER_AGENT}\r\nVia: SIP/2.0/TCP 192.168.50.66:5060;branch=z9hG4bKbroken;rport\r\n\
         From: <sip:desk66@sipguard.test>;tag=66\r\nTo: <sip:desk66@sipguard.test>\r\nCall-ID: broken66\r\n\
         CSeq: 1 REGISTER\r\nContact: <sip:desk66@192.168.50.66:5060;transport=tcp>\r\nMax-Forwards: 70\r\n"
    );
    [head.as_bytes(), rest].concat()
}

/// Every way in which it is malformed, each a whole message.
fn malformed() -> Vec<Vec<u8>> {
    const START: &str = "REGISTER sip:sipguard.test SIP/2.0";
    let mut messages: Vec<Vec<u8>> = [
        "Content-Length: -1\r\n\r\n",
        "Content-Length:\r\n\r\n",
        "Content-Length: 99999999999\r\n\r\n",
        "\r\n",
        "Content-Length: 0\r\nContent-Length: 120\r\n\r\n",
        "X-Firmware: 1\0.0\r\nContent-Length: 0\r\n\r\n",
        "X-Firmware: 1.0\nContent-Length: 0\r\n\r\n",
        "Content-Length: 70000\r\n\r\n",
    ]
    .iter()
    .map(|rest| register(START, rest.as_bytes()))
    .collect();
    messages.push(register("\u{1}\u{2}garbage", b"Content-Length: 0\r\n\r\n"));
    messages.push(register("REGISTER sip:sipguard.test SIP/3.0", b"Content-Length: 0\r\n\r\n"));
    messages.push(register(START, "X-Filler: and so on and so on\r\n".repeat(600).as_bytes()));
    messages
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::fragile::{Step, frame};

    #[test]
    fn every_message_is_malformed_in_its_own_way() {
        let faults: HashSet<_> = malformed()
            .iter()
            .map(|message| match frame(message) {
                Step::Fault(fault) => fault,
                Step::More | Step::Message { .. } => {
                    panic!("not malformed: {:?}", message.escape_ascii().to_string())
                }
            })
            .collect();
        assert_eq!(faults.len(), malformed().len());
    }
}
