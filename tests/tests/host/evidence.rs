//! What is kept of packets: pcapng as Wireshark's tools read it, and no credential in it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_core::counters::Action;
use sipguard_observe::{
    evidence::{PcapWriter, comment},
    header::Header,
    redact::{self, RedactedPacket},
    tap::TapPacket,
};
use sipguard_tests::{
    message::{OPTIONS, bent, good_call},
    packet::{ACK, PSH, Peer},
    process::output,
    scratch::Scratch,
    user_agent::is_installed,
};

const DEVICE: &str = "192.0.2.7:5060";
const PBX: &str = "192.0.2.1:5060";
/// Parts of credentials, tokens and keys; nothing else in the messages has them.
const SECRETS: [&str; 17] = [
    "K7hQ2mZw",
    "9f86d081",
    "5ebe2294",
    "0pAqU3sT",
    "R3aLm-of-0ur5",
    "dGhlLXBhc3N3b3Jk",
    "s3sS10nC00k13",
    "t0K3nVaLu3",
    "4p1K3yzQ",
    "eyJhbGciOiJFUzI1NiJ9",
    "5igN4tUr3_of-C4LL",
    "b34r3Rt0K",
    "WVNfX19zZW1jdGwg",
    "aFgpDd777uzj",
    "8hHyUfrG",
    "AQAFgM0XflAB",
    "cl34rK3y",
];
/// The pairs of bytes that are in any of them: most places of a message have none, so that a message can be looked at for each cut.
static PAIRS: [bool; 1 << 16] = pairs();

const fn pairs() -> [bool; 1 << 16] {
    let mut pairs = [false; 1 << 16];
    let mut which = 0;
    while which < SECRETS.len() {
        let secret = SECRETS[which].as_bytes();
        let mut at = 1;
        while at < secret.len() {
            pairs[(secret[at - 1] as usize) << 8 | secret[at] as usize] = true;
            at += 1;
        }
        which += 1;
    }
    pairs
}

/// A digit that is dialled within a call; nothing else in the messages has the sign.
const DIGIT: u8 = b'#';

fn packet(frame: Vec<u8>, reason: Reason, action: Action) -> TapPacket {
    TapPacket {
        number: 0,
        time_ns: 1,
        time: Timestamp::from_nanosecond(1_790_000_000_123_456_789).unwrap_or_default(),
        count: 3,
        interface: "eth0".to_owned(),
        trunk: Some("carrier".to_owned()),
        reason,
        action,
        client: None,
        header: Header::read(&frame),
        frame_len: frame.len() as u32,
        frame,
    }
}

/// A message with credentials, in the header `name`, written as `fold` and `end` say.
fn with_credentials(name: &str, fold: &str, end: &str) -> Vec<u8> {
    let line = format!(
        "{name}: Digest username=\"K7hQ2mZw\", realm=\"R3aLm-of-0ur5\",{fold}nonce=\"9f86d081\",{fold}uri=\"sip:pbx\",\
         {fold}response=\"5ebe2294\", cnonce = \"0pAqU3sT\", nc=00000001, qop=auth{end}"
    );
    bent(&good_call(), "Max-Forwards: 70\r\n", line + "Max-Forwards: 70\r\n")
}

fn messages() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for name in ["Authorization", "PROXY-AUTHORIZATION ", "proxy-Authorization\t"] {
        for fold in [" ", "\r\n ", "\r\n\t"] {
            all.push(with_credentials(name, fold, "\r\n"));
        }
    }
    // Damaged: a header's name, line ends, quotes.
    all.push(with_credentials("Auth\u{1}orization", " ", "\r\n"));
    all.push(with_credentials("Authorization", "\r", "\r\n"));
    all.push(with_credentials("Authorization", "\n", "\n"));
    all.push(bent(&good_call(), "Max-Forwards: 70", "Authorization: Basic dGhlLXBhc3N3b3Jk"));
    all
}

