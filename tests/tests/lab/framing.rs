//! SIP over TCP through the attached program: what is well-formed arrives as it was sent, what is malformed never
//! does. A recording application stands where the PBX would.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{Connection, End, Server, expect_same, sip, wait_until},
    guard::{Site, number, sample, text},
    message::{Fault, faults, invite, large, negative_length, register, register_with},
};

/// Plain frames, and what veth peers hand over when nothing is switched off: segments of up to 64 KB in one piece
/// and checksums that were never finished.
const OFFLOADS: [bool; 2] = [false, true];

/// Runs a check on both kinds of wire and over both families, with the guard attached with `options`.
fn on_every_wire(options: &[&str], check: impl Fn(&Site, IpAddr, &Server) -> Result<()>) -> Result<()> {
    for offload in OFFLOADS {
        let site = Site::guarded(offload, options)?;
        for address in Site::PBX {
            let server = Server::listen(&site.pbx, sip(address))?;
            check(&site, address, &server).with_context(|| format!("to {address}, offloads {offload}"))?;
        }
    }
    Ok(())
}

/// Sends the pieces, each as segments of its own because each is read before the next is sent, and expects the
/// application to read exactly them.
fn arrives<'a>(site: &Site, server: &Server, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    let (phone, application) = server.connect(&site.phone)?;
    let mut sent = vec![];
    for piece in pieces {
        phone.write(piece)?;
        sent.extend_from_slice(piece);
        expect_same(&application.wait_for(sent.len())?, &sent)?;
    }
    ensure!(application.end().is_none(), "the connection ended: {:?}", application.end());
    Ok(())
}

#[test]
fn one_byte_a_segment_arrives() -> Result<()> {
    on_every_wire(&[], |site, _, server| {
        for message in [register(1), invite()] {
            let before = site.guard.counted(Reason::Valid)?;
            arrives(site, server, message.chunks(1))?;
            let valid = site.guard.counted(Reason::Valid)? - before;
            ensure!(
                valid >= message.len() as u64,
                "{valid} of {} segments were counted valid",
                message.len()
            );
        }
        site.guard.expect_nothing_stopped()
    })
}

#[test]
fn two_segments_arrive_wherever_they_are_cut() -> Result<()> {
    on_every_wire(&[], |site, _, server| {
        for message in [register(1), invite()] {
            let cuts = 1..message.len();
            arrives(site, server, cuts.flat_map(|at| <[_; 2]>::from(message.split_at(at))))?;
        }
        site.guard.expect_nothing_stopped()
    })
}

#[test]
fn pipelined_messages_keep_alives_and_large_ones_arrive() -> Result<()> {
    on_every_wire(&[], |site, _, server| {
        let (register, invite, large) = (register(1), invite(), large());
        let before = site.guard.counted(Reason::Valid)?;
        let three = [&register[..], &invite, &register].concat();
        let spaced = [b"\r\n\r\n", &register[..], b"\r\n\r\n\r\n", &invite, b"\r\n"].concat();
        arrives(site, server, [&three[..], b"\r\n\r\n", &spaced, b"\r\n\r\n", &three])?;
        arrives(site, server, [&large[..], &three, &large])?;
        ensure!(site.guard.counted(Reason::Valid)? - before >= 8, "not every segment was counted valid");
        site.guard.expect_nothing_stopped()
    })
}

/// Sends a good message, which is read, then the fault, and expects a reset before the application sees it.
fn is_reset(site: &Site, server: &Server, fault: &Fault) -> Result<()> {
    let (phone, application) = server.connect(&site.phone)?;
    let good = register(1);
    phone.write(&good)?;
    expect_same(&application.wait_for(good.len())?, &good)?;
    let before = site.guard.malformed()?;
    phone.offer(&fault.bytes)?;
    ensure!(
        application.wait_for_end()? == End::Reset,
        "the application's read ended with {:?}",
        application.end()
    );
    let read = application.bytes();
    expect_same(&read[..good.len()], &good)?;
    let more = &read[good.len()..];
    ensure!(more.len() <= fault.readable, "{} bytes of the malformed message were read", more.len());
    expect_same(more, &fault.bytes[..more.len()])?;
    phone.wait_until_refused()?;
    expect_only(fault.reason, "reset", &before, &site.guard.malformed()?)?;
    accuses(site, &phone, fault.reason, &[&fault.bytes])
}

