//! The header of the PROXY protocol, versions 1 and 2 (HAProxy, proxy-protocol.txt, section 2). A balancer sends it before the first byte of a
//! connection, to say whose connection it is.
//!
//! A state machine over bytes: any segmentation gives the same result. Its state is kept in fields of [`Stream`] that the framer uses behind it.

use bytemuck::{Pod, Zeroable};

use super::step::Cursor;
use super::window::Window;
use super::{FLAG_TLS, PHASE_IDLE, PHASE_PROXY, Stream};

/// Longest header of version 1, the line end included.
const TEXT: u16 = 107;
/// `PROXY` and a space, the first byte lowest.
const PROXY: u64 = u64::from_le_bytes(*b"PROXY \0\0");
/// The twelve bytes that version 2 begins with, the first byte lowest.
const SIGNATURE: [u64; 2] = [u64::from_le_bytes(*b"\r\n\r\n\0\r\nQ"), u64::from_le_bytes(*b"UIT\n\0\0\0\0")];
/// Bytes of version 2 before the addresses.
const FIXED: u16 = 16;
/// Most bytes of version 2 behind those: addresses and TLVs. Other receivers take as many.
const MOST: u64 = 4096 - FIXED as u64;
/// Address families and transports of version 2: TCP over IPv4 and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// Bytes of version 2 up to the source port's end: two addresses and the port.
const TCP4_BYTES: u16 = 10;
const TCP6_BYTES: u16 = 34;

/// Fields of version 1, then version 2 as a whole: values of [`Header::field`].
const START: u8 = 0;
const PROTOCOL: u8 = 1;
const SOURCE: u8 = 2;
const DESTINATION: u8 = 3;
const SOURCE_PORT: u8 = 4;
const DESTINATION_PORT: u8 = 5;
const IGNORED: u8 = 6;
const LINE_FEED: u8 = 7;
const BINARY: u8 = 8;

/// State of the parser: [`Stream::head`]. [`Stream::lines`] counts the bytes so far, [`Stream::body_left`] those to be skipped.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    /// Address of the client as a number of 128 bits, IPv4 mapped.
    client: [u64; 2],
    /// The address that is read: what is before `::`, and what is behind.
    left: [u64; 2],
    right: [u64; 2],
    /// The word or number that is read. In an address the group's hexadecimal value, and above it the last octet.
    word: u64,
    /// The client's port.
    port: u16,
    /// Where in the header the next byte is.
    field: u8,
    /// Groups of the address so far, those behind `::` included; in version 2 family and transport.
    groups: u8,
    /// 1 once there was `::`.
    gap: u8,
    /// Digits of the group or port so far.
    digits: u8,
    /// Dots of the address so far; in version 2 the command.
    dots: u8,
    /// Colons right before the next byte.
    colons: u8,
}

/// What became of some bytes of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ProxyOutcome {
    /// The header goes on.
    More,
    /// It has ended: [`Stream::proxy_client`], then [`Stream::end_proxy`].
    Ended,
    /// It is no header.
    Malformed,
}

impl Stream {
    /// Turns a stream before its first byte into one that begins with a PROXY header; `tls` when TLS follows.
    #[inline(always)]
    pub fn begin_proxy(&mut self, tls: bool) {
        self.phase = PHASE_PROXY;
        self.flags = if tls { FLAG_TLS } else { 0 };
    }

    /// Whether the next byte is of a PROXY header. `false` once it has ended.
    #[must_use]
    #[inline(always)]
    pub fn is_proxy(&self) -> bool {
        self.phase == PHASE_PROXY
    }

    /// Address and port of the client, once the header has ended: the address as words in network order, IPv4 mapped. `None` where it names none:
    /// `UNKNOWN`, `LOCAL`, or another family.
    #[must_use]
    #[inline(always)]
    pub fn proxy_client(&self) -> Option<([u32; 4], u16)> {
        let header: &Header = bytemuck::cast_ref(&self.head);
        let [high, low] = header.client;
        let words = [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32].map(u32::to_be);
        if self.last == 0 { None } else { Some((words, header.port)) }
    }

    /// Turns a stream whose PROXY header has ended into one before its first byte.
    #[inline(always)]
    pub fn end_proxy(&mut self) {
        let tls = self.flags & FLAG_TLS != 0;
        self.begin();
        if tls {
            self.begin_tls(true);
        }
    }
}

/// Processes the next byte of a PROXY header, or all that is to be skipped. The cursor is before its end. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub fn proxy<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W) -> ProxyOutcome {
    let outcome = if stream.body_left == 0 {
        let byte = window.byte(cursor.pos);
        cursor.pos += 1;
        take(stream, byte).unwrap_or(ProxyOutcome::Malformed)
    } else {
        let here = cursor.end - cursor.pos;
        let taken = if stream.body_left < here { stream.body_left } else { here };
        stream.body_left -= taken;
        cursor.pos += taken;
        if stream.body_left == 0 { ProxyOutcome::Ended } else { ProxyOutcome::More }
    };
    if outcome == ProxyOutcome::Ended {
        stream.phase = PHASE_IDLE;
    }
    outcome
}

