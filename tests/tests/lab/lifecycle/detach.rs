//! What `detach` leaves: nothing, and not before it says so.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::programs::links::PinnedLink;
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site},
    process::output,
};

use super::{SECOND, add_interface, filters, has_program, object, objects};

/// Makes the pins say that they have ABI version 99.
fn set_another_version(guard: &Guard) -> Result<()> {
    let mut update = Command::new("bpftool");
    update.args(["map", "update", "pinned"]).arg(guard.pins().join("maps").join("ABI"));
    output(update.args("key hex 00 00 00 00 value hex 63 00 00 00".split(' '))).map(drop)
}

#[test]
fn detach_leaves_nothing_in_the_kernel() -> Result<()> {
    for words in [["detach", Site::INTERFACE], ["detach", "--all"]] {
        let site = Site::guarded(true, &[])?;
        ensure!(filters(&site, "10.77.0.1")?, "it does not filter");
        let objects = objects(site.guard.pins())?;
        let count = |kind| objects.iter().filter(|(one, _)| *one == kind).count();
        ensure!(count("map") >= 11 && count("prog") == 4 && count("link") == 4, "the pins hold {objects:?}");
        site.guard.run(&words)?.expect(0)?;
        ensure!(!has_program(&site, Site::INTERFACE)? && !site.guard.pins().exists(), "something is left");
        // The kernel frees what nobody holds a moment later, and never gives the same number soon again.
        let mut left: Vec<_> = objects.into_iter().collect();
        wait_until("links, programs and maps are freed", || {
            let mut still = vec![];
            for (kind, id) in left.drain(..) {
                if object(kind, &["id", &id.to_string()])?.is_some() {
                    still.push((kind, id));
                }
            }
            left = still;
            Ok(left.is_empty())
        })
        .with_context(|| format!("{words:?}"))?;
        ensure!(!filters(&site, "10.77.0.1")?, "it filters still");
        site.guard.run(&words)?.expect(3)?;
    }
    Ok(())
}

#[test]
fn detach_of_one_interface_keeps_the_other() -> Result<()> {
    let site = Site::new(true)?;
    add_interface(&site)?;
    site.guard.attach(&["eth0", "eth1"])?;
    site.guard.run(&["block", "192.0.2.7"])?.expect(0)?;
    ensure!(filters(&site, "10.77.0.1")? && filters(&site, SECOND)?, "it does not filter on both");
    site.guard.run(&["detach", "eth1"])?.expect(0)?;
    ensure!(filters(&site, "10.77.0.1")?, "eth0 is not filtered any more");
    ensure!(!has_program(&site, "eth1")? && !filters(&site, SECOND)?, "eth1 is filtered still");
    ensure!(site.guard.rules()?.len() == 1, "the block is gone");
    let status = site.guard.json(&["status"])?;
    ensure!(status["interfaces"].as_array().map(Vec::len) == Some(1), "it said {status}");
    site.guard.run(&["detach", "eth1"])?.expect(3)?;
    site.guard.attach(&["eth1"])?;
    ensure!(filters(&site, "10.77.0.1")? && filters(&site, SECOND)?, "it does not filter on both again");
    Ok(())
}

#[test]
fn pins_of_another_version_are_left_alone_until_detached() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    set_another_version(guard)?;
    let verbs = ["attach eth0", "detach eth0", "status", "block 192.0.2.7", "unblock --all", "list"];
    let more = [
        "lookup 192.0.2.7",
        "counters",
        "counters --by source",
        "counters --format prometheus",
        "mode monitor",
    ];
    for verb in verbs.into_iter().chain(more) {
        let words: Vec<&str> = verb.split(' ').collect();
        let output = guard.run(&words)?.expect(1).with_context(|| verb.to_owned())?;
        let once = output.stderr.matches("ABI version 99").count() == 1 && output.stderr.lines().count() == 1;
        ensure!(
            once && output.stdout.is_empty() && output.stderr.contains("detach --all"),
            "{verb}: {output:?}"
        );
    }
    ensure!(filters(&site, "10.77.0.1")?, "it does not filter any more");
    // All maps are the same, whatever its version is.
    guard.run(&["upgrade"])?.expect(0)?;
    guard.run(&["status"])?.expect(0)?;
    set_another_version(guard)?;
    guard.run(&["detach", "--all"])?.expect(0)?;
    ensure!(!guard.pins().exists() && !has_program(&site, Site::INTERFACE)?, "it is attached still");
    Ok(())
}

#[test]
fn a_program_that_something_holds_on_its_interface_is_named() -> Result<()> {
    let [all, one] = ["--all", Site::INTERFACE];
    for (what, version) in [(all, "ours"), (all, "another"), (one, "ours")] {
        let site = Site::guarded(true, &[])?;
        if version == "another" {
            set_another_version(&site.guard)?;
        }
        let link = site.guard.pins().join("links").join("0");
        let held = PinnedLink::from_pin(&link).context("opening the link")?;
        let output = site.guard.run(&["detach", what])?.expect(1)?;
        ensure!(
            output.stderr.contains("eth0 still has the XDP program") && has_program(&site, Site::INTERFACE)?,
            "{what} of {version} version: {output:?}"
        );
        drop(held);
    }
    Ok(())
}
