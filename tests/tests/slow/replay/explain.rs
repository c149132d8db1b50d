//! `sipguard replay --explain`: the line at fault.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::capture::{Form, whole};
use sipguard_tests::message::OPTIONS;
use sipguard_tests::scratch::Scratch;

use super::{WOULD_STOP, connection, phone, replay};

/// Of each malformed message: packet, reason, offset and line.
#[test]
fn the_line_at_fault_is_named() -> Result<()> {
    let scratch = Scratch::new("replay")?;
    let bad = String::from_utf8(OPTIONS.to_vec())?.replace("Content-Length: 0", "Content-Length: x");
    ensure!(bad.as_bytes() != OPTIONS, "the message has a Content-Length");
    let at = bad.find("Content-Length").context("a Content-Length")?;
    let (head, tail) = bad.as_bytes().split_at(at + 5);
    let mut frames = connection(&phone(45_000), &[OPTIONS, head, tail, b"more"]);
    frames.push(phone(45_001).udp(bad.as_bytes()));
    frames.push(phone(45_002).udp(&OPTIONS[..OPTIONS.len() - 3]));
    let file = Form::USUAL.pcap(1, &whole(&frames));
    let (report, status) = replay(&scratch, &file, &["--explain"])?;
    let explained = report["explained"].as_array().context("explanations")?;
    let found: Vec<_> = explained.iter().map(|one| (&one["packet"], &one["offset"], &one["line"])).collect();
    let line = "Content-Length: x";
    let expected = [(5, Some(-5), line), (8, Some(at as i64), line)];
    for ((packet, offset, line), expected) in found.iter().filter(|one| one.1.is_i64()).zip(expected) {
        assert_eq!(
            ((*packet).clone(), (*offset).clone(), (*line).clone()),
            (expected.0.into(), expected.1.into(), expected.2.into()),
            "{report:#}"
        );
    }
    let last = explained.last().context("the datagram without an end")?;
    assert_eq!(last["reason"], Reason::NoEndOfHeaders.name(), "{report:#}");
    assert_eq!((last["offset"].as_u64(), &last["line"]), (Some(OPTIONS.len() as u64 - 3), &Value::from("")));
    assert_eq!(status, WOULD_STOP);
    let (report, _) = replay(&scratch, &file, &[])?;
    assert!(report.get("explained").is_none(), "only where it is asked for: {report:#}");
    Ok(())
}