/// Messages with tokens, keys of media and digits, in names and forms as they come.
fn messages_with_more() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (names, fold) in [
        (["Cookie", "X-Auth-Token", "X-API-Key", "Identity", "Authorization", "Content-Type"], " "),
        (["COOKIE ", "x-access-TOKEN", "api-key", "y", "AUTHORIZATION", "c"], "\r\n "),
        (
            ["set-cookie", "Session-Token\t", "X-ApiKey", "IDENTITY", "Proxy-Authorization", "CONTENT-TYPE"],
            "\r\n\t",
        ),
    ] {
        let [cookie, token, api_key, identity, authorization, kind] = names;
        let headers = format!(
            "{cookie}:{fold}sid=s3sS10nC00k13;{fold}path=s3sS10nC00k13\r\n{token}:{fold}t0K3nVaLu3\r\n{api_key}: 4p1K3yzQ\r\n\
             {identity}:{fold}eyJhbGciOiJFUzI1NiJ9..5igN4tUr3_of-C4LL;{fold}info=<https://cert.example/a>;alg=ES256\r\n\
             {authorization}:{fold}Bearer{fold}b34r3Rt0K\r\n"
        );
        let start = "OPTIONS sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bK1\r\n";
        let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nk=clear:cl34rK3y\r\n\
                   a=key-mgmt:mikey AQAFgM0XflAB\r\na=ice-ufrag:8hHyUfrG\r\na=ice-pwd:aFgpDd777uzj\r\nm=audio 4000 RTP/SAVP 0\r\n\
                   a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwg|2^20|1:4\r\n\
                   A=CRYPTO:2 AES_CM_128_HMAC_SHA1_32 INLINE:WVNfX19zZW1jdGwg\r\na=ptime:20\r\n";
        let bodies = [
            ("application/sdp", sdp),
            ("application/dtmf-relay", "Signal=#\r\nDuration=160\r\n"),
            ("APPLICATION/dtmf", "##"),
            ("application/dtmf", "#\r\n"),
            (
                "application/kpml-response+xml",
                "<kpml-response code=\"200\" digits=\"##\" forced_flush=\"false\"/>",
            ),
        ];
        for (index, (form, body)) in bodies.into_iter().enumerate() {
            // Which headers come before a body makes no difference, and each cut takes time.
            let headers = if index == 0 { &headers } else { "" };
            let length = body.len();
            let whole =
                format!("{start}{headers}{kind}:{fold}{form}\r\nContent-Length: {length}\r\n\r\n{body}");
            all.push(whole.replace("\r\n", "\n").into_bytes());
            all.push(whole.into_bytes());
        }
    }
    all
}

fn expect_no_digit(what: &str, bytes: &[u8]) -> Result<()> {
    ensure!(!bytes.contains(&DIGIT), "{what}: a digit is left: {:?}", String::from_utf8_lossy(bytes));
    Ok(())
}

fn expect_clean(what: &str, bytes: &[u8]) -> Result<()> {
    let is_secret =
        |part: &[u8]| SECRETS.iter().any(|secret| secret.as_bytes().windows(4).any(|p| p == part));
    for (at, part) in bytes.windows(4).enumerate() {
        if PAIRS[usize::from(part[0]) << 8 | usize::from(part[1])] && is_secret(part) {
            bail!("{what}: a part of a secret is left at {at}: {:?}", String::from_utf8_lossy(bytes));
        }
    }
    Ok(())
}

/// What is left of the segments of a message, one behind the other.
fn left(frames: &[Vec<u8>]) -> Vec<u8> {
    let frames = frames.iter().map(|frame| (redact::frame(frame, Header::read(frame).as_ref()), frame));
    let parts = frames.map(|(left, frame)| {
        assert_eq!(left.len(), frame.len(), "lengths stay");
        let begin = Header::read(frame).map_or(34, |header| header.payload.start.max(34));
        left[begin..].to_vec()
    });
    parts.collect::<Vec<_>>().concat()
}

