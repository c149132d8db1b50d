//! What the running kernel says of itself: its network namespace, and in its BTF its structs, so that the programs can ask a socket
//! for its `rcv_nxt` and for whose it is.
//!
//! A reader of just that: the aya family keeps its BTF types to itself, and other BTF crates carry licences that a static binary
//! can't take. Format: Documentation/bpf/btf.rst.

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::sys::socket::sockopt::GetStruct;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};

use crate::container;

/// `SO_NETNS_COOKIE` of `asm-generic/socket.h` (Linux 5.14).
const SO_NETNS_COOKIE: i32 = 71;

#[derive(Clone, Copy)]
struct NetnsCookie;
nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, SO_NETNS_COOKIE, u64, GetStruct<u64>);

/// Byte offsets of the fields that the programs read; 0 where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `tcp_sock.rcv_nxt`
    pub tcp_rcv_nxt: u32,
    /// `tcp_sock.bytes_received`
    pub tcp_received: u32,
    /// `tcp_request_sock.rcv_nxt`
    pub request_rcv_nxt: u32,
    /// `tcp_request_sock.snt_isn`
    pub request_snt_isn: u32,
    /// `sock_common.skc_family`
    pub sock_family: u32,
    /// `sock_common.skc_net`
    pub sock_net: u32,
    /// `sock_common.skc_v6_daddr`
    pub sock_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub sock_v6_rcv_saddr: u32,
    /// `inet_sock.inet_sport`
    pub inet_sport: u32,
    /// `net.net_cookie`
    pub net_cookie: u32,
}

impl Offsets {
    /// Those of the running kernel. Unknown ones stay 0: the program then goes by the handshakes that it sees.
    #[must_use]
    pub(crate) fn of_running_kernel() -> Offsets {
        Offsets::read(Path::new("/sys/kernel/btf/vmlinux")).unwrap_or_default()
    }

    fn read(path: &Path) -> Option<Offsets> {
        Offsets::parse(&std::fs::read(path).ok()?)
    }

    /// Those of a BTF blob; `None` when it is no BTF.
    #[must_use]
    pub fn parse(btf: &[u8]) -> Option<Offsets> {
        let mut offsets = Offsets::default();
        let header = Header::parse(btf)?;
        let mut types = Cursor { bytes: header.types, at: 0 };
        while let Some(name) = types.word() {
            let info = types.word()?;
            types.word()?;
            let (kind, members, flag) = (info >> 24 & 0x1f, info & 0xffff, info >> 31 != 0);
            if kind != KIND_STRUCT {
                types.at += extra_bytes(kind, members)?;
                continue;
            }
            let of = header.name(name)?;
            for _ in 0..members {
                let (member, _, offset) = (types.word()?, types.word()?, types.word()?);
                if let Some(field) = offsets.field(of, || header.name(member)) {
                    // With the flag the upper eight bits are a bit field's size.
                    *field = if flag { offset & 0x00ff_ffff } else { offset } / 8;
                }
            }
        }
        Some(offsets)
    }

    /// Where the offset of a struct's member goes, when it is one of those. The member's name is asked for when the struct is.
    fn field<'a>(&mut self, of: &[u8], member: impl Fn() -> Option<&'a [u8]>) -> Option<&mut u32> {
        if !matches!(of, b"tcp_sock" | b"tcp_request_sock" | b"sock_common" | b"inet_sock" | b"net") {
            return None;
        }
        match (of, member()?) {
            (b"tcp_sock", b"rcv_nxt") => Some(&mut self.tcp_rcv_nxt),
            (b"tcp_sock", b"bytes_received") => Some(&mut self.tcp_received),
            (b"tcp_request_sock", b"rcv_nxt") => Some(&mut self.request_rcv_nxt),
            (b"tcp_request_sock", b"snt_isn") => Some(&mut self.request_snt_isn),
            (b"sock_common", b"skc_family") => Some(&mut self.sock_family),
            (b"sock_common", b"skc_net") => Some(&mut self.sock_net),
            (b"sock_common", b"skc_v6_daddr") => Some(&mut self.sock_v6_daddr),
            (b"sock_common", b"skc_v6_rcv_saddr") => Some(&mut self.sock_v6_rcv_saddr),
            (b"inet_sock", b"inet_sport") => Some(&mut self.inet_sport),
            (b"net", b"net_cookie") => Some(&mut self.net_cookie),
            _ => None,
        }
    }

    /// Whether the programs can work that count open connections.
    #[must_use]
    pub(crate) fn tell_of_connections(&self) -> bool {
        let needed = [
            self.sock_family,
            self.sock_net,
            self.sock_v6_daddr,
            self.sock_v6_rcv_saddr,
            self.inet_sport,
            self.net_cookie,
        ];
        needed.iter().all(|offset| *offset != 0)
    }
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;

/// Bytes behind the common three words of a type that is no struct.
fn extra_bytes(kind: u32, members: u32) -> Option<usize> {
    let members = members as usize;
    Some(match kind {
        1 | 14 | 17 => 4,            // INT, VAR, DECL_TAG
        2 | 7..=12 | 16 | 18 => 0,   // PTR, FWD to FUNC, FLOAT, TYPE_TAG
        3 => 12,                     // ARRAY
        5 | 15 | 19 => members * 12, // UNION, DATASEC, ENUM64
        6 | 13 => members * 8,       // ENUM, FUNC_PROTO
        _ => return None,
    })
}

struct Header<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(btf: &'a [u8]) -> Option<Header<'a>> {
        let mut head = Cursor { bytes: btf, at: 0 };
        if head.word()? & 0xffff != u32::from(MAGIC) {
            return None;
        }
        let header_len = head.word()? as usize;
        let mut section = || {
            let (at, len) = (header_len + head.word()? as usize, head.word()? as usize);
            btf.get(at..at.checked_add(len)?)
        };
        let types = section()?;
        let strings = section()?;
        Some(Header { types, strings })
    }

    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let name = self.strings.get(offset as usize..)?;
        name.split(|byte| *byte == 0).next()
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn word(&mut self) -> Option<u32> {
        let bytes = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        bytes.try_into().ok().map(u32::from_ne_bytes)
    }
}

/// Cookie of the network namespace that is guarded.
///
/// # Errors
/// When the kernel does not tell it.
pub fn netns() -> Result<u64> {
    let open = || socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = container::inside(open)?;
    getsockopt(&socket, NetnsCookie).context("asking for the network namespace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_btf() {
        assert_eq!(Offsets::parse(b""), None);
        assert_eq!(Offsets::parse(b"not BTF at all, but long enough for a header"), None);
        let mut torn = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
        torn.extend_from_slice(&[0xff; 16]);
        assert_eq!(Offsets::parse(&torn), None);
    }

    #[test]
    fn the_running_kernel_has_them() {
        let offsets = Offsets::of_running_kernel();
        assert!(offsets.tell_of_connections(), "{offsets:?}");
        assert!(
            offsets.tcp_rcv_nxt > 0 && offsets.tcp_received > 0 && offsets.request_rcv_nxt > 0,
            "{offsets:?}"
        );
    }
}
