//! Shared by all stages: `scratch` (per-CPU memory, with the packet that is processed), `stage_result` (results of global functions),
//! `settings` (the operator's settings), and instructions that Rust cannot express (`atomic`, `asm`).

/// On the host the program is only checked; BPF instructions never run there.
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
pub mod scratch;
pub mod settings;
pub mod stage_result;