/// Each message is cut behind each byte; `SIPGUARD_CUT_STEP` asks for one of so many alone.
fn cut_step() -> Result<usize> {
    let step = std::env::var("SIPGUARD_CUT_STEP").map_or(Ok(1), |text| text.parse());
    step.ok().filter(|step| *step > 0).context("SIPGUARD_CUT_STEP is a number from 1 on")
}

#[test]
fn no_credential_is_left_however_a_message_is_cut() -> Result<()> {
    for message in messages() {
        for (remote, local) in [(DEVICE, PBX), ("[2001:db8::7]:5060", "[2001:db8::1]:5060")] {
            let peer = Peer::new(remote, local);
            let segment = |part: &[u8]| peer.tcp(PSH | ACK, 1, part);
            expect_clean("a datagram", &left(&[peer.udp(&message)]))?;
            // Where the credentials are.
            for cut in (180..message.len().min(620)).step_by(cut_step()?) {
                let (one, other) = message.split_at(cut);
                expect_clean(&format!("cut at {cut}"), &left(&[segment(one), segment(other)]))?;
            }
            for size in [1, 2, 3, 7, 11, 40] {
                let segments: Vec<_> = message.chunks(size).map(segment).collect();
                expect_clean(&format!("segments of {size}"), &left(&segments))?;
            }
            for size in (8..message.len()).step_by(8 * cut_step()?) {
                let what = format!("fragments of {size}");
                expect_clean(&what, &left(&peer.udp_fragments(&message, size)))?;
            }
        }
    }
    Ok(())
}

#[test]
fn no_token_key_or_digit_is_left_however_a_message_is_cut() -> Result<()> {
    let peer = Peer::new(DEVICE, PBX);
    let segment = |part: &[u8]| peer.tcp(PSH | ACK, 1, part);
    for message in messages_with_more() {
        let expect = |what: String, frames: &[Vec<u8>]| {
            let left = left(frames);
            expect_clean(&what, &left)?;
            expect_no_digit(&what, &left)
        };
        expect("a datagram".to_owned(), &[peer.udp(&message)])?;
        for cut in (1..message.len()).step_by(cut_step()?) {
            let (one, other) = message.split_at(cut);
            expect(format!("cut at {cut}"), &[segment(one), segment(other)])?;
        }
        for size in [1, 2, 3, 5, 7, 11, 40] {
            let segments: Vec<_> = message.chunks(size).map(segment).collect();
            expect(format!("segments of {size}"), &segments)?;
        }
        for size in (8..message.len()).step_by(8 * cut_step()?) {
            expect(format!("fragments of {size}"), &peer.udp_fragments(&message, size))?;
        }
    }
    Ok(())
}

#[test]
fn what_is_no_credential_stays() -> Result<()> {
    let peer = Peer::new(DEVICE, PBX);
    for message in [OPTIONS.to_vec(), good_call(), bent(&good_call(), "Max-Forwards: 70", "X: a\0b")] {
        for frame in [peer.udp(&message), peer.tcp(PSH | ACK, 1, &message)] {
            ensure!(redact::frame(&frame, Header::read(&frame).as_ref()) == frame, "{message:?}");
        }
    }
    let named = "P-Asserted-Identity: <sip:100@192.0.2.7>\r\nIdentity-Info: <https://cert.example/a>\r\nToken-Bucket: 3\r\n";
    let frame = peer.udp(&bent(OPTIONS, "Call-ID", format!("{named}Call-ID")));
    ensure!(redact::frame(&frame, Header::read(&frame).as_ref()) == frame, "no name of a secret");
    let message = with_credentials("Authorization", "\r\n ", "\r\n");
    let frame = peer.udp(&message);
    let left = left(std::slice::from_ref(&frame));
    let text = String::from_utf8_lossy(&left).into_owned();
    ensure!(
        text.contains("\r\nAuthorization: Digest xxx") && text.contains("x\r\nMax-Forwards: 70\r\n"),
        "{text}"
    );
    Ok(())
}