/// Fails unless the counters of malformed streams differ in just this reason and action.
fn expect_only(
    reason: Reason,
    action: &str,
    before: &BTreeMap<(String, String), u64>,
    after: &BTreeMap<(String, String), u64>,
) -> Result<()> {
    let changed: Vec<_> =
        after.iter().filter(|(key, count)| before.get(key) != Some(count)).map(|(key, _)| key).collect();
    ensure!(changed == [&(reason.name().to_owned(), action.to_owned())], "counted was {changed:?}");
    Ok(())
}

/// Fails unless `counters --by source --ports` names the sender with this reason and the first bytes of one of its segments.
fn accuses(site: &Site, sender: &Connection, reason: Reason, segments: &[&[u8]]) -> Result<()> {
    let (rows, local) = (site.guard.rows(&["counters", "--by", "source", "--ports"])?, sender.local()?);
    let mut named = 0;
    for row in &rows {
        if number(row, "src_port")? == u64::from(local.port())
            && text(row, "src_ip")? == local.ip().to_string()
        {
            named += 1;
            ensure!(text(row, "reason")? == reason.name(), "{local} is accused otherwise: {row}");
            let sample = sample(row)?;
            let shown = |bytes: &[u8]| {
                let one_segment = bytes.len() < 1300;
                if one_segment {
                    bytes.starts_with(&sample)
                } else {
                    bytes.windows(64).any(|part| part == sample)
                }
            };
            ensure!(!sample.is_empty() && segments.iter().any(|bytes| shown(bytes)), "not its bytes: {row}");
        }
    }
    ensure!(named == 1, "{local} is named {named} times in {rows:?}");
    Ok(())
}

#[test]
fn each_fault_is_reset_before_the_application_reads_it() -> Result<()> {
    on_every_wire(&[], |site, _, server| {
        for fault in faults() {
            let shown = fault.bytes[..fault.bytes.len().min(200)].escape_ascii().to_string();
            is_reset(site, server, &fault).with_context(|| format!("{}: {shown}", fault.reason.name()))?;
        }
        Ok(())
    })
}

#[test]
fn a_fault_in_two_segments_is_reset_before_its_second_is_read() -> Result<()> {
    let start = "REGISTER sip:a SIP/2.0\r\n";
    let halves = [
        (Reason::BadContentLength, format!("{start}Content-Length: -"), "1\r\n\r\n"),
        (Reason::BadContentLength, format!("{start}Content-Length: 99999"), "999999\r\n\r\n"),
        (Reason::BadContentLength, format!("{start}Content-Length: 1\r\n"), " 1x\r\n\r\n"),
        (Reason::DuplicateContentLength, format!("{start}l: 1\r\nContent-Le"), "ngth: 2\r\n\r\nx"),
        (Reason::MissingContentLength, format!("{start}Via: x\r\n\r"), "\n"),
        (Reason::BadVersion, "REGISTER sip:a SIP/".to_owned(), "3.0\r\n"),
        (Reason::BadStartLine, "REGISTER sip:a".to_owned(), "\r\n"),
        (Reason::BareCr, format!("{start}X: a\r"), "b\r\n"),
        (Reason::BareLf, format!("{start}Via: h"), "\nl: 0\r\n\r\n"),
        (Reason::ControlByte, format!("{start}X: a"), "\0\r\nl: 0\r\n\r\n"),
        (Reason::BadHeaderName, format!("{start}no colon"), " here\r\nl: 0\r\n\r\n"),
        (Reason::BodyTooLarge, format!("{start}l: 52428"), "9\r\n\r\n"),
    ];
    on_every_wire(&[], |site, _, server| {
        for (reason, first, second) in &halves {
            split_fault(site, server, *reason, first, second)
                .with_context(|| format!("{first:?} | {second:?}"))?;
        }
        Ok(())
    })
}

