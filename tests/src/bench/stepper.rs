//! The benchmark's own XDP programs, written instruction by instruction.
//!
//! The kernel runs a repeated test run over one frame without resetting it. A TCP segment would be a retransmission from the
//! second run on, so a stepper goes before the program under test: it moves the frame on, and calls the program.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::Result;

use super::kernel;

/// How a frame moves on from one run to the next: a 32-bit word of it grows, and its checksum stays right.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Offset of the word, even as counted from the checksummed header.
    pub word_at: i16,
    /// Offset of the checksum.
    pub check_at: i16,
    /// What is added each time.
    pub by: i32,
}

/// Does nothing but drop.
pub fn drop_all() -> Result<OwnedFd> {
    kernel::load(&[set(R0, XDP_DROP), EXIT])
}

/// Moves the frame on and goes on as another program.
#[derive(Debug)]
pub struct Stepper {
    program: OwnedFd,
    // The kernel empties a program array when its last descriptor is closed.
    _array: OwnedFd,
}

impl Stepper {
    /// The stepper before `next`.
    pub fn new(step: Step, next: BorrowedFd<'_>) -> Result<Self> {
        let array = kernel::tail_call_to(next)?;
        let program = kernel::load(&instructions(step, &array))?;
        Ok(Self { program, _array: array })
    }

    /// What is to be run.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

fn instructions(step: Step, array: &OwnedFd) -> [u64; 36] {
    let [array_low, array_high] = map(R2, array.as_raw_fd());
    let end_of_word = i32::from(step.word_at.max(step.check_at)) + 4;
    // The sum is the ones' complement one of RFC 1624 (equation 3), in the order of bytes of the machine (RFC 1071).
    [
        load(WORD, R2, R1, CTX_DATA),
        load(WORD, R3, R1, CTX_DATA_END),
        copy(R4, R2),
        add_number(R4, end_of_word),
        skip_if_greater(R4, R3, 29),
        load(WORD, R4, R2, step.word_at),
        copy(R5, R4),
        big_endian(R5),
        add_number(R5, step.by),
        big_endian(R5),
        store(WORD, R2, step.word_at, R5),
        load(HALF, R0, R2, step.check_at),
        xor_number(R0, 0xffff),
        xor_number_32(R4, -1),
        add(R0, R4),
        add(R0, R5),
        copy(R4, R0),
        shift_right(R0, 16),
        and_number(R4, 0xffff),
        add(R0, R4),
        copy(R4, R0),
        shift_right(R0, 16),
        and_number(R4, 0xffff),
        add(R0, R4),
        copy(R4, R0),
        shift_right(R0, 16),
        and_number(R4, 0xffff),
        add(R0, R4),
        xor_number(R0, 0xffff),
        store(HALF, R2, step.check_at, R0),
        array_low,
        array_high,
        set(R3, 0),
        call(TAIL_CALL),
        set(R0, XDP_ABORTED),
        EXIT,
    ]
}

const XDP_ABORTED: i32 = 0;
const XDP_DROP: i32 = 1;
/// `bpf_tail_call(ctx, array, index)`.
const TAIL_CALL: i32 = 12;
/// Offsets in `xdp_md`.
const CTX_DATA: i16 = 0;
const CTX_DATA_END: i16 = 4;

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;

/// Sizes of a load or store.
const WORD: u8 = 0x00;
const HALF: u8 = 0x08;

const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// RFC 9669 section 3, for a little-endian machine.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset.cast_unsigned() as u64) << 16
        | (number.cast_unsigned() as u64) << 32
}

const fn load(size: u8, to: u8, base: u8, offset: i16) -> u64 {
    instruction(0x61 | size, to, base, offset, 0)
}

const fn store(size: u8, base: u8, offset: i16, from: u8) -> u64 {
    instruction(0x63 | size, base, from, offset, 0)
}

const fn set(to: u8, number: i32) -> u64 {
    instruction(0xb7, to, 0, 0, number)
}

const fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

const fn add(to: u8, from: u8) -> u64 {
    instruction(0x0f, to, from, 0, 0)
}

const fn add_number(to: u8, number: i32) -> u64 {
    instruction(0x07, to, 0, 0, number)
}

const fn and_number(to: u8, number: i32) -> u64 {
    instruction(0x57, to, 0, 0, number)
}

const fn xor_number(to: u8, number: i32) -> u64 {
    instruction(0xa7, to, 0, 0, number)
}

/// On the lower half; the upper becomes zero.
const fn xor_number_32(to: u8, number: i32) -> u64 {
    instruction(0xa4, to, 0, 0, number)
}

const fn shift_right(to: u8, bits: i32) -> u64 {
    instruction(0x77, to, 0, 0, bits)
}

/// The lower half between big-endian and this machine's order; the upper becomes zero.
const fn big_endian(to: u8) -> u64 {
    instruction(0xdc, to, 0, 0, 32)
}

const fn skip_if_greater(left: u8, right: u8, skipped: i16) -> u64 {
    instruction(0x2d, left, right, skipped, 0)
}

const fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

/// A map by its descriptor, an instruction twice as long as others.
const fn map(to: u8, fd: i32) -> [u64; 2] {
    const PSEUDO_MAP_FD: u8 = 1;
    [instruction(0x18, to, PSEUDO_MAP_FD, 0, fd), 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ACK, PSH, Peer, SYN, TCP4};

    const SEQUENCE: i16 = TCP4 as i16 + 4;
    const CHECKSUM: i16 = TCP4 as i16 + 16;

    #[test]
    fn a_stepped_segment_is_the_next_one_of_its_connection() -> Result<()> {
        let peer = Peer::new("10.0.0.2:40000", "10.0.0.1:5060");
        let drop_all = drop_all()?;
        for (payload, first) in [(&b"x"[..], 7), (b"odd", u32::MAX), (b"ends at the wrap", 0xffff_fff0)] {
            let by = payload.len() as u32;
            let step = Step { word_at: SEQUENCE, check_at: CHECKSUM, by: by as i32 };
            let stepper = Stepper::new(step, drop_all.as_fd())?;
            let mut frame = peer.tcp(ACK | PSH, first, payload);
            for runs in [1, 2, 1000] {
                let seq = u32::from_be_bytes(frame[38..42].try_into()?);
                let timed = kernel::test_run(stepper.program(), &mut frame, runs)?;
                assert_eq!(timed.action, XDP_DROP.cast_unsigned());
                assert_eq!(frame, peer.tcp(ACK | PSH, seq.wrapping_add(by * runs), payload));
            }
        }
        Ok(())
    }

    #[test]
    fn a_stepped_port_is_that_of_another_peer() -> Result<()> {
        let (before, after) =
            (Peer::new("10.0.0.2:65534", "10.0.0.1:5060"), Peer::new("10.0.0.2:2", "10.0.0.1:5060"));
        let drop_all = drop_all()?;
        let step = Step { word_at: TCP4 as i16, check_at: CHECKSUM, by: 1 << 16 };
        let mut frame = before.tcp(SYN, 9, b"");
        kernel::test_run(Stepper::new(step, drop_all.as_fd())?.program(), &mut frame, 4)?;
        assert_eq!(frame, after.tcp(SYN, 9, b""));
        Ok(())
    }
}
