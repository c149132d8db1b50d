//! What passes of ten times a limit, through the loaded program.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sipguard_common::Reason;
use sipguard_common::abi::{MESSAGES, Rate};
use sipguard_tests::bench::kernel::test_run;
use sipguard_tests::exclusive;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::Peer;
use sipguard_tests::program::Program;

/// Offers ten times the limit for ten seconds on as many threads, and tells how many times as much as the limit passed.
fn share(threads: u32) -> Result<f64> {
    const PER_SECOND: u32 = 500;
    // As many as a second gives, so that nothing is lost while all threads wait for their turn.
    const BURST: u32 = PER_SECOND;
    let time = Duration::from_secs(10);
    let mut program = Program::new()?;
    program.limit(MESSAGES, Rate::new(PER_SECOND, BURST))?;
    let frame = Peer::new("192.0.2.7:5060", "198.51.100.1:5060").udp(OPTIONS);
    let descriptor = program.descriptor()?;
    let step = Duration::from_secs(1) * threads / (10 * PER_SECOND);
    let start = Instant::now();
    let offered = std::thread::scope(|scope| {
        let offer = || {
            let (mut offered, mut frame) = (0, frame.clone());
            while start.elapsed() < time {
                test_run(descriptor.as_fd(), &mut frame, 1)?;
                offered += 1;
                let next = step * offered;
                std::thread::sleep(next.saturating_sub(start.elapsed()));
            }
            anyhow::Ok(offered)
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(offer)).collect();
        let joined =
            all.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?);
        joined.sum::<Result<u32>>()
    })?;
    let expected = f64::from(PER_SECOND) * start.elapsed().as_secs_f64() + f64::from(BURST);
    let passed = program.count(Reason::Valid)?;
    println!("{threads} threads offered {offered}, {passed} passed, {expected:.0} were expected");
    ensure!(offered > 5 * PER_SECOND * 10, "only {offered} were offered");
    Ok(passed as f64 / expected)
}

#[test]
fn ten_times_the_limit_is_held_to_it_on_one_core_and_on_two() -> Result<()> {
    let _alone = exclusive::alone();
    for threads in [1, 2] {
        let share = share(threads)?;
        assert!((0.98..=1.02).contains(&share), "{share} of the limit passed on {threads} threads");
    }
    Ok(())
}
