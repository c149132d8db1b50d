//! Ways round the guard that were found here, and what they are closed by.

use anyhow::{Context as _, Result, ensure};
use nix::libc::{IPPROTO_TCP, TCP_FASTOPEN};
use sipguard_tests::{
    application::{End, expect_same},
    lab::{FAMILIES, Lab},
    message::{negative_length, register},
    packet::{ACK, FIN, RST, SYN, URG},
    program::{Program, XDP_PASS},
    wire::option,
    witness::{Witness, expect_well_formed},
};

use super::{
    control::always_cookies,
    discarded::{Discarder, discarders},
    evicted::spoofed,
};

/// The first half of a message, in its header section, with its Content-Length; and what continues it such that the application
/// reads something malformed while a guard that has lost its place sees a message with a body.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let first = b"MESSAGE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nContent-Length: 0\r\n".to_vec();
    let second =
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 40\r\n\r\n\0\0\0\0malformed as can be\r\n\r\n\0\0\0\0"
            .to_vec();
    (first, second)
}

/// The kernel remembers the pointer and takes the byte out of the stream when it comes.
#[test]
fn the_urgent_pointer_of_an_empty_segment() -> Result<()> {
    let lab = Lab::new(&[])?;
    let message = register(1);
    let cr = message.iter().position(|byte| *byte == b'\r').context("a line end")?;
    lab.malicious("urgent pointer of an empty segment, then a message", |sender| {
        let mut urgent = sender.bare(ACK | URG);
        urgent.urgent = cr as u16 + 1;
        sender.send(&urgent)?;
        sender.push(&message)?;
        sender.push(&message)
    })
}

/// The guard turns a malformed segment into a RST with the sequence number that it expects. Where the kernel expects another one,
/// the connection lives on, and the guard must not have forgotten it.
#[test]
fn a_reset_in_the_wrong_place() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for Discarder { name, spoil } in discarders(family) {
            let name = format!("{name}: legal, malformed behind it, then before it");
            lab.malicious_over(family, &name, |sender| {
                let (first, second) = halves();
                sender.push(&first)?;
                let mut spoiled = sender.segment(b"X: y\r\n");
                spoil(&mut spoiled);
                sender.send(&spoiled)?;
                let malformed = sender.segment_at(6, b"no header\r\n");
                sender.send(&malformed)?;
                sender.push(&second)
            })?;
        }
    }
    Ok(())
}

/// A malformed segment that the kernel discards stays one that it discards when it has become a RST.
#[test]
fn a_reset_that_is_discarded() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for Discarder { name, spoil } in discarders(family) {
            let name = format!("{name}: malformed, then the message goes on otherwise");
            lab.malicious_over(family, &name, |sender| {
                let (first, second) = halves();
                sender.push(&first)?;
                let mut spoiled = sender.segment(b"no header\r\n");
                spoil(&mut spoiled);
                sender.send(&spoiled)?;
                sender.push(&second)
            })?;
        }
    }
    Ok(())
}

/// Whoever is believed that the connection ended can begin another one, of which the kernel knows nothing.
#[test]
fn an_end_that_is_discarded() -> Result<()> {
    let lab = Lab::new(&[])?;
    for (what, flags) in [("RST", RST), ("RST, ACK", RST | ACK), ("FIN, ACK", FIN | ACK)] {
        for family in FAMILIES {
            for Discarder { name, spoil } in discarders(family) {
                lab.malicious_over(family, &format!("{what} with {name}, SYN, then malformed"), |sender| {
                    let (first, second) = halves();
                    sender.push(&first)?;
                    let mut end = sender.bare(flags);
                    spoil(&mut end);
                    sender.send(&end)?;
                    // The kernel answers a SYN for an open connection with an ACK, and no more.
                    let syn = sender.bare(SYN);
                    sender.send(&syn)?;
                    sender.push(&second)
                })?;
            }
        }
    }
    Ok(())
}

/// Two segments whose hashes were the same for every key: what a multiplication makes of the highest bit of a word is known, and
/// the next word of the lane undid it.
#[test]
fn twins_of_the_hash() -> Result<()> {
    let lab = Lab::new(&[])?;
    let mut benign = [b'a'; 64];
    benign[7] = 0x80;
    benign[23] = 0xc1;
    let mut twin = benign;
    twin[7] ^= 0x80;
    twin[20] ^= 0x04;
    twin[23] ^= 0x80;
    for family in FAMILIES {
        for Discarder { name, spoil } in discarders(family) {
            lab.malicious_over(family, &format!("{name}, then its twin with a NUL"), |sender| {
                sender.push(b"MESSAGE sip:a SIP/2.0\r\nSubject: ")?;
                let mut spoiled = sender.segment(&benign);
                spoil(&mut spoiled);
                sender.send(&spoiled)?;
                sender.push(&twin)?;
                sender.push(b"\r\n")
            })?;
        }
    }
    Ok(())
}

