//! A PBX with a fault of its own: a text in a legal message kills it, whoever sends it, over UDP and TCP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context as _, Result};

use super::{Step, answer, frame};

/// Serves on `address` until a message has `fatal` in it.
pub fn serve(address: SocketAddr, fatal: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    let socket = UdpSocket::bind(address).with_context(|| format!("listening on {address}"))?;
    let own = fatal.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let fatal = own.clone();
            // A connection that ends, however it ends, is none of the server's concern.
            std::thread::spawn(move || drop(converse(stream, &fatal)));
        }
    });
    let mut datagram = vec![0; 65_536];
    loop {
        let (bytes, peer) = socket.recv_from(&mut datagram).context("receiving a datagram")?;
        if let Some(answer) = work(&datagram[..bytes], fatal) {
            // Whether it arrives is the peer's concern.
            let _unheard = socket.send_to(answer.as_bytes(), peer);
        }
    }
}

fn converse(mut stream: TcpStream, fatal: &str) -> Result<()> {
    let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let bytes = stream.read(&mut chunk)?;
        if bytes == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..bytes]);
        while let Step::Message { bytes, .. } = frame(&buffer) {
            if let Some(answer) = work(&buffer[..bytes], fatal) {
                stream.write_all(answer.as_bytes())?;
            }
            buffer.drain(..bytes);
        }
    }
}

/// Works at a message; some are the end.
fn work(message: &[u8], fatal: &str) -> Option<String> {
    if message.windows(fatal.len()).any(|part| part == fatal.as_bytes()) {
        std::process::abort();
    }
    let begins = message.iter().any(u8::is_ascii_alphabetic);
    begins.then(|| answer(message)).flatten()
}
