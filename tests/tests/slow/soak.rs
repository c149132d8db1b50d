//! As much as the machine sends, for a while: every frame is counted, nothing malformed arrives, memory stays as it is, and no log complains.
//! `SIPGUARD_SOAK=1800 cargo xtask test -p sipguard-tests --test slow -- soak --nocapture` goes on for half an hour.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use sipguard_common::{Reason, abi::names};
use sipguard_core::pins::Pins;
use sipguard_tests::{
    application::wait_until,
    envelope::{Envelope, datagram},
    exclusive,
    guard::Site,
    lab::{Counts, DEVICE, FAMILIES, Lab},
    message::{invite, negative_length, register},
    scratch::Scratch,
    service::Service,
    witness::expect_well_formed,
};

/// For how long, where `SIPGUARD_SOAK` names no other number of seconds.
const SECONDS: u64 = 15;
/// Frames between two looks at whether all are counted. Fewer than a veth has room for while the other end waits for its turn.
const ROUND: usize = 4000;
/// Frames of a kind in a round.
const EACH: usize = ROUND / 4;
/// How much more memory `serve` may have at the end than when it had seen everything once.
const GROWTH_KB: u64 = 4 << 10;

const BLOCKED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 200));
const CONTROL: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nVia: \x01\r\nContent-Length: 0\r\n\r\n";

/// The frames of a round, and as what they are counted.
fn frames() -> Vec<(Reason, Vec<Vec<u8>>)> {
    let from = |host, port: usize, to: u16, payload: &[u8]| {
        datagram(&Envelope::new(host, Site::PBX[0]), port as u16, to, payload)
    };
    let device = DEVICE[0];
    let of = |make: &dyn Fn(usize) -> Vec<u8>| (0..EACH).map(make).collect::<Vec<_>>();
    vec![
        (
            Reason::Valid,
            of(&|at| from(device, 10_000 + at, 5060, &if at % 2 == 0 { register(at) } else { invite() })),
        ),
        (Reason::ControlByte, of(&|at| from(device, 20_000 + at, 5060, CONTROL))),
        (Reason::BlockedHost, of(&|at| from(BLOCKED, 30_000 + at, 5060, &register(at)))),
        (Reason::NotGuarded, of(&|at| from(device, 40_000 + at, 16_384, &[0x80; 172]))),
    ]
}

/// Bytes that the kernel has for the guard's maps.
fn kernel_memory(pins: &Path) -> Result<u64> {
    let pins = Pins::new(pins);
    let mut sum = 0;
    for name in names::pinned() {
        let map = MapData::from_pin(pins.map(name)).with_context(|| format!("opening {name}"))?;
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
        let bytes = about.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock")?;
        sum += bytes.trim().parse::<u64>().context("memlock is no number")?;
    }
    Ok(sum)
}

/// Reads what arrives, until `stop`; how many datagrams that were.
fn read(socket: &UdpSocket, stop: &AtomicBool, arrived: &AtomicUsize) -> Result<()> {
    let mut bytes = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        // One that ran out of time reads again.
        if let Ok(length) = socket.recv(&mut bytes) {
            expect_well_formed(&bytes[..length])?;
            arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn of(counts: &Counts, reason: Reason) -> u64 {
    counts.get(&(reason as u8)).copied().unwrap_or(0)
}

/// What the kernel complained of: it has nothing to say of good programs.
fn complaints() -> Result<usize> {
    let said = std::process::Command::new("dmesg").output().context("running dmesg")?.stdout;
    let said = String::from_utf8_lossy(&said);
    let bad = ["BUG:", "WARNING:", "Call Trace", "allocation failure", "hung task"];
    Ok(said.lines().filter(|line| bad.iter().any(|word| line.contains(word))).count())
}

#[test]
fn every_frame_of_a_soak_is_counted_and_memory_stays_as_it_is() -> Result<()> {
    let _alone = exclusive::alone();
    let seconds = std::env::var("SIPGUARD_SOAK").map_or(Ok(SECONDS), |text| text.parse())?;
    let (lab, scratch) = (Lab::unguarded()?, Scratch::new("soak")?);
    let guard = &lab.site.guard;
    lab.attach(&["--grace", "1ms"])?;
    for words in [&["bans", "off"][..], &["limit", "clear"], &["block", &BLOCKED.to_string()]] {
        guard.run(words)?.expect(0)?;
    }
    let service = Service::start(&lab.site, &scratch, &[])?;
    let (kinds, complained) = (frames(), complaints()?);
    let application = lab.udp(0)?;
    application.set_nonblocking(false)?;
    application.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (stop, arrived) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| read(&application, stop, arrived));
        let soaked = soak(&lab, &service, &kinds, Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("the reader panicked")?;
        soaked
    })?;
    ensure!(arrived.load(Ordering::Relaxed) > 0, "nothing good arrived");
    ensure!(complaints()? == complained, "the kernel complains: see dmesg");
    let said = service.said()?;
    let bad: Vec<&str> =
        said.lines().filter(|line| line.contains("error") || line.contains("fail")).collect();
    ensure!(bad.is_empty(), "serve said {bad:?}");
    println!("{} datagrams arrived", arrived.load(Ordering::Relaxed));
    Ok(())
}

