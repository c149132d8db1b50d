//! HEP3: what is sent to Homer, as sngrep reads it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sipguard_core::clock::Clock;
use sipguard_core::service::{DEFAULT_HOMER_ID, Homer};
use sipguard_observe::hep::{Exporter, message};
use sipguard_observe::redact::RedactedPacket;
use sipguard_observe::tap::{Names, Start, TapPacket, TapRing, Which};
use sipguard_tests::application::PATIENCE;
use sipguard_tests::message::{good_call, register};
use sipguard_tests::netns::Netns;
use sipguard_tests::packet::{ACK, PSH, Peer};
use sipguard_tests::process::Running;
use sipguard_tests::program::Program;
use sipguard_tests::scratch::Scratch;

fn homer(address: SocketAddr) -> Homer {
    Homer { address, id: DEFAULT_HOMER_ID, password: "geheim".to_owned(), node: "pbx-1".to_owned() }
}

/// What is recorded of three messages that a blocked address sends, over UDP, TCP and IPv6.
fn packets() -> Result<Vec<TapPacket>> {
    let mut program = Program::shared()?;
    for address in ["192.0.2.7", "192.0.2.8", "2001:db8::7"] {
        program.block(address, u64::MAX)?;
    }
    let pbx = "198.51.100.1:5060";
    let frames = [
        Peer::new("192.0.2.7:40000", pbx).udp(&register(7)),
        Peer::new("192.0.2.8:40001", pbx).tcp(ACK | PSH, 1000, &good_call()),
        Peer::new("[2001:db8::7]:40002", "[2001:db8:1::1]:5060").udp(&register(8)),
    ];
    for frame in &frames {
        program.run(frame)?;
    }
    let (mut packets, clock) = (Vec::new(), Clock::now()?);
    TapRing::open(program.loaded(), Which::Events, Start::Oldest)?.read(|record| {
        packets.extend(TapPacket::read(record, &Names::default(), &clock));
        Ok(())
    })?;
    ensure!(packets.len() == frames.len(), "{} packets", packets.len());
    Ok(packets)
}

#[test]
fn sngrep_shows_what_is_sent_to_it() -> Result<()> {
    // A namespace of its own has every port free.
    let (scratch, namespace) = (Scratch::new("hep")?, Netns::new("homer")?);
    let address = SocketAddr::from(([127, 0, 0, 1], 9060));
    let path = scratch.join("shown.pcap");
    let mut command = namespace.command("sngrep");
    command.args(["-N", "-q", "-L", &format!("udp:{address}"), "-O"]).arg(&path);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut sngrep = Running::start("sngrep", &mut command).context("sngrep, of Debian's package sngrep")?;
    let exporter = namespace.enter(|| Exporter::new(homer(address)))??;
    let packets = packets()?;
    let until = Instant::now() + PATIENCE;
    // sngrep writes no IPv6 into its capture: of that message only the rest is there.
    let told = [
        ("192.0.2.7|198.51.100.1|40000|", "|REGISTER"),
        ("192.0.2.8|198.51.100.1|40001|", "|INVITE"),
        ("0.0.0.0|0.0.0.0|40002|", "|REGISTER"),
    ];
    let expected = packets.iter().zip(told).map(|(packet, (ends, method))| {
        let micros = packet.time.as_microsecond();
        format!("{ends}{}.{:06}000{method}", micros / 1_000_000, micros % 1_000_000)
    });
    let expected: Vec<String> = expected.collect();
    let mut seen = String::new();
    while !expected.iter().all(|message| seen.lines().any(|line| line == *message)) {
        ensure!(Instant::now() < until, "sngrep wrote: {seen}, not: {expected:#?}");
        ensure!(sngrep.try_wait()?.is_none(), "sngrep ended");
        for packet in &packets {
            // Nobody listens before sngrep does.
            let _refused = exporter.send(&RedactedPacket::new(packet));
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&path).args(["-T", "fields", "-E", "separator=|"]);
        for field in ["ip.src", "ip.dst", "udp.srcport", "frame.time_epoch", "sip.Method"] {
            tshark.args(["-e", field]);
        }
        seen =
            String::from_utf8_lossy(&tshark.output().context("tshark, of Debian's package tshark")?.stdout)
                .into_owned();
    }
    Ok(())
}

#[test]
fn what_is_no_sip_is_not_sent() -> Result<()> {
    let homer = homer("127.0.0.1:9060".parse()?);
    let packet = packets()?.remove(0);
    assert!(message(&homer, &RedactedPacket::new(&packet)).is_some());
    let empty = TapPacket { frame: Vec::new(), ..packet.clone() };
    assert!(message(&homer, &RedactedPacket::new(&empty)).is_none());
    let v6 = packets()?.remove(2);
    let sent = message(&homer, &RedactedPacket::new(&v6)).context("a message")?;
    let len = sent.len() as u16;
    assert_eq!(sent[..6], [b"HEP3", &len.to_be_bytes()[..]].concat());
    let source: std::net::Ipv6Addr = "2001:db8::7".parse()?;
    let chunk = [&[0, 0, 0, 5, 0, 22], &source.octets()[..]].concat();
    assert!(sent.windows(chunk.len()).any(|window| window == chunk), "{sent:?}");
    assert!(sent.ends_with(v6.payload()));
    let tls = TapPacket { reason: sipguard_common::Reason::BadTlsRecord, ..packet.clone() };
    assert!(message(&homer, &RedactedPacket::new(&tls)).is_none());
    assert!(message(&homer, &RedactedPacket::new(&TapPacket { header: None, ..packet })).is_none());
    Ok(())
}