/// Sends malformed bytes with the ACK that ends a handshake with a cookie, after `disturb` made the guard believe something else
/// of that handshake than the kernel does.
fn with_a_cookie(lab: &Lab, family: usize, name: &str, disturb: impl Fn() -> Result<u32>) -> Result<()> {
    let (before, mut sender) = (lab.counts()?, lab.sender(family, 5_000));
    let syn = sender.syn();
    sender.send(&syn)?;
    sender.take_answer()?;
    let ahead = disturb()?;
    if ahead > 0 {
        let mut second = syn.clone();
        second.seq = second.seq.wrapping_add(ahead);
        sender.send(&second)?;
    }
    sender.push(&negative_length().bytes)?;
    lab.settle()?;
    let mut read = "no connection".to_owned();
    let mut verdict = Ok(());
    if let Some(stream) = lab.server(family).try_accept()? {
        let mut witness = Witness::new(stream)?;
        verdict = expect_well_formed(witness.read()?);
        read = witness.to_string();
    }
    lab.note(name, "malicious", family, &read, &before)?;
    verdict.context(name.to_owned())
}

#[test]
fn a_second_syn_with_cookies() -> Result<()> {
    let lab = Lab::new(&[])?;
    always_cookies(&lab)?;
    for family in FAMILIES {
        for ahead in [10_000, 30] {
            let name = format!("SYN cookies, another SYN {ahead} ahead, then malformed");
            with_a_cookie(&lab, family, &name, || Ok(ahead))?;
        }
    }
    Ok(())
}

#[test]
fn a_forgotten_syn_with_cookies() -> Result<()> {
    let lab = Lab::new(&[])?;
    always_cookies(&lab)?;
    for family in FAMILIES {
        with_a_cookie(&lab, family, "SYN cookies, 40,000 other SYNs, then malformed", || {
            // More handshakes than the guard keeps in mind.
            spoofed(&lab, 40_000, |_, syn| vec![syn])?;
            Ok(0)
        })?;
    }
    Ok(())
}

/// An application that asks for it gets the data of a SYN (RFC 7413).
#[test]
fn fast_open() -> Result<()> {
    let lab = Lab::new(&[])?;
    // For servers, and without a cookie, which a device would get by asking for one.
    lab.site.pbx.enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "514"))??;
    for family in FAMILIES {
        option(lab.server(family), IPPROTO_TCP, TCP_FASTOPEN, 16)?;
        let (before, mut sender) = (lab.counts()?, lab.sender(family, 100));
        let syn = sender.syn();
        let mut opening = syn.clone().carrying(&negative_length().bytes);
        opening.options.truncate(4);
        opening.options.extend([34, 2, 1, 1]);
        opening.flags = SYN;
        sender.send(&opening)?;
        lab.settle()?;
        let mut read = "no connection".to_owned();
        let mut verdict = Ok(());
        if let Some(stream) = lab.server(family).try_accept()? {
            let mut witness = Witness::new(stream)?;
            verdict = expect_well_formed(witness.read()?);
            read = witness.to_string();
        }
        lab.note("fast open: data on SYN", "malicious", family, &read, &before)?;
        verdict.context("data on a SYN with fast open")?;
        // Who asks for it and is not answered goes on without it.
        let (mut sender, message) = (lab.sender(family, 100), register(1));
        let syn = sender.syn();
        let mut opening = syn.clone().carrying(&message);
        opening.options.truncate(4);
        opening.options.extend([34, 2, 1, 1]);
        opening.flags = SYN;
        sender.send(&opening)?;
        sender.send(&syn)?;
        let answer = sender.take_answer()?;
        let ack = sender.segment(&[]);
        sender.send(&ack)?;
        sender.push(&message)?;
        let mut witness = lab.accept(family)?;
        lab.settle()?;
        expect_same(witness.read()?, &message).with_context(|| format!("{answer:?}"))?;
    }
    Ok(())
}

/// Handshakes that nobody means to finish are no connections: they must not push any out of the guard's memory, or a message that
/// was half sent could be followed by anything that looks like the start of another.
#[test]
fn spoofed_handshakes_with_data() -> Result<()> {
    let lab = Lab::new(&[])?;
    let start = b"MESSAGE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n";
    let (first, second) = halves();
    let rests = [&b"no header\r\n\r\n"[..], b"\0\0\0\0", b"Content-Length: -1\r\n\r\n", &second];
    let mut open = vec![];
    for family in FAMILIES {
        for rest in rests {
            let (mut sender, witness) = lab.connect(family, 100)?;
            sender.push(if rest == second { &first } else { start })?;
            open.push((family, sender, witness, rest));
        }
        let (mut sender, witness) = lab.connect(family, 100)?;
        sender.push(&register(1)[..100])?;
        open.push((family, sender, witness, &[]));
    }
    lab.settle()?;
    let (before, flows) = (lab.counts()?, lab.flows()?);
    spoofed(&lab, 250_000, |data, syn| vec![syn, data])?;
    let grown = lab.flows()? - flows;
    lab.note("250,000 spoofed SYNs, each with data", "-", 0, &format!("{grown} more flows"), &before)?;
    for (family, mut sender, mut witness, rest) in open {
        let before = lab.counts()?;
        if rest.is_empty() {
            sender.push(&register(1)[100..])?;
            lab.settle()?;
            expect_same(witness.read()?, &register(1))?;
            lab.note("the flood in mid-message", "legal", family, &witness.to_string(), &before)?;
            lab.expect_nothing_malformed(&before)?;
            continue;
        }
        sender.push(rest)?;
        lab.settle()?;
        let verdict = expect_well_formed(witness.read()?);
        lab.note(
            "the flood, then malformed in mid-message",
            "malicious",
            family,
            &witness.to_string(),
            &before,
        )?;
        verdict?;
    }
    ensure!(grown == 0, "{grown} flows of connections that do not exist");
    Ok(())
}

