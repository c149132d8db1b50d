//! What the kernel's own socket says about a segment, through the loaded program in a namespace with a real connection.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::libc;
use sipguard_common::Reason;
use sipguard_common::abi::MODE_MONITOR;
use sipguard_tests::application::wait_for;
use sipguard_tests::netns::Netns;
use sipguard_tests::packet::{ACK, Peer, RST};
use sipguard_tests::program::{Program, XDP_PASS};

use sipguard_tests::message::OPTIONS as GOOD;

/// A connection over loopback to port 5060, and the program beside it, which sees only the frames that the test makes.
struct Line {
    device: TcpStream,
    pbx: TcpStream,
    peer: Peer,
    program: Program,
}

impl Line {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:5060")?;
        let device = TcpStream::connect("127.0.0.1:5060")?;
        let (pbx, remote) = listener.accept()?;
        let peer = Peer::new(&remote.to_string(), "127.0.0.1:5060");
        Ok(Self { device, pbx, peer, program: Program::new()? })
    }

    /// The next sequence number that the PBX's socket takes, asked for as checkpoint tools do (TCP_REPAIR).
    fn rcv_nxt(&self) -> Result<u32> {
        let fd = self.pbx.as_raw_fd();
        const RECEIVE_QUEUE: i32 = 1;
        set(fd, libc::TCP_REPAIR, 1)?;
        set(fd, libc::TCP_REPAIR_QUEUE, RECEIVE_QUEUE)?;
        let (mut seq, mut len) = (0u32, size_of::<u32>() as libc::socklen_t);
        // SAFETY: the kernel writes four bytes to `seq` and their number to `len`; both outlive the call.
        let failed = unsafe {
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, (&raw mut seq).cast(), &raw mut len)
        };
        // Minus one leaves repair mode without a window probe.
        set(fd, libc::TCP_REPAIR, -1)?;
        if failed != 0 { Err(std::io::Error::last_os_error()).context("TCP_QUEUE_SEQ") } else { Ok(seq) }
    }

    fn reason(&mut self, seq: u32, payload: &[u8]) -> Result<Reason> {
        Ok(self.program.run(&self.peer.tcp(ACK, seq, payload))?.reason)
    }

    /// Lets real bytes come in, past the program, and waits for them.
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let want = self.rcv_nxt()?.wrapping_add(bytes.len() as u32);
        self.device.write_all(bytes)?;
        wait_for("the bytes come in", || self.rcv_nxt(), |next| *next == want).map(drop)
    }
}

fn set(fd: i32, option: i32, value: i32) -> Result<()> {
    // SAFETY: the kernel reads four bytes of `value`, which outlives the call.
    let failed = unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if failed != 0 { Err(std::io::Error::last_os_error()).context("TCP_REPAIR") } else { Ok(()) }
}

fn inside(test: impl FnOnce(Line) -> Result<()> + Send) -> Result<()> {
    Netns::new("sockets")?.enter(|| test(Line::new()?))?
}

#[test]
fn a_fresh_connection_is_judged_from_its_first_byte() -> Result<()> {
    inside(|mut line| {
        let first = line.rcv_nxt()?;
        assert_eq!(
            line.reason(first.wrapping_add(5), GOOD)?,
            Reason::SequenceGap,
            "the kernel waits for earlier bytes"
        );
        assert_eq!(
            line.reason(first.wrapping_sub(3), b"abc")?,
            Reason::Retransmission,
            "the kernel has them"
        );
        assert_eq!(line.reason(first, b"no sense\r\n")?, Reason::BadStartLine);
        assert_eq!(
            line.reason(first, GOOD)?,
            Reason::BadStartLine,
            "the connection still stands: the reset was lost, there is another"
        );
        Ok(())
    })
}

#[test]
fn segments_without_a_connection_open_no_flow() -> Result<()> {
    inside(|mut line| {
        line.peer.remote.set_port(1);
        assert_eq!(line.reason(1, GOOD)?, Reason::NoConnection);
        assert!(line.program.flow(&line.peer)?.is_none());
        Ok(())
    })
}

