//! OPTIONS that is answered, or is not.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    application::{udp, uninterrupted},
    dial,
    netns::Netns,
    sipp::Transport,
};

/// Who asks what whom. Each time it is asked it is another request.
#[derive(Debug, Clone)]
pub struct Question {
    /// Over what.
    pub transport: Transport,
    /// From where; port 0 is any.
    pub from: SocketAddr,
    /// Whom.
    pub to: SocketAddr,
    /// The User-Agent.
    pub user_agent: String,
}

impl Question {
    /// One that comes from any port.
    #[must_use]
    pub fn new(transport: Transport, from: IpAddr, to: SocketAddr, user_agent: &str) -> Self {
        Self { transport, from: SocketAddr::new(from, 0), to, user_agent: user_agent.to_owned() }
    }

    /// Asks, and says whether an answer came within `patience`.
    pub fn is_answered(&self, namespace: &Netns, patience: Duration) -> Result<bool> {
        let (request, mut answer) = (self.request(), [0; 2048]);
        let read = if self.transport == Transport::Udp {
            let socket = udp(namespace, self.from)?;
            socket.set_read_timeout(Some(patience)).context("setting a timeout")?;
            socket.send_to(&request, self.to).context("sending a datagram")?;
            uninterrupted(|| socket.recv(&mut answer))
        } else {
            let Some(mut stream) = dial::from(namespace, self.from, self.to, patience)? else {
                return Ok(false);
            };
            stream.set_read_timeout(Some(patience)).context("setting a timeout")?;
            stream.write_all(&request).and_then(|()| uninterrupted(|| stream.read(&mut answer)))
        };
        match read {
            Ok(count) => Ok(answer[..count].starts_with(b"SIP/2.0 200 ")),
            Err(error) if is_silence(error.kind()) => Ok(false),
            Err(error) => Err(error).context("waiting for an answer"),
        }
    }

    /// The request, as SIPVicious writes it.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let transport = if self.transport == Transport::Udp { "UDP" } else { "TCP" };
        let (to, agent) = (self.to.ip(), &self.user_agent);
        let to = if to.is_ipv4() { to.to_string() } else { format!("[{to}]") };
        format!(
            "OPTIONS sip:100@{to} SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.1.1:5060;branch=z9hG4bK-{number};rport\r\n\
             Content-Length: 0\r\nFrom: \"sipvicious\"<sip:100@1.1.1.1>;tag=6433{number}\r\nAccept: application/sdp\r\n\
             User-Agent: {agent}\r\nTo: \"sipvicious\"<sip:100@1.1.1.1>\r\nContact: sip:100@127.0.1.1:5060\r\n\
             CSeq: 1 OPTIONS\r\nCall-ID: 7717{number}\r\nMax-Forwards: 70\r\n\r\n"
        )
        .into_bytes()
    }
}

/// Nothing came, or the connection was cut.
fn is_silence(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
    matches!(kind, BrokenPipe | ConnectionReset | TimedOut | WouldBlock)
}
