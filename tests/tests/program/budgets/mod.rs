//! Numbers that matter, measured on the running kernel. Whoever raises one says why in the commit.

mod calls;
mod object;

use anyhow::{Context as _, Result};
use sipguard_common::abi::names;
use sipguard_object::OBJECT;
use sipguard_tests::program::Program;

use calls::Calls;

/// Instructions that the verifier looked at; the kernel's limit is 1,000,000.
const VERIFIED_INSTRUCTIONS: u32 = 268_000;
/// Bytes of machine code.
const JITED_BYTES: u32 = 101 << 10;
/// Bytes of the object, debug information and BTF included.
const OBJECT_BYTES: usize = 2_800_000;
/// Bytes of stack that the kernel allows for all functions under way together.
const STACK_BYTES: u32 = 512;
/// What the kernel calls.
const PROGRAMS: [&str; 4] =
    [names::PROGRAM, names::EGRESS_PROGRAM, names::CONNECTION_PROGRAMS[0], names::CONNECTION_PROGRAMS[1]];
/// Kernel memory of all maps together when nothing is blocked and no connection is followed.
const MAP_BYTES: u64 = 90 << 20;

#[test]
fn the_program_stays_small() -> Result<()> {
    let info = Program::shared()?.info()?;
    let verified =
        info.verified_instruction_count().context("the kernel tells how many instructions it verified")?;
    println!(
        "verified instructions: {verified}, machine code: {} bytes, object: {} bytes",
        info.size_jitted(),
        OBJECT.len()
    );
    assert!(verified <= VERIFIED_INSTRUCTIONS, "{verified} verified instructions");
    assert!(info.size_jitted() <= JITED_BYTES, "{} bytes of machine code", info.size_jitted());
    assert!(OBJECT.len() <= OBJECT_BYTES, "the object has {} bytes", OBJECT.len());
    Ok(())
}

/// Older kernels round each frame up to 32 bytes.
#[test]
fn the_stack_suffices_on_older_kernels_too() -> Result<()> {
    let calls = Calls::read(OBJECT)?;
    for program in PROGRAMS {
        let (sum, chain) = calls.deepest(program)?;
        println!("{program}: {sum} bytes at the most, by {}", chain.join(" > "));
        assert!(chain.len() > 1, "{program} calls nothing: the calls are not read");
        assert!(sum <= STACK_BYTES, "{} take {sum} bytes of stack", chain.join(", "));
    }
    Ok(())
}

#[test]
fn maps_fit_their_memory() -> Result<()> {
    let sum = Program::new()?.map_bytes()?;
    assert!(sum <= MAP_BYTES, "{sum} bytes of map memory");
    Ok(())
}