#[test]
fn a_live_connection_is_adopted_at_a_message_and_not_in_the_middle_of_one() -> Result<()> {
    inside(|mut line| {
        line.send(b"the guard did not see this")?;
        let next = line.rcv_nxt()?;
        let run = line.program.run(&line.peer.tcp(ACK, next, b"Via: SIP/2.0/TCP h\r\n"))?;
        assert_eq!((run.reason, run.action), (Reason::UnknownStream, XDP_PASS), "reset");
        assert_eq!(run.frame[line.peer.tcp_at() + 13], RST | ACK);
        assert_eq!(line.reason(next, GOOD)?, Reason::Valid);
        Ok(())
    })
}

#[test]
fn line_ends_alone_are_neither_a_fault_nor_a_way_round() -> Result<()> {
    inside(|mut line| {
        line.send(b"the guard did not see this")?;
        let next = line.rcv_nxt()?;
        assert_eq!(line.reason(next, b"\r\n\r\n")?, Reason::MidStream, "a keep-alive after the grace");
        assert_eq!(
            line.reason(next.wrapping_add(4), b"\r\n\x01\x02")?,
            Reason::UnknownStream,
            "no way in for other bytes"
        );
        assert_eq!(line.reason(next.wrapping_add(4), &[b"\r\n\r\n", GOOD].concat())?, Reason::Valid);
        assert_eq!(line.reason(next.wrapping_add(8 + GOOD.len() as u32), b"\x01\x02")?, Reason::BadStartLine);
        Ok(())
    })
}

#[test]
fn monitor_passes_the_middle_of_a_message_and_follows_from_there() -> Result<()> {
    inside(|mut line| {
        line.program.change(|settings| settings.mode = MODE_MONITOR)?;
        line.send(b"the guard did not see this")?;
        let next = line.rcv_nxt()?;
        let run = line.program.run(&line.peer.tcp(ACK, next, b"Via: h\r\n\r\n"))?;
        assert_eq!((run.reason, run.let_pass, run.action), (Reason::UnknownStream, true, XDP_PASS));
        assert_eq!(line.reason(next.wrapping_add(10), b"more")?, Reason::MidStream);
        assert_eq!(line.reason(next.wrapping_add(14), GOOD)?, Reason::Valid);
        Ok(())
    })
}

#[test]
fn within_the_grace_the_middle_of_a_message_passes() -> Result<()> {
    inside(|mut line| {
        line.program.change(|settings| settings.grace_until_ns = u64::MAX)?;
        line.send(b"the guard did not see this")?;
        let next = line.rcv_nxt()?;
        assert_eq!(line.reason(next, b"Via: h\r\n\r\n")?, Reason::MidStream);
        assert_eq!(line.reason(next.wrapping_add(10), b"\x01\x02")?, Reason::MidStream);
        assert_eq!(line.reason(next.wrapping_add(12), GOOD)?, Reason::Valid);
        assert_eq!(
            line.reason(next.wrapping_add(12 + GOOD.len() as u32), b"\x01\x02")?,
            Reason::BadStartLine
        );
        Ok(())
    })
}

#[test]
fn a_resegmented_retransmission_passes_once_the_kernel_has_the_bytes() -> Result<()> {
    inside(|mut line| {
        let first = line.rcv_nxt()?;
        for (at, byte) in GOOD.iter().enumerate() {
            assert_eq!(line.reason(first.wrapping_add(at as u32), &[*byte])?, Reason::Valid);
        }
        // More segments than the guard remembers, and the kernel does not have them yet: they can't be compared.
        assert_eq!(line.reason(first, GOOD)?, Reason::Conflict);
        line.send(GOOD)?;
        assert_eq!(line.reason(first, GOOD)?, Reason::Retransmission);
        let overlap = [&GOOD[5..], b"\x01\x02"].concat();
        assert_eq!(
            line.reason(first.wrapping_add(5), &overlap)?,
            Reason::BadStartLine,
            "only what is new is judged"
        );
        Ok(())
    })
}
