//! Captures of voice: much of it, in constant memory, and nothing odd overlooked.

use super::*;

#[test]
fn voice_is_judged_once_a_flow_and_what_is_odd_in_it_each_time() -> Result<()> {
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
    let mut program = Program::new()?;
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
    let cpu_us = || -> Result<i64> {
        let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        Ok(used.user_time().num_microseconds() + used.system_time().num_microseconds())
    };
    let (start, before_us) = (Instant::now(), cpu_us()?);
    let output = run(&["replay", "-j", &path.to_string_lossy()], &scratch.join("rules.db"))?.expect(0)?;
    let seconds = start.elapsed().as_secs_f64();
    let report: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(report["rows"][0]["judged"], packets);
    let most_kb = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    // Beside other tests this counts theirs as well: alone it is the replay's.
    let cpu_ns = (cpu_us()? - before_us) * 1000 / i64::try_from(packets)?;
    println!(
        "{megabytes} MB, {packets} packets in {seconds:.2} s ({:.0} a second, loading the program included), {cpu_ns} ns of CPU each, {most_kb} KB at the most",
        packets as f64 / seconds
    );
    ensure!(most_kb < MOST_KB, "{most_kb} KB");
    Ok(())
}