/// Sends rounds until the time is over, and compares after each what was sent with what was counted.
fn soak(lab: &Lab, service: &Service<'_>, kinds: &[(Reason, Vec<Vec<u8>>)], span: Duration) -> Result<()> {
    let before = lab.counts()?;
    let (began, mut rounds, mut first) = (Instant::now(), 0u64, None);
    let mut tcp = 0;
    while began.elapsed() < span {
        for (_, frames) in kinds {
            lab.wire.send_all(frames)?;
        }
        // One call that goes on, and one connection that is reset, over each family.
        for family in FAMILIES {
            let (mut good, mut application) = lab.connect(family, 1)?;
            let message = register(rounds as usize);
            good.push(&message[..100])?;
            good.push(&message[100..])?;
            let (mut bad, mut victim) = lab.connect(family, 1)?;
            bad.push(&negative_length().bytes)?;
            lab.settle()?;
            ensure!(
                application.read()? == message && application.end().is_none(),
                "a call was cut: {application}"
            );
            expect_well_formed(victim.read()?)?;
            ensure!(victim.end().is_some(), "a malformed connection goes on: {victim}");
            tcp += 1;
        }
        rounds += 1;
        let wanted = rounds * EACH as u64;
        for (reason, _) in kinds.iter().filter(|(reason, _)| *reason != Reason::NotGuarded) {
            // A call has two segments.
            let more = if *reason == Reason::Valid { 2 * tcp } else { 0 };
            let mut counted = 0;
            let all = wait_until("every frame is counted", || {
                counted = of(&lab.counts()?, *reason) - of(&before, *reason);
                Ok(counted >= wanted + more)
            });
            all.with_context(|| format!("{}: {counted} of {}", reason.name(), wanted + more))?;
            ensure!(counted == wanted + more, "{}: {counted} counted, {} sent", reason.name(), wanted + more);
        }
        if first.is_none() && began.elapsed() > span / 4 {
            first = Some((service.cost()?.0, kernel_memory(lab.site.guard.pins())?));
        }
    }
    let (serve_kb, kernel) = first.context("it was over before it had begun")?;
    let (serve_end_kb, kernel_end) = (service.cost()?.0, kernel_memory(lab.site.guard.pins())?);
    let frames = rounds * ROUND as u64;
    println!(
        "{frames} frames in {:.0?} ({:.0}/s), {tcp} calls and {tcp} resets; serve {serve_kb} kB, then {serve_end_kb}; maps {kernel} bytes, then {kernel_end}",
        began.elapsed(),
        frames as f64 / began.elapsed().as_secs_f64(),
    );
    ensure!(serve_end_kb < serve_kb + GROWTH_KB, "serve had {serve_kb} kB and has {serve_end_kb}");
    // Tables grow with who was seen, and whoever comes was seen in the first quarter, but for the ports of connections.
    ensure!(kernel_end < kernel + kernel / 10, "the maps had {kernel} bytes and have {kernel_end}");
    Ok(())
}
