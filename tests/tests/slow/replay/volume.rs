//! Captures of voice: much of it, in constant memory, and nothing odd overlooked.

use super::*;

#[test]
fn voice_is_judged_once_a_flow_and_what_is_odd_in_it_each_time() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let voice = Peer::new("192.0.2.7:40000", "198.51.100.1:40002");
    let plain = voice.udp(&[0x80; 172]);
    let at = 14;
    let bent = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = plain.clone();
        change(&mut frame);
        frame
    };
    // Of the same flow, and each judged otherwise.
    let odd = [
        bent(&|frame| frame[at] = 0x44),
        bent(&|frame| frame[at] = 0x65),
        bent(&|frame| frame[at + 3] += 1),
        bent(&|frame| frame[at + 3] = 19),
        bent(&|frame| (frame[at + 6], frame[at + 7]) = (0x20, 0)),
        bent(&|frame| (frame[at + 6], frame[at + 7]) = (0, 9)),
        bent(&|frame| frame[at + 9] = 6),
        bent(&|frame| frame[at + 22..at + 24].copy_from_slice(&5060u16.to_be_bytes())),
    ];
    let mut frames = vec![Peer::new("192.0.2.7:5060", PBX).udp(OPTIONS); 2];
    for one in &odd {
        frames.extend([plain.clone(), plain.clone(), one.clone()]);
    }
    frames.push(Peer::new("192.0.2.8:40000", "198.51.100.1:40002").udp(&[0x80; 172]));
    let mut program = Program::shared()?;
    let mut expected = BTreeMap::new();
    for frame in &frames {
        *expected.entry(program.run(frame)?.reason.name().to_owned()).or_insert(0u64) += 1;
    }
    ensure!(expected.len() >= 4 && expected["not-guarded"] >= 17, "{expected:?}");
    let (report, _) = replay(&scratch, &Form::USUAL.pcap(1, &whole(&frames)), &["--pbx", "198.51.100.1"])?;
    assert_eq!(reasons(&report), expected);
    Ok(())
}

/// Megabytes of a generated capture: `SIPGUARD_CAPTURE_MB`, by default 20.
#[test]
fn a_large_capture_takes_constant_memory() -> Result<()> {
    let _shared = exclusive::beside_others();
    let scratch = Scratch::new("replay")?;
    let megabytes: usize = std::env::var("SIPGUARD_CAPTURE_MB").map_or(Ok(20), |text| text.parse())?;
    let path = scratch.join("large.pcap");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    file.write_all(&Form::USUAL.pcap_header(1))?;
    let (mut bytes, mut packets, mut number) = (0usize, 0u64, 0u32);
    while bytes < megabytes << 20 {
        // A call: signalling and, mostly, voice.
        let peer =
            Peer::new(&format!("10.{}.{}.{}:5060", number >> 16 & 255, number >> 8 & 255, number & 255), PBX);
        let media = Peer::new(&format!("{}:40000", peer.remote.ip()), "198.51.100.1:40002").udp(&[0x80; 172]);
        let signalling = [connection(&peer, &[&good_call(), OPTIONS]), vec![peer.udp(&register(1))]].concat();
        for frame in signalling.iter().chain(std::iter::repeat_n(&media, 40)) {
            let one = Captured {
                data: frame.clone(),
                original_len: frame.len() as u32,
                time_us: 1_700_000_000_000_000 + packets,
                flags: 0,
            };
            let record = Form::USUAL.pcap_packet(&one);
            bytes += record.len();
            packets += 1;
            file.write_all(&record)?;
        }
        number += 1;
    }
    drop(file.into_inner()?);
    // Started by a small program: a child has at least the memory of the one that starts it, and this one has had much.
    let mut command = Command::new(neighbour("MEASURE", "measure")?);
    command.arg(neighbour("SIPGUARD", "sipguard")?).args(["replay", "-j"]).arg(&path);
    let output = finish(&mut command, &scratch.join("rules.db"))?.expect(0)?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(report["rows"][0]["judged"], packets);
    let measured = output.stderr.lines().last().and_then(|line| line.split_once(' '));
    let (seconds, most_kb) = measured.context("nothing was measured")?;
    let (seconds, most_kb): (f64, u64) = (seconds.parse()?, most_kb.parse()?);
    println!(
        "{megabytes} MB, {packets} packets in {seconds:.2} s ({:.0} a second, loading the program included), {most_kb} KB at the most",
        packets as f64 / seconds
    );
    ensure!(most_kb < MOST_KB, "{most_kb} KB");
    Ok(())
}
