//! Content-Length where a real PBX looks for it and RFC 3261 does not: a message hidden in a body.

use anyhow::{Result, ensure};
use sipguard_tests::application::{dial, sip, wait_until};
use sipguard_tests::guard::Site;
use sipguard_tests::kamailio::Kamailio;

/// An OPTIONS over TCP that is answered, with more lines before its Content-Length.
fn options(name: &str, more: &str, body: &str) -> String {
    format!(
        "OPTIONS sip:sipguard.test SIP/2.0\r\nVia: SIP/2.0/TCP 10.77.0.2:5060;branch=z9hG4bK{name}\r\nFrom: <sip:a@sipguard.test>;tag=1\r\n\
         To: <sip:sipguard.test>\r\nCall-ID: {name}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n{more}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What is hidden in the body, and a message behind it.
fn hidden(more: &str) -> String {
    let inner = options("hidden", "", "");
    options("front", more, &inner) + &options("behind", "", "")
}

/// Lines that Kamailio takes for the length.
const LINES: [&str; 6] = [
    "Subject: a\r\n Content-Length: 0\r\n",
    "Subject: a\r\n\tl:0\r\n",
    "Subject: a\r\n  \t Content_Length \t: 0\r\n",
    "Content_Length: 0\r\n",
    "content_length  : 0\r\n",
    "Subject: a\r\n                                                                  l: 0\r\n",
];

/// Whether the hidden message is answered. `None` when the connection ended before the last answer.
fn answered(site: &Site, stream: &str) -> Result<Option<bool>> {
    let phone = dial(&site.phone, sip(Site::PBX[0]))?;
    phone.offer(stream.as_bytes())?;
    let seen = |name: &str| {
        let text = String::from_utf8_lossy(&phone.bytes()).into_owned();
        text.contains(&format!("Call-ID: {name}\r\n"))
    };
    wait_until("the last answer, or an end", || Ok(seen("behind") || phone.end().is_some()))?;
    Ok((seen("behind") || seen("hidden")).then(|| seen("hidden")))
}

/// A frame of RFC 4975 to Kamailio, which ends in the body: what follows is hidden.
fn in_a_frame() -> String {
    let inner = format!("junk\r\n-------sip:a@b$\r\n{}", options("hidden", "", ""));
    let head = format!(
        "MSRP sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c\r\nl: {}\r\n-x: y\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:b@b>\r\nCall-ID: front\r\nCSeq: 1 MSRP\r\n\r\n",
        inner.len()
    );
    head + &inner + &options("behind", "", "")
}

#[test]
fn a_length_that_only_the_pbx_finds() -> Result<()> {
    let site = Site::new(true)?;
    let kamailio = Kamailio::start(&site.pbx, &["10.77.0.1"], None)?;
    let tricks = [LINES.map(hidden).to_vec(), vec![in_a_frame()]].concat();
    let good = hidden("Subject: a\r\n b: 0\r\nContent_Lengths: 0\r\n");
    for trick in &tricks {
        let bare = answered(&site, trick)?;
        ensure!(bare == Some(true), "without the guard: {bare:?} for {}", trick.escape_debug());
    }
    ensure!(answered(&site, &good)? == Some(false), "a good message is read otherwise by the PBX");
    site.guard.attach(&[Site::INTERFACE])?;
    site.guard.run(&["bans", "off"])?.expect(0)?;
    for trick in &tricks {
        let guarded = answered(&site, trick)?;
        ensure!(guarded.is_none(), "behind the guard: {guarded:?} for {}", trick.escape_debug());
    }
    let passed = answered(&site, &good)?;
    ensure!(passed == Some(false), "a good message behind the guard: {passed:?}");
    drop(kamailio);
    Ok(())
}
