//! bpf(2), as far as the benchmark needs programs that come from no ELF object, and for entries of maps as bytes.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use aya_obj::generated::{
    BPF_F_XDP_HAS_FRAGS,
    bpf_attach_type::BPF_XDP,
    bpf_attr,
    bpf_cmd::{
        self, BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_GET_FD_BY_ID, BPF_PROG_LOAD, BPF_PROG_TEST_RUN,
    },
    bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY,
    bpf_prog_type::{BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP},
};
use nix::libc;

/// What a test run of many repeats told.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    /// XDP's action of the last repeat.
    pub action: u32,
    /// Mean nanoseconds of a repeat; the kernel rounds down.
    pub ns: u32,
}

/// Loads an XDP program (multi-buffer, like sipguard) from its instructions.
pub fn load(instructions: &[u64]) -> Result<OwnedFd> {
    load_as(BPF_PROG_TYPE_XDP as u32, BPF_XDP as u32, BPF_F_XDP_HAS_FRAGS, instructions)
}

/// Loads a classifier of traffic control from its instructions.
pub fn load_classifier(instructions: &[u64]) -> Result<OwnedFd> {
    load_as(BPF_PROG_TYPE_SCHED_CLS as u32, 0, 0, instructions)
}

fn load_as(kind: u32, attach: u32, flags: u32, instructions: &[u64]) -> Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut log = vec![0u8; 1 << 16];
    let mut attr = blank();
    // SAFETY: every variant of the zeroed union is plain integers.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind;
    load.expected_attach_type = attach;
    load.prog_flags = flags;
    load.insn_cnt = instructions.len() as u32;
    load.insns = instructions.as_ptr() as u64;
    load.license = license.as_ptr() as u64;
    load.log_level = 1;
    load.log_size = log.len() as u32;
    load.log_buf = log.as_mut_ptr() as u64;
    bpf_fd(BPF_PROG_LOAD, &mut attr).with_context(|| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        format!("loading a program of the benchmark: {}", String::from_utf8_lossy(&log[..end]))
    })
}

/// A program array with one program in it: where a tail call goes.
pub fn tail_call_to(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attr = blank();
    // SAFETY: every variant of the zeroed union is plain integers.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    create.map_type = BPF_MAP_TYPE_PROG_ARRAY as u32;
    create.key_size = 4;
    create.value_size = 4;
    create.max_entries = 1;
    let array = bpf_fd(BPF_MAP_CREATE, &mut attr).context("making a program array")?;

    let (key, value) = (0u32, program.as_raw_fd());
    let mut attr = blank();
    // SAFETY: every variant of the zeroed union is plain integers.
    let update = unsafe { &mut attr.__bindgen_anon_2 };
    update.map_fd = array.as_raw_fd() as u32;
    update.key = &raw const key as u64;
    update.__bindgen_anon_1.value = &raw const value as u64;
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).context("putting a program into a program array")?;
    Ok(array)
}

/// The program with an id.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = blank();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr).with_context(|| format!("opening the program {id}"))
}

/// Runs a program `repeat` times over a frame, which keeps what each run makes of it, also when this returns.
pub fn test_run(program: BorrowedFd<'_>, frame: &mut [u8], repeat: u32) -> Result<Timed> {
    let before = frame.to_vec();
    let mut attr = blank();
    // SAFETY: every variant of the zeroed union is plain integers.
    let run = unsafe { &mut attr.test };
    run.prog_fd = program.as_raw_fd() as u32;
    run.data_in = before.as_ptr() as u64;
    run.data_size_in = before.len() as u32;
    run.data_out = frame.as_mut_ptr() as u64;
    run.data_size_out = frame.len() as u32;
    run.repeat = repeat;
    bpf(BPF_PROG_TEST_RUN, &mut attr).context("running a program")?;
    // SAFETY: the variant that the kernel filled in.
    let run = unsafe { attr.test };
    ensure!(
        run.data_size_out as usize == frame.len(),
        "the frame has {} bytes afterwards",
        run.data_size_out
    );
    Ok(Timed { action: run.retval, ns: run.duration })
}

pub(crate) fn blank() -> bpf_attr {
    // SAFETY: a union of structs of integers, for which all zeros are valid.
    unsafe { zeroed() }
}

fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the commands that are called this way return a descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

pub(crate) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is initialised to its whole size, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
