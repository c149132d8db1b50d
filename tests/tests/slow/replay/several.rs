//! Several captures in one run: each is judged by itself.

use anyhow::{Context as _, Result};
use serde_json::Value;
use sipguard_tests::capture::{Form, whole};
use sipguard_tests::exclusive;
use sipguard_tests::message::{faults, good_call};
use sipguard_tests::packet::{ACK, PSH};
use sipguard_tests::scratch::Scratch;

use super::{connection, phone, run};

#[test]
fn what_one_capture_leaves_is_unknown_to_the_next() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let (call, bad) = (good_call(), &faults()[0].bytes);
    let long =
        b"MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\nContent-Length: 60000\r\n\r\n";
    let peer = phone(40_000);
    let opened = connection(&peer, &[long]);
    let goes_on = peer.tcp(ACK | PSH, 1000 + long.len() as u32, bad);
    let parts = peer.udp_parts(&call, 7, &[0..64, 64..8 + call.len()]);
    let captures = [
        // The connection waits for 60,000 bytes; in the next capture it is older than the capture.
        opened[..3].to_vec(),
        vec![goes_on],
        // The last fragment, which makes the first one suspicious if it came before it.
        vec![parts[1].clone()],
        vec![parts[0].clone()],
        // The handshake alone, then what would be its first segment.
        opened[..1].to_vec(),
        vec![peer.tcp(ACK | PSH, 1000, bad)],
    ];
    let mut names = Vec::new();
    for (number, frames) in captures.iter().enumerate() {
        let path = scratch.join(&format!("{number}.pcap"));
        std::fs::write(&path, Form::USUAL.pcap(1, &whole(frames)))?;
        names.push(path.to_string_lossy().into_owned());
    }
    let report = |files: &[String]| -> Result<Vec<Value>> {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let words = [&["replay", "-j"], &files[..], &["--pbx", "198.51.100.1"]].concat();
        let output = run(&words, &scratch.join("rules.db"))?;
        let answer: Value = serde_json::from_str(&output.stdout)?;
        Ok(answer["rows"].as_array().context("rows")?.clone())
    };
    let together = report(&names)?;
    assert_eq!(together.len(), names.len());
    for (name, found) in names.iter().zip(&together) {
        assert_eq!(*found, report(std::slice::from_ref(name))?[0], "{name}");
    }
    Ok(())
}