/// Bits that the wire turned make a segment that the kernel discards. They are no fault of the device, which sends it again.
#[test]
fn a_segment_damaged_on_the_wire() -> Result<()> {
    let lab = Lab::new(&[])?;
    for (name, at, byte) in [("a NUL in a header", 60, 0), ("no start line", 3, b' ')] {
        lab.legal(&format!("damaged on the wire: {name}; then sent again"), |sender| {
            let message = register(1);
            let mut damaged = sender.segment(&message);
            damaged.payload[at] = byte;
            damaged.bad_checksum = true;
            sender.send(&damaged)?;
            sender.push(&message)?;
            sender.push(&message)?;
            Ok(message.repeat(2))
        })?;
    }
    Ok(())
}

/// A packet filter, a full queue or a full buffer may lose a segment that the guard has let pass, whatever follows it.
#[test]
fn a_segment_lost_behind_the_guard() -> Result<()> {
    let lab = Lab::new(&[])?;
    // It drops what has a window of exactly 4711.
    for words in [
        &["add", "table", "inet", "t"][..],
        &["add", "chain", "inet", "t", "c", "{ type filter hook input priority 0 ; }"],
        &["add", "rule", "inet", "t", "c", "tcp", "window", "4711", "drop"],
    ] {
        lab.site.pbx.run(&[&["nft"], words].concat())?;
    }
    for behind in [1, 3] {
        lab.legal(&format!("lost behind the guard, {behind} segments behind it"), |sender| {
            let stream = register(1).repeat(behind + 1);
            let size = register(1).len();
            let mut lost = sender.segment(&stream[..size]);
            lost.window = 4711;
            sender.send(&lost)?;
            let again = sender.segment(&stream[..size]);
            stream.chunks(size).skip(1).enumerate().try_for_each(|(number, piece)| {
                let segment = sender.segment_at((size * (number + 1)) as i32, piece);
                sender.send(&segment)
            })?;
            sender.send(&again)?;
            sender.skip(stream.len());
            Ok(stream)
        })?;
    }
    Ok(())
}

/// What was validated and then discarded by the kernel may not be comparable any more. Such a connection is not left standing: after
/// some tries it is reset, so that the device connects anew.
#[test]
fn a_connection_out_of_step_is_given_up() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        let end = lab.malicious_over(family, "damaged on the wire, then cut otherwise", |sender| {
            let message = register(1);
            let mut damaged = sender.segment(&message);
            damaged.payload[60] = b'q';
            damaged.bad_checksum = true;
            sender.send(&damaged)?;
            let again = sender.segment(&message[..100]);
            (0..10).try_for_each(|_| sender.send(&again).and_then(|()| sender.lab().settle()))
        })?;
        ensure!(end == Some(End::Reset), "it ended with {end:?}");
    }
    Ok(())
}

/// Without a socket of this machine (a PBX in a container) the guard has only what it saw: a SYN must not make it believe that
/// bytes which are to come were there already, nor forget a message that is half sent.
#[test]
fn syns_for_a_pbx_in_a_container() -> Result<()> {
    let peer = sipguard_tests::packet::Peer::new("192.0.2.7:40000", "198.51.100.1:5060");
    let bad = negative_length().bytes;
    let mut program = Program::shared()?;
    program.connect(&peer, 1000)?;
    program.run(&peer.tcp(SYN, 5000, b""))?;
    let frame = peer.tcp(ACK, 1000, &bad);
    let run = program.run(&frame)?;
    ensure!(run.action != XDP_PASS || run.frame != frame, "a second SYN, then malformed: {:?}", run.reason);

    let (first, second) = halves();
    let mut program = Program::shared()?;
    program.connect(&peer, 1000)?;
    program.run(&peer.tcp(ACK, 1000, &first))?;
    let next = 1000 + first.len() as u32;
    program.run(&peer.tcp(SYN, next - 1, b""))?;
    let frame = peer.tcp(ACK, next, &second);
    let run = program.run(&frame)?;
    ensure!(
        run.action != XDP_PASS || run.frame != frame,
        "a SYN in mid-message, then malformed: {:?}",
        run.reason
    );
    Ok(())
}