/// `None` when the byte is wrong.
#[inline(always)]
fn take(stream: &mut Stream, byte: u8) -> Option<ProxyOutcome> {
    let at = stream.lines;
    stream.lines = at + 1;
    let header: &mut Header = bytemuck::cast_mut(&mut stream.head);
    if at == 0 {
        stream.last = 0;
        *header = Header::NEW;
        header.field = if byte == b'P' { START } else { BINARY };
    }
    if header.field == BINARY {
        return binary(stream, at, byte);
    }
    let last = byte == b'\r';
    let ends = byte == b' ' || last;
    match header.field {
        _ if at >= TEXT => return None,
        START => {
            if (PROXY >> (8 * (at & 7))) as u8 != byte {
                return None;
            }
            if at == 5 {
                header.field = PROTOCOL;
            }
        }
        PROTOCOL if !ends => {
            header.word =
                if header.word >> 48 == 0 { header.word << 8 | u64::from(byte) } else { return None };
        }
        PROTOCOL => {
            const TCP4: u64 = u32::from_be_bytes(*b"TCP4") as u64;
            const TCP6: u64 = u32::from_be_bytes(*b"TCP6") as u64;
            const UNKNOWN: u64 = u64::from_be_bytes(*b"\0UNKNOWN");
            header.field = match header.word {
                TCP4 | TCP6 if !last => SOURCE,
                UNKNOWN if last => LINE_FEED,
                UNKNOWN => IGNORED,
                _ => return None,
            };
            header.port = u16::from(header.word == TCP4);
            header.begin_address();
        }
        SOURCE | DESTINATION if ends => {
            header.end_address()?;
            if last {
                return None;
            }
            if header.field == SOURCE {
                header.client = [header.left[0] | header.right[0], header.left[1] | header.right[1]];
            }
            header.begin_address();
            header.field += 1;
        }
        SOURCE | DESTINATION => header.address(byte)?,
        SOURCE_PORT | DESTINATION_PORT if ends => {
            if header.digits == 0 || last != (header.field == DESTINATION_PORT) {
                return None;
            }
            if !last {
                header.port = header.word as u16;
            }
            (header.word, header.digits) = (0, 0);
            header.field = if last { LINE_FEED } else { DESTINATION_PORT };
            stream.last = u8::from(last);
        }
        SOURCE_PORT | DESTINATION_PORT => {
            let digit = u64::from(byte.wrapping_sub(b'0'));
            let zeros = header.digits != 0 && header.word == 0;
            header.word = header.word * 10 + digit;
            header.digits += 1;
            if digit > 9 || zeros || header.word > u64::from(u16::MAX) {
                return None;
            }
        }
        IGNORED => {
            if last {
                header.field = LINE_FEED;
            }
        }
        _ => return if byte == b'\n' { Some(ProxyOutcome::Ended) } else { None },
    }
    Some(ProxyOutcome::More)
}

/// A byte of version 2.
#[inline(always)]
fn binary(stream: &mut Stream, at: u16, byte: u8) -> Option<ProxyOutcome> {
    let header: &mut Header = bytemuck::cast_mut(&mut stream.head);
    match at {
        0..=7 if (SIGNATURE[0] >> (8 * (at & 7))) as u8 != byte => return None,
        8..=11 if (SIGNATURE[1] >> (8 * (at & 3))) as u8 != byte => return None,
        0..=11 => {}
        // Version 2, and LOCAL or PROXY.
        12 if byte >> 1 != 0x20 >> 1 => return None,
        12 => header.dots = byte & 1,
        // No more families and transports are defined, and a receiver refuses others.
        13 if byte >> 4 > 3 || byte & 15 > 2 => return None,
        13 => header.groups = if header.dots == 0 { 0 } else { byte },
        14 => header.word = u64::from(byte),
        15 => return begin_addresses(stream, byte),
        _ => {
            let place = at - FIXED;
            if header.groups == TCP4 && place < 4 || header.groups == TCP6 && place < 16 {
                header.client[0] = header.client[0] << 8 | header.client[1] >> 56;
                header.client[1] = header.client[1] << 8 | u64::from(byte);
            }
            header.port = header.port << 8 | u16::from(byte);
            if place + 1 == of_addresses(header.groups) {
                stream.last = 1;
                // At least the destination port is left.
                stream.body_left = header.word as u32;
            }
        }
    }
    Some(ProxyOutcome::More)
}

