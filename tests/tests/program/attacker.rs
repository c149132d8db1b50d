//! Random attackers against the loaded programs, judged by a model of the PBX: `sipguard_tests::model`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::model::{Guard, Sequence};

/// Sequences that are played; `SIPGUARD_SEQUENCES` asks for another number, `SIPGUARD_SECONDS` for as many as there is time for, and
/// `SIPGUARD_SEED` for another first one.
const SEQUENCES: u64 = 8000;

/// Faults that a player finds at the most.
const MOST: u64 = 5;

/// A number that the environment has.
fn asked(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().with_context(|| format!("{name} is a number")).map(Some)
}

#[test]
fn no_attacker_gets_through_and_no_phone_is_cut() -> Result<()> {
    let count = asked("SIPGUARD_SEQUENCES")?.unwrap_or(SEQUENCES);
    let first = asked("SIPGUARD_SEED")?.unwrap_or(1);
    let seconds = asked("SIPGUARD_SECONDS")?;
    let threads = std::thread::available_parallelism()?.get();
    let (next, began) = (AtomicU64::new(first), Instant::now());
    let play = || -> Result<u64> {
        let mut guard = Guard::new()?;
        let mut found = 0;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = match seconds {
                Some(seconds) => began.elapsed().as_secs() >= seconds,
                None => seed >= first + count,
            };
            if over || found == MOST {
                return Ok(found);
            }
            if let Some(fault) = Sequence::new(seed).play(&mut guard)? {
                found += 1;
                println!("{fault}");
            }
        }
    };
    let found: u64 = std::thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        let ends = players.into_iter().map(|player| player.join().expect("a player panicked"));
        ends.sum::<Result<u64>>()
    })?;
    let played = next.load(Ordering::Relaxed) - first - threads as u64;
    println!("{played} sequences in {:.1} s, {found} faults", began.elapsed().as_secs_f64());
    ensure!(found == 0, "{found} of {played} sequences found a fault");
    Ok(())
}

#[test]
fn the_model_sees_what_passes_without_a_guard() -> Result<()> {
    let mut guard = Guard::new()?;
    guard.absent = true;
    let mut found = 0;
    for seed in 1..200 {
        found += u64::from(Sequence::new(seed).play(&mut guard)?.is_some());
    }
    println!("{found} of 199 sequences reach an application");
    ensure!(found > 60, "{found} of 199 sequences reach an application");
    Ok(())
}
