//! Ten healthy phones: each keeps one TCP connection and refreshes its registration every second.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::netns::Netns;

/// Between two refreshes, and between a lost connection and the next try.
const REFRESH: Duration = Duration::from_secs(1);
/// How long a phone waits for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Phones that run until they are stopped.
#[derive(Debug)]
pub struct Phones {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Phone>>,
}

/// How one phone fared.
#[derive(Debug, Clone, Default)]
pub struct Phone {
    /// Registrations it sent or could not even send.
    pub asked: u32,
    /// Registrations that were answered.
    pub answered: u32,
    /// Connections that were lost or refused.
    pub lost: u32,
    /// Whether its last registration was answered.
    pub registered: bool,
    /// The ports it came from.
    pub ports: Vec<u16>,
}

impl Phones {
    /// Switches `count` phones on.
    pub fn start(namespace: &Netns, server: SocketAddr, count: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = namespace.enter(|| {
            let start = |number| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || live(number, server, &stop))
            };
            (0..count).map(start).collect()
        })?;
        Ok(Self { stop, threads })
    }

    /// Switches them off and says how each fared.
    pub fn stop(mut self) -> Vec<Phone> {
        self.end()
    }

    fn end(&mut self) -> Vec<Phone> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().unwrap_or_default()).collect()
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        self.end();
    }
}

fn live(number: usize, server: SocketAddr, stop: &AtomicBool) -> Phone {
    let mut phone = Phone::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        phone.asked += 1;
        let answered = refresh(&mut connection, number, server, &mut phone);
        phone.registered = answered.is_ok();
        if answered.is_ok() {
            phone.answered += 1;
        } else {
            phone.lost += 1;
            connection = None;
        }
        std::thread::sleep(REFRESH);
    }
    phone
}

fn refresh(
    connection: &mut Option<TcpStream>,
    number: usize,
    server: SocketAddr,
    phone: &mut Phone,
) -> Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&server, ANSWER)?;
            stream.set_read_timeout(Some(ANSWER))?;
            phone.ports.push(stream.local_addr()?.port());
            connection.insert(stream)
        }
    };
    let (local, sequence) = (stream.local_addr()?, phone.asked);
    let request = format!(
        "REGISTER sip:sipguard.test SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bKp{number}x{sequence};rport\r\n\
         From: <sip:desk{number}@sipguard.test>;tag=p{number}\r\nTo: <sip:desk{number}@sipguard.test>\r\n\
         Call-ID: desk{number}\r\nCSeq: {sequence} REGISTER\r\n\
         Contact: <sip:desk{number}@{local};transport=tcp>\r\nMax-Forwards: 70\r\nExpires: 60\r\n\
         User-Agent: DeskPhone/3.2\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 2048];
        match stream.read(&mut chunk)? {
            0 => bail!("the server closed the connection"),
            bytes => answer.extend_from_slice(&chunk[..bytes]),
        }
    }
    if !answer.starts_with(b"SIP/2.0 200 ") {
        bail!("the registration was refused");
    }
    Ok(())
}
