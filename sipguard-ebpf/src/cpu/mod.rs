//! What the rooms share: `scratch` (the work space of one CPU, and what a packet is), `ending` (how a global function ends), `settings` (what the
//! operator set), and the instructions that Rust has no words for (`atomic`, `asm`).

/// On the host the program is only checked: what has BPF's instructions is never run there.
#[cfg(not(target_arch = "bpf"))]
macro_rules! asm {
    ($($instruction:tt)*) => {
        unreachable!("an instruction of BPF")
    };
}

#[cfg_attr(
    not(target_arch = "bpf"),
    expect(unreachable_code, unused_mut, unused_unsafe, unused_variables, reason = "see `asm`")
)]
pub mod asm;
#[cfg_attr(
    not(target_arch = "bpf"),
    expect(unreachable_code, unused_mut, unused_unsafe, unused_variables, reason = "see `asm`")
)]
pub mod atomic;
pub mod ending;
pub mod scratch;
pub mod settings;
