//! Which packets of a capture the PBX sent: they are not judged.

use anyhow::Result;
use serde_json::Value;
use sipguard_tests::capture::{Form, on_link, whole};
use sipguard_tests::exclusive;
use sipguard_tests::message::register;
use sipguard_tests::packet::Peer;
use sipguard_tests::scratch::Scratch;

use super::{WOULD_STOP, back, connection, phone, replay};

#[test]
fn only_what_comes_in_is_judged() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let peer = phone(40_000);
    let trunk = Peer::new("203.0.113.9:5060", "198.51.100.1:47000");
    let mut frames = Vec::new();
    let mut sent = Vec::new();
    for peer in [&peer, &phone(40_001), &trunk] {
        for frame in connection(peer, &[&register(1)]) {
            frames.push(frame);
            sent.push(false);
        }
        // What the PBX sends is its own matter.
        frames.push(back(peer).udp(b"REGISTER sip:a SIP/3.0\r\n\r\n"));
        sent.push(true);
    }
    let good = (3 * 4, 3, 0, 0);
    let told = |(report, status): (Value, i32)| {
        let number = |key: &str| report[key].as_u64().unwrap_or(u64::MAX);
        (number("judged"), number("sent_by_pbx"), number("stopped"), status)
    };
    let file = Form::USUAL.pcap(1, &whole(&frames));
    let guessed = replay(&scratch, &file, &[])?;
    assert_eq!((&guessed.0["pbx"][0], &guessed.0["pbx_guessed"]), (&"198.51.100.1".into(), &true.into()));
    assert_eq!(told(guessed), good, "guessed");
    assert_eq!(told(replay(&scratch, &file, &["--pbx", "198.51.100.1"])?), good, "said");
    let wrong = told(replay(&scratch, &file, &["--pbx", "192.0.2.7,203.0.113.9"])?);
    // Of what the PBX sends only what goes to port 5060 of somebody is then taken for SIP.
    assert_eq!((wrong.1, wrong.2, wrong.3), (12, 1, WOULD_STOP), "said wrongly");
    // Cooked captures and pcapng say it themselves.
    let cooked: Vec<Vec<u8>> =
        frames.iter().zip(&sent).map(|(frame, sent)| on_link(276, frame, *sent)).collect();
    assert_eq!(told(replay(&scratch, &Form::USUAL.pcap(276, &whole(&cooked)), &[])?), good, "cooked");
    let mut flagged = whole(&frames);
    flagged.iter_mut().zip(&sent).for_each(|(packet, sent)| packet.flags = if *sent { 2 } else { 1 });
    for form in Form::ALL {
        assert_eq!(told(replay(&scratch, &form.pcapng(1, &flagged), &[])?), good, "flags of {form:?}");
    }
    // A mirror port, or a tool that made one capture of another: everything is marked as received. And a router, which sees all come and go.
    let received: Vec<Vec<u8>> = frames.iter().map(|frame| on_link(113, frame, false)).collect();
    let (report, status) = replay(&scratch, &Form::USUAL.pcap(113, &whole(&received)), &[])?;
    let notes = report["notes"].to_string();
    assert!(notes.contains("packets of both directions are marked as received"), "{notes}");
    assert_eq!(told((report, status)), good, "mirrored");
    let twice: Vec<Vec<u8>> =
        frames.iter().flat_map(|frame| [false, true].map(|sent| on_link(276, frame, sent))).collect();
    let routed = told(replay(&scratch, &Form::USUAL.pcap(276, &whole(&twice)), &[])?);
    assert_eq!(routed, (2 * good.0, 2 * good.1, good.2, good.3), "routed");
    Ok(())
}