fn split_fault(site: &Site, server: &Server, reason: Reason, first: &str, second: &str) -> Result<()> {
    let (phone, application) = server.connect(&site.phone)?;
    let (before, sent) = (site.guard.malformed()?, [&register(1), first.as_bytes()].concat());
    phone.write(&sent)?;
    // What is not decided yet may be read.
    application.wait_for(sent.len())?;
    phone.offer(second.as_bytes())?;
    ensure!(
        application.wait_for_end()? == End::Reset,
        "the application's read ended with {:?}",
        application.end()
    );
    expect_same(&application.bytes(), &sent)?;
    phone.wait_until_refused()?;
    expect_only(reason, "reset", &before, &site.guard.malformed()?)?;
    accuses(site, &phone, reason, &[second.as_bytes()])
}

#[test]
fn a_malformed_answer_of_a_trunk_that_the_pbx_dials_is_reset() -> Result<()> {
    for offload in OFFLOADS {
        let site = Site::guarded(offload, &[])?;
        for address in Site::PHONE {
            let trunk = Server::listen(&site.phone, sip(address))?;
            let (application, peer) = trunk.connect(&site.pbx)?;
            application.write(&register(1))?;
            peer.wait_for(register(1).len())?;
            let (before, answer) = (site.guard.malformed()?, b"SIP/2.0 200 OK\r\nContent-Length: -1\r\n\r\n");
            peer.write(answer)?;
            ensure!(application.wait_for_end()? == End::Reset, "it ended with {:?}", application.end());
            expect_same(&application.bytes(), b"")?;
            peer.wait_until_refused()?;
            expect_only(Reason::BadContentLength, "reset", &before, &site.guard.malformed()?)?;
            accuses(&site, &peer, Reason::BadContentLength, &[answer])?;
        }
    }
    Ok(())
}

#[test]
fn with_the_action_drop_the_connection_stands_still() -> Result<()> {
    on_every_wire(&["--on-malformed", "drop"], |site, _, server| {
        let (phone, application) = server.connect(&site.phone)?;
        let (good, before) = (register(1), site.guard.counted(Reason::BadContentLength)?);
        phone.write(&good)?;
        application.wait_for(good.len())?;
        phone.write(&negative_length().bytes)?;
        // Its retransmissions, and what follows, are dropped as well.
        phone.write(&good)?;
        wait_until("three segments are dropped", || {
            Ok(site.guard.counted(Reason::BadContentLength)? >= before + 3)
        })?;
        expect_same(&application.bytes(), &good)?;
        ensure!(application.end().is_none() && phone.end().is_none(), "the connection was ended");
        let actions: Vec<_> = site.guard.malformed()?.into_keys().collect();
        ensure!(actions == [("bad-content-length".to_owned(), "drop".to_owned())], "counted was {actions:?}");
        Ok(())
    })
}

#[test]
fn in_monitor_mode_everything_is_read_and_counted() -> Result<()> {
    on_every_wire(&["--monitor"], |site, _, server| {
        for Fault { reason, bytes, .. } in faults() {
            let before = site.guard.malformed()?;
            let (phone, application) = server.connect(&site.phone)?;
            let sent = [register(1), bytes, register(2)].concat();
            phone.write(&sent)?;
            expect_same(&application.wait_for(sent.len())?, &sent).context(reason.name())?;
            let (key, after) =
                ((reason.name().to_owned(), "would-reset".to_owned()), site.guard.malformed()?);
            ensure!(after.get(&key) > before.get(&key), "{key:?} is not in {after:?}");
            ensure!(application.end().is_none(), "the connection was ended");
        }
        let resets =
            site.guard.malformed()?.into_keys().filter(|(_, action)| action != "would-reset").count();
        ensure!(resets == 0, "monitor mode did more than to count");
        Ok(())
    })
}