/// The last byte of the length.
#[inline(always)]
fn begin_addresses(stream: &mut Stream, byte: u8) -> Option<ProxyOutcome> {
    let header: &mut Header = bytemuck::cast_mut(&mut stream.head);
    let len = header.word << 8 | u64::from(byte);
    let addresses = of_addresses(header.groups);
    if len > MOST || addresses != 0 && len < u64::from(addresses) + 2 {
        return None;
    }
    if addresses == 0 {
        stream.body_left = len as u32;
        return Some(if len == 0 { ProxyOutcome::Ended } else { ProxyOutcome::More });
    }
    header.word = len - u64::from(addresses);
    // The prefix of an IPv4-mapped address.
    header.client[1] = if header.groups == TCP4 { 0xffff } else { 0 };
    Some(ProxyOutcome::More)
}

/// Bytes up to the source port's end; 0 where no client is named.
#[inline(always)]
const fn of_addresses(family: u8) -> u16 {
    match family {
        TCP4 => TCP4_BYTES,
        TCP6 => TCP6_BYTES,
        _ => 0,
    }
}

impl Header {
    const NEW: Header = Header {
        client: [0; 2],
        left: [0; 2],
        right: [0; 2],
        word: 0,
        port: 0,
        field: START,
        groups: 0,
        gap: 0,
        digits: 0,
        dots: 0,
        colons: 0,
    };

    /// An address begins; while it is read `port` is 1 for IPv4.
    #[inline(always)]
    fn begin_address(&mut self) {
        let v4 = self.port != 0;
        self.left = [0, if v4 { 0xffff << 32 } else { 0 }];
        self.right = [0; 2];
        self.groups = if v4 { 6 } else { 0 };
        (self.gap, self.dots, self.colons) = (0, 0, 0);
        (self.word, self.digits) = (0, 0);
    }

    /// A byte of an address as text (RFC 4291 section 2.2, IPv4 in dotted decimal).
    #[inline(always)]
    fn address(&mut self, byte: u8) -> Option<()> {
        match byte {
            b'.' => {
                self.octet()?;
                self.dots += 1;
            }
            b':' if self.port != 0 || self.dots != 0 => return None,
            b':' if self.digits != 0 => {
                self.push(self.word as u16)?;
                self.colons = 1;
            }
            b':' if self.colons == 0 => self.colons = 1,
            b':' if self.colons == 1 && self.gap == 0 => (self.gap, self.colons) = (1, 2),
            _ => {
                let letter = byte | 0x20;
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ if (b'a'..=b'f').contains(&letter) => letter - b'a' + 10,
                    _ => return None,
                };
                if self.digits == 4 || self.colons == 1 && self.groups == 0 && self.gap == 0 {
                    return None;
                }
                self.word = self.word & !0xffff | (self.word << 4 & 0xffff) | u64::from(digit);
                self.digits += 1;
                self.colons = 0;
            }
        }
        Some(())
    }

    /// The address has ended.
    #[inline(always)]
    fn end_address(&mut self) -> Option<()> {
        if self.dots != 0 {
            if self.dots != 3 {
                return None;
            }
            self.octet()?;
        } else if self.port != 0 {
            return None;
        } else if self.digits != 0 {
            self.push(self.word as u16)?;
        } else if self.colons != 2 {
            return None;
        }
        if (self.gap == 0) == (self.groups == 8) { Some(()) } else { None }
    }

    /// An octet in decimal, whose digits were read as hexadecimal ones. Every second one completes a group.
    // own frame: 0 bytes
    #[cfg_attr(target_arch = "bpf", inline(never))]
    fn octet(&mut self) -> Option<()> {
        let [high, middle, low] = [self.word >> 8 & 15, self.word >> 4 & 15, self.word & 15];
        let octet = high * 100 + middle * 10 + low;
        let zeros = self.digits == 2 && middle == 0 || self.digits == 3 && high == 0;
        if self.digits == 0
            || self.digits > 3
            || middle > 9
            || low > 9
            || octet > 255
            || zeros
            || self.dots > 3
        {
            return None;
        }
        if self.dots & 1 == 0 {
            self.word = octet << 16;
            self.digits = 0;
            return Some(());
        }
        self.push((self.word >> 16 << 8 | octet) as u16)
    }

    /// A group of 16 bits.
    // own frame: 0 bytes
    #[cfg_attr(target_arch = "bpf", inline(never))]
    fn push(&mut self, group: u16) -> Option<()> {
        if self.groups > 7 {
            return None;
        }
        let group = u64::from(group);
        if self.gap != 0 {
            self.right = [self.right[0] << 16 | self.right[1] >> 48, self.right[1] << 16 | group];
        } else {
            let half = if self.groups < 4 { &mut self.left[0] } else { &mut self.left[1] };
            *half |= group << (16 * (3 - (self.groups & 3)));
        }
        self.groups += 1;
        (self.word, self.digits) = (0, 0);
        Some(())
    }
}
