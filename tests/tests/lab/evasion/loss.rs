//! Legal streams of real TCP over a wire that loses, reorders and repeats: every byte arrives, and nothing is malformed.

use std::{
    io::Read as _,
    net::Shutdown,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::libc::{SO_RCVBUF, SOL_SOCKET};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{Connection, PATIENCE, Server, dial, expect_same, sip},
    guard::Site,
    message::{invite, large, register},
    relay::{BadWire, Harm},
    wire::option,
};

/// Messages of one connection: some small, some in two or more segments, keep-alives between.
fn stream(connection: usize) -> Vec<u8> {
    let message = |number: usize| match number % 8 {
        0 => [invite(), b"\r\n\r\n".to_vec()].concat(),
        3 => [&register(number)[..], &invite().repeat(5)].concat(),
        _ => register(connection * 1000 + number),
    };
    (0..60).flat_map(message).collect()
}

fn over_a_bad_wire(harm: Harm) -> Result<()> {
    let began = Instant::now();
    let wire = BadWire::new(harm)?;
    wire.guard.attach(&[Site::INTERFACE, "--xdp-mode", "native"])?;
    let mut sent = 0;
    for address in Site::PBX {
        let server = Server::listen(&wire.pbx, sip(address))?;
        let connections: Vec<(Connection, Connection)> =
            (0..4).map(|_| server.connect(&wire.phone)).collect::<Result<_>>()?;
        std::thread::scope(|scope| {
            let play = |number: usize, phone: &Connection| {
                // Writes of any size, so that segments begin and end anywhere.
                stream(number).chunks(97 + 400 * number).try_for_each(|piece| phone.write(piece))
            };
            let threads: Vec<_> = connections
                .iter()
                .enumerate()
                .map(|(number, (phone, _))| scope.spawn(move || play(number, phone)))
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a writer"))
        })?;
        for (number, (_, application)) in connections.iter().enumerate() {
            let expected = stream(number);
            let read = application.wait_for(expected.len());
            expect_same(
                &read.with_context(|| format!("to {address}: {:?}", wire.guard.counters()))?,
                &expected,
            )?;
            ensure!(application.end().is_none(), "the connection ended: {:?}", application.end());
            sent += expected.len();
        }
    }
    let malformed = wire.guard.malformed()?;
    ensure!(malformed.is_empty(), "counted as malformed: {malformed:?}");
    let counters = wire.guard.counters()?;
    let [forwarded, lost, damaged, reordered, duplicated] = wire.stop()?;
    println!(
        "| {sent} bytes over a wire that lost {lost}, damaged {damaged}, reordered {reordered} and repeated {duplicated} of {forwarded} frames, \
         in {:.1} s | {counters:?} |",
        began.elapsed().as_secs_f32()
    );
    ensure!(lost + damaged + reordered + duplicated > 0, "the wire did no harm");
    Ok(())
}

#[test]
fn legal_streams_arrive_in_spite_of_loss() -> Result<()> {
    over_a_bad_wire(Harm { lost: 4, damaged: 0, reordered: 0, duplicated: 0, seed: 1 })
}

#[test]
fn legal_streams_arrive_in_spite_of_damage() -> Result<()> {
    over_a_bad_wire(Harm { damaged: 3, seed: 4, ..Harm::default() })
}

#[test]
fn legal_streams_arrive_in_spite_of_reordering_and_duplicates() -> Result<()> {
    over_a_bad_wire(Harm { lost: 0, damaged: 0, reordered: 6, duplicated: 10, seed: 2 })
}

#[test]
fn legal_streams_arrive_in_spite_of_everything() -> Result<()> {
    over_a_bad_wire(Harm { lost: 3, damaged: 0, reordered: 3, duplicated: 5, seed: 3 })
}

/// An application that reads late: the window closes and is probed, and the kernel may have to drop what it has no room for.
#[test]
fn a_reader_that_is_late_gets_everything() -> Result<()> {
    let site = Site::guarded(false, &[])?;
    let small = register(1).repeat(20);
    let much = [large(), register(1).repeat(100)].concat();
    for (address, room) in
        Site::PBX.into_iter().flat_map(|address| [(address, None), (address, Some(16_384))])
    {
        let server = Server::listen(&site.pbx, sip(address))?;
        if let Some(bytes) = room {
            // Before any window was offered, which then is never taken back.
            option(&server, SOL_SOCKET, SO_RCVBUF, bytes)?;
        }
        for (size, sent) in [(1, &small), (40, &much), (1400, &much)] {
            let before = site.guard.counted(Reason::Conflict)?;
            let phone = dial(&site.phone, sip(address))?;
            let mut late = server.accept()?;
            late.set_nonblocking(false)?;
            late.set_read_timeout(Some(PATIENCE))?;
            let mut read = vec![0; sent.len()];
            let outcome = std::thread::scope(|scope| {
                let writer = scope.spawn(|| sent.chunks(size).try_for_each(|piece| phone.write(piece)));
                std::thread::sleep(Duration::from_millis(300));
                let outcome = late.read_exact(&mut read);
                // A writer that still waits for room is let go.
                late.shutdown(Shutdown::Both).ok();
                drop(late);
                outcome.map(|()| writer.join().expect("a writer"))
            });
            let conflicts = site.guard.counted(Reason::Conflict)? - before;
            println!(
                "| late reader, {size} bytes a write, room {room:?}, to {address} | {outcome:?} | {conflicts} conflicts |"
            );
            outcome
                .with_context(|| format!("{size} bytes a write, room {room:?}, {conflicts} conflicts"))??;
            expect_same(&read, sent)?;
        }
    }
    ensure!(site.guard.malformed()?.is_empty(), "counted as malformed: {:?}", site.guard.malformed()?);
    Ok(())
}