/// Values of fields of each packet of a file, as tshark reads them.
fn fields(file: &Path, names: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields", "-E", "separator=|"]);
    command.args(names.iter().flat_map(|name| ["-e", name]));
    let lines = output(&mut command)?;
    Ok(lines.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
}

fn write(file: &Path, packets: &[TapPacket]) -> Result<()> {
    let mut writer = PcapWriter::new(std::fs::File::create(file)?)?;
    packets
        .iter()
        .map(RedactedPacket::new)
        .try_for_each(|packet| writer.write(&packet, &comment(&packet, Some("block 192.0.2.7 (cli)"))))
}

#[test]
fn tshark_tells_reason_verdict_interface_and_time() -> Result<()> {
    if !is_installed("tshark", "tshark") {
        return Ok(());
    }
    let (scratch, peer) = (Scratch::new("pcapng")?, Peer::new(DEVICE, PBX));
    let file = scratch.join("a.pcapng");
    let frame = peer.udp(&with_credentials("Authorization", " ", "\r\n"));
    let mut long = packet(frame.clone(), Reason::BlockedHost, Action::Drop);
    long.frame_len += 1000;
    let mut other = packet(frame.clone(), Reason::Valid, Action::Pass);
    other.interface = "eth1.100".to_owned();
    let reset = packet(peer.tcp(PSH | ACK, 1, OPTIONS), Reason::BareLf, Action::Reset);
    let datagram = packet(frame.clone(), Reason::BareLf, Action::Drop);
    write(&file, &[long, other, reset, datagram])?;
    let told =
        fields(&file, &["frame.verdict.ebpf_xdp", "frame.interface_name", "frame.len", "frame.cap_len"])?;
    let len = frame.len();
    ensure!(
        told[0] == ["1".to_owned(), "eth0".into(), (len + 1000).to_string(), len.to_string()],
        "{told:?}"
    );
    ensure!(told[1] == ["2".to_owned(), "eth1.100".into(), len.to_string(), len.to_string()], "{told:?}");
    ensure!(told[2][..2] == ["2", "eth0"] && told[3][0] == "1", "{told:?}");
    let told = fields(&file, &["frame.comment", "frame.time_epoch", "_ws.expert.severity"])?;
    let comment =
        "reason: blocked-host; verdict: drop; rule: block 192.0.2.7 (cli); trunk: carrier; count: 3";
    ensure!(told[0][0] == comment && told[0][1] == "1790000000.123456789", "{told:?}");
    ensure!(told[2][0].contains("verdict: reset (shown as it came"), "{told:?}");
    let told = fields(&file, &["sip.Method", "sip.Call-ID"])?;
    ensure!(told[0] == ["INVITE", "a84b4c76e66710@192.0.2.7"] && told[2][0] == "OPTIONS", "{told:?}");
    expect_clean("the file", &std::fs::read(&file).context("reading the file")?)
}

#[test]
fn sngrep_opens_it() -> Result<()> {
    if !is_installed("sngrep", "sngrep") || !is_installed("capinfos", "tshark") {
        return Ok(());
    }
    let (scratch, peer) = (Scratch::new("pcapng")?, Peer::new(DEVICE, PBX));
    let (file, kept) = (scratch.join("a.pcapng"), scratch.join("b.pcap"));
    write(
        &file,
        &[packet(peer.udp(&with_credentials("Authorization", " ", "\r\n")), Reason::BareLf, Action::Reset)],
    )?;
    output(Command::new("sngrep").args(["-N", "-q", "-I"]).arg(&file).arg("-O").arg(&kept))?;
    let told = output(Command::new("capinfos").args(["-c", "-M", "-T", "-r"]).arg(&kept))?;
    ensure!(told.trim_end().ends_with("\t1"), "sngrep read {told}");
    let told = output(Command::new("capinfos").arg(&file))?;
    ensure!(told.contains("Encapsulation = Ethernet") && told.contains("eth0"), "{told}");
    Ok(())
}
