//! Balancers with the PROXY protocol in a capture.

use anyhow::{Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::capture::{Form, whole};
use sipguard_tests::exclusive;
use sipguard_tests::message::{OPTIONS, bent};
use sipguard_tests::packet::{ACK, PSH, Peer, SYN};
use sipguard_tests::scratch::Scratch;

use super::{connection, replay, stopped};

/// A malformed message is the client's, whose line is named; a connection without a header is the balancer's fault.
#[test]
fn the_client_is_named_and_its_line() -> Result<()> {
    let _turn = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let peer = |port: u16| Peer::new(&format!("10.0.0.5:{port}"), "198.51.100.1:5060");
    let tls = Peer::new("10.0.0.5:40003", "198.51.100.1:5061");
    let header = b"PROXY TCP4 203.0.113.9 203.0.113.1 40123 5060\r\n";
    let bad = bent(OPTIONS, "Content-Length: 0", "Content-Length: x");
    let first = [&header[..], &bad].concat();
    let hello = [&header[..], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0]].concat();
    let dialled = Peer::new("10.0.0.5:5060", "198.51.100.1:33333");
    let frames = [
        connection(&peer(40_000), &[&header[..20], &header[20..], OPTIONS, &bad]),
        connection(&peer(40_001), &[&first]),
        connection(&peer(40_002), &[OPTIONS]),
        connection(&tls, &[&hello, &[0x17, 3, 3, 0, 1, 9]]),
        // The PBX dialled: no header.
        vec![dialled.tcp(SYN | ACK, 999, b""), dialled.tcp(ACK | PSH, 1000, OPTIONS)],
    ]
    .concat();
    let config =
        scratch.write("sipguard.toml", "[trunks.lb]\npeers = [\"10.0.0.5\"]\nproxy-protocol = true\n")?;
    let file = Form::USUAL.pcap(1, &whole(&frames));
    let words = ["--explain", "--pbx", "198.51.100.1", "--config", &config.to_string_lossy()];
    let (report, _) = replay(&scratch, &file, &words)?;
    let found: Vec<(String, String)> =
        stopped(&report).into_iter().map(|(source, reason, ..)| (source, reason)).collect();
    let named = |source: &str, reason: Reason| (source.to_owned(), reason.name().to_owned());
    let expected = [
        named("10.0.0.5 40002", Reason::BadProxyHeader),
        named("203.0.113.9 40123", Reason::BadContentLength),
    ];
    ensure!(found == expected, "{report:#}");
    let lines: Vec<_> = report["explained"].as_array().into_iter().flatten().collect();
    let of_client = lines.iter().filter(|row| row["src_ip"] == "203.0.113.9");
    ensure!(of_client.clone().count() == 2, "{report:#}");
    ensure!(of_client.clone().all(|row| row["line"] == "Content-Length: x"), "{report:#}");
    Ok(())
}
