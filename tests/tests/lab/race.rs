//! Several hands at once: commands of each kind and `serve` beside each other lose nothing, wait for each other, and leave store and maps that agree.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Output, Site},
    rules::{consistent, listed},
    scratch::Scratch,
    service::Service,
};

/// Rounds of each hand.
const ROUNDS: usize = 8;

fn run(guard: &Guard, words: &str, statuses: &[i32]) -> Result<Output> {
    let output = guard.run(&words.split(' ').collect::<Vec<_>>())?;
    ensure!(
        statuses.contains(&output.status),
        "{words} ended with {}: {}",
        output.status,
        output.stderr.trim()
    );
    Ok(output)
}

/// Blocks and lifts, each time something else; of each round one block stays.
fn block(guard: &Guard, hand: usize) -> Result<()> {
    for round in 0..ROUNDS * 3 {
        let [stays, goes] = [1, 2].map(|host| format!("198.18.{hand}.{}", round * 2 + host));
        for words in [format!("block {stays} {goes} --comment race"), format!("unblock {goes}")] {
            // One that meets a detach changes nothing, says so, and is repeated.
            while run(guard, &words, &[0, 3])?.status == 3 {}
        }
    }
    Ok(())
}

#[test]
fn commands_of_each_kind_and_serve_at_once_leave_what_agrees() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("race")?);
    let guard = &site.guard;
    let files = [
        "[guard]\nports = [5060]\n[trunks.one]\npeers = [\"192.0.2.1\"]\n",
        "[guard]\nports = [5060, 5080]\n[trunks.two]\npeers = [\"192.0.2.2\"]\n[limits]\nmessages = \"400/s burst 4000\"\n",
    ];
    let files = [0, 1].map(|at| scratch.write(&format!("{at}.toml"), files[at]));
    let [one, two] = files;
    let files = [one?, two?].map(|path| path.display().to_string());
    let service = &Service::start(&site, &scratch, &[])?;
    let stop = &AtomicBool::new(false);
    let reload = || -> Result<()> {
        for round in 0..ROUNDS * 2 {
            // Nothing attached: the store alone follows the file.
            while run(guard, &format!("reload --config {}", files[round % 2]), &[0, 3])?.status == 3 {}
        }
        Ok(())
    };
    let attach = || -> Result<()> {
        for _ in 0..ROUNDS {
            run(guard, "detach --all", &[0, 3])?;
            // The other hand may take it off before it says what it did.
            run(guard, "attach eth0", &[0, 3])?;
        }
        Ok(())
    };
    let look = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            run(guard, "status", &[0, 3])?;
            run(guard, "list", &[0])?;
            run(guard, "mode", &[0, 3])?;
            ensure!([200, 503].contains(&service.get("/health")?.status), "health");
            service.get("/metrics")?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let hands: [Box<dyn FnOnce() -> Result<()> + Send>; 5] = [
            Box::new(|| block(guard, 1)),
            Box::new(|| block(guard, 2)),
            Box::new(reload),
            Box::new(attach),
            Box::new(attach),
        ];
        let watch = scope.spawn(look);
        let hands = hands.map(|hand| scope.spawn(hand));
        let done: Vec<Result<()>> = hands
            .into_iter()
            .map(|hand| hand.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        stop.store(true, Ordering::Relaxed);
        watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("who looks")?;
        done.into_iter().collect::<Result<()>>()
    })?;
    run(guard, "attach eth0", &[0])?;
    // A first attach has the trunks of its own file, which is another one.
    run(guard, &format!("reload --config {}", files[1]), &[0])?;
    // Of each round one rule of each hand, in force; and the trunk of the file that was applied last.
    ensure!(consistent(guard)? == ROUNDS * 6, "{:?}", listed(guard)?);
    let trunks = run(guard, "trunk list", &[0])?.stdout;
    ensure!(trunks.contains(" two ") && !trunks.contains(" one "), "{trunks}");
    let again = run(guard, &format!("reload --config {} --dry-run", files[1]), &[0])?.stdout;
    ensure!(!again.contains("->"), "{again}");
    wait_until("serve has found the last guard", || Ok(service.get("/health")?.status == 200))?;
    let parent = guard.pins().parent().context("a directory")?;
    let begun = format!("{}-new-", guard.pins().file_name().context("a name")?.to_string_lossy());
    for entry in std::fs::read_dir(parent)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with(&begun), "{name} is left");
    }
    Ok(())
}