#[test]
fn generic_mode_does_the_same() -> Result<()> {
    on_every_wire(&["--xdp-mode", "generic"], |site, _, server| {
        let (register, invite, large) = (register(1), invite(), large());
        arrives(site, server, [&register[..], &invite, &large])?;
        is_reset(site, server, &negative_length())
    })
}

/// Cuts a message where `places` say, has its first part read before the guard comes, and expects that the rest passes
/// and that the next messages are judged.
fn is_adopted(places: impl Fn(&[u8]) -> Vec<usize>) -> Result<()> {
    let message = register_with("Content-Type: text/plain\r\nContent-Length: 14\r\n\r\nfirst\r\nsecond\n");
    for (offload, address) in OFFLOADS.into_iter().zip(Site::PBX) {
        let site = Site::new(offload)?;
        let server = Server::listen(&site.pbx, sip(address))?;
        let open = |cut: usize| {
            let (phone, application) = server.connect(&site.phone)?;
            phone.write(&message[..cut])?;
            application.wait_for(cut)?;
            Ok((cut, phone, application))
        };
        let connections: Vec<_> = places(&message).into_iter().map(open).collect::<Result<_>>()?;
        site.guard.attach(&[Site::INTERFACE])?;
        for (cut, phone, application) in connections {
            let finish = || {
                phone.write(&message[cut..])?;
                expect_same(&application.wait_for(message.len())?, &message)?;
                phone.write(&register(2))?;
                let sent = [&message[..], &register(2)].concat();
                expect_same(&application.wait_for(sent.len())?, &sent)?;
                let before = site.guard.malformed()?;
                phone.write(&negative_length().bytes)?;
                ensure!(application.wait_for_end()? == End::Reset, "it ended with {:?}", application.end());
                expect_same(&application.bytes(), &sent)?;
                expect_only(Reason::BadContentLength, "reset", &before, &site.guard.malformed()?)
            };
            finish().with_context(|| format!("the guard came after {}", message[..cut].escape_ascii()))?;
        }
        ensure!(site.guard.counted(Reason::MidStream)? > 0, "nothing passed as the middle of a stream");
    }
    Ok(())
}

fn find(message: &[u8], part: &[u8]) -> usize {
    message.windows(part.len()).position(|bytes| bytes == part).unwrap()
}

#[test]
fn a_live_connection_is_judged_from_its_next_message_on() -> Result<()> {
    // In the start line, at a header line's start and in its midst, in the body and at its start.
    is_adopted(|message| {
        let (line, section) = (find(message, b"\r\n"), find(message, b"\r\n\r\n"));
        vec![3, line + 2, line + 9, section + 4, section + 8]
    })
}

#[test]
fn a_live_connection_may_be_cut_right_before_a_line_end() -> Result<()> {
    // The next segment then begins with CR or LF, as a keep-alive between messages does.
    is_adopted(|message| {
        let (line, section) = (find(message, b"\r\n"), find(message, b"\r\n\r\n"));
        vec![section + 2, section + 3, section + 9, line, line + 1, section, section + 1]
    })
}

#[test]
fn after_the_grace_the_middle_of_an_unknown_stream_is_reset() -> Result<()> {
    for (offload, address) in OFFLOADS.into_iter().zip(Site::PBX) {
        let site = Site::new(offload)?;
        let server = Server::listen(&site.pbx, sip(address))?;
        let (phone, application) = server.connect(&site.phone)?;
        let message = register(1);
        let (first, second) = message.split_at(40);
        phone.write(first)?;
        application.wait_for(first.len())?;
        site.guard.attach(&[Site::INTERFACE, "--grace", "1s"])?;
        std::thread::sleep(Duration::from_millis(1500));
        phone.write(second)?;
        ensure!(application.wait_for_end()? == End::Reset, "it ended with {:?}", application.end());
        expect_same(&application.bytes(), first)?;
        phone.wait_until_refused()?;
        expect_only(Reason::UnknownStream, "reset", &BTreeMap::new(), &site.guard.malformed()?)?;
        // A connection that the guard has seen from its start is none of those.
        arrives(&site, &server, [first, second])?;
    }
    Ok(())
}
