//! The trunk that the PBX dials and whose answers are malformed.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

/// The trunk, while it answers.
#[derive(Debug)]
pub struct ErrantTrunk {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl ErrantTrunk {
    /// Listens on `address` inside the namespace.
    pub fn start(namespace: &Netns, address: SocketAddr) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("listening as a trunk on {address}"))?;
        // Accepting must not keep the thread from seeing that it shall stop.
        listener.set_nonblocking(true).context("making the trunk's listener non-blocking")?;
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, answered) = (Arc::clone(&stop), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    // One at a time is enough: the PBX keeps one connection.
                    Ok((stream, _)) => {
                        if answer(stream).is_ok() {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Self { stop, answers, thread: Some(thread) })
    }

    /// Stops it and returns how many malformed answers it gave.
    pub fn stop(mut self) -> u32 {
        self.end();
        self.answers.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for ErrantTrunk {
    fn drop(&mut self) {
        self.end();
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut request = [0; 2048];
    let bytes = stream.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..bytes]);
    let mut answer = String::from("SIP/2.0 200 OK\r\nServer: BrokenTrunk/1.0\r\n");
    for line in request.lines() {
        if ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name)) {
            answer.push_str(line);
            answer.push_str("\r\n");
        }
    }
    answer.push_str("Content-Length: -1\r\n\r\n");
    stream.write_all(answer.as_bytes())?;
    // Stays until the PBX hangs up, or has crashed, or was reset on our behalf.
    let _ = stream.read(&mut [0; 16]);
    Ok(())
}
