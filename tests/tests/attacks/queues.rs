//! One connection by two receive queues at the same moment, as a card does that hashes fragments, tunnels or flows anew.

use std::sync::{
    Barrier,
    atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, ensure};
use sipguard_tests::{
    cpu,
    guard::Site,
    lab::{FAMILIES, Lab},
    message::{negative_length, register},
    setting::Setting,
    wire::Wire,
};

use crate::stage::{Table, expect_judged, first, unguarded};

/// Tries over both families together. On the faulty guard one of some fifty succeeded.
const TRIES: usize = 600;

/// A whole message, and as many bytes of one that goes on with a long body.
fn twins() -> (Vec<u8>, Vec<u8>) {
    let whole = register(1);
    let head = "MESSAGE sip:sipguard.test SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
                Call-ID: c\r\nCSeq: 1 MESSAGE\r\nContent-Length: 60000\r\nX: ";
    let filler = "x".repeat(whole.len() - head.len() - 4);
    let begun = format!("{head}{filler}\r\n\r\n").into_bytes();
    assert_eq!(whole.len(), begun.len());
    (whole, begun)
}

/// A lab whose cable has two queues, each for what one processor sends.
fn two_queues(setting: Setting) -> Result<Lab> {
    let lab = unguarded(setting)?;
    for machine in [&lab.site.pbx, &lab.site.phone] {
        machine.run(&["ethtool", "-L", Site::INTERFACE, "rx", "2", "tx", "2"])?;
    }
    lab.attach(&["--grace", "1ms"])?;
    Ok(lab)
}

/// Tries with two threads that send at the same moment. Gives how many segments in a row were read whole.
fn race(lab: &Lab, family: usize, cpus: [usize; 2]) -> Result<String> {
    let (whole, begun) = twins();
    let wires = [
        Wire::past_queues(&lab.site.phone, Site::INTERFACE)?,
        Wire::past_queues(&lab.site.phone, Site::INTERFACE)?,
    ];
    let (mut reads, start, go) = ([0usize; 3], Barrier::new(3), AtomicU32::new(0));
    for number in 0..TRIES / 2 {
        let (mut sender, mut witness) = lab.connect(family, first())?;
        lab.settle()?;
        let frames = [sender.segment(&whole).frame(), sender.segment(&begun).frame()];
        go.store(0, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|at| {
                    let (wire, frame, start, go) = (&wires[at], &frames[at], &start, &go);
                    scope.spawn(move || {
                        cpu::pin(cpus[at])?;
                        start.wait();
                        go.fetch_add(1, Ordering::SeqCst);
                        while go.load(Ordering::SeqCst) < 2 {
                            std::hint::spin_loop();
                        }
                        wire.send(frame)
                    })
                })
                .collect();
            start.wait();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a sender"))
        })?;
        lab.settle()?;
        sender.skip(whole.len());
        sender.push(&negative_length().bytes)?;
        let outcome = expect_judged(lab, &mut witness);
        ensure!(outcome.is_ok(), "try {number}: {:#}", outcome.unwrap_err());
        let read = witness.already_read();
        reads[if read == 0 {
            0
        } else if read == whole.len() {
            1
        } else {
            2
        }] += 1;
    }
    let [none, one, more] = reads;
    Ok(format!("{} tries: {none} read nothing, {one} one message, {more} a body too", TRIES / 2))
}

#[test]
fn two_queues_at_the_same_moment() -> Result<()> {
    let mut table = Table::new("E7");
    let cpus = cpu::allowed()?;
    let [first, second, ..] = cpus[..] else {
        println!("skipped: two processors are needed");
        return Ok(());
    };
    let lab = two_queues(Setting::Local)?;
    for family in FAMILIES {
        let technique = "two beginnings of a stream on two processors";
        table.row(technique, Setting::Local, family, race(&lab, family, [first, second]));
    }
    table.end()
}
