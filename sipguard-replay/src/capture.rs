//! Captures, read packet by packet: pcap of either byte order, with micro- or nanoseconds, and pcapng (draft-ietf-opsawg-pcapng).
//!
//! Memory is constant: what a file says of its lengths is believed up to [`MOST_BYTES`].

use std::fs::File;
use std::io::{Cursor, Read};
use std::ops::ControlFlow;
use std::path::Path;

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, EnhancedPacketBlock, PcapBlockOwned, PcapError, create_reader};

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;
/// Longest block that is read.
const MOST_BYTES: usize = 16 << 20;
/// Bytes at the beginning of standard input that are read twice: first for who the PBX is.
const HEAD_BYTES: u64 = 32 << 20;
/// Longest packet of a capture (`MAXIMUM_SNAPLEN` of libpcap).
const MOST_PACKET: u32 = 1 << 18;
/// Option of a packet in pcapng that says, in its lowest two bits, whether it came in (1) or went out (2).
const OPTION_FLAGS: u16 = 2;

/// A packet as it was captured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CapturePacket<'a> {
    /// Its number, from 1, as Wireshark counts.
    pub number: u64,
    /// Link type (`LINKTYPE_...` of tcpdump.org).
    pub link: u32,
    /// What was captured of it.
    pub data: &'a [u8],
    /// How long it was on the wire, in bytes.
    pub original_len: u32,
    /// When, in nanoseconds since 1970; `None` where the file does not say.
    pub time_ns: Option<u64>,
    /// Whether the machine sent it, where the file says so.
    pub outgoing: Option<bool>,
}

/// Where reading ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PacketPosition {
    /// Packets before it.
    packets: u64,
    /// Bytes before it.
    bytes: u64,
}

/// An interface that a pcapng file describes.
#[derive(Clone, Copy, Debug)]
struct CaptureInterface {
    link: u32,
    /// Most bytes of a packet; 0 is no limit.
    snaplen: u32,
    /// Ticks of its clock in a second.
    ticks: u64,
}

/// What is known while a file is read.
#[derive(Default)]
struct CaptureReading {
    position: PacketPosition,
    link: u32,
    nanoseconds: bool,
    big_endian: bool,
    interfaces: Vec<CaptureInterface>,
}

/// Where a capture comes from.
pub(crate) enum Input<'p> {
    /// A file, which can be read as often as one likes.
    File(&'p Path),
    /// What can be read once only, with its beginning, [`HEAD_BYTES`] at the most.
    Stream {
        /// What it is called.
        shown: String,
        /// The beginning.
        head: Vec<u8>,
        /// The rest; `None` is standard input.
        rest: Option<File>,
    },
}

/// The name of standard input on the command line.
pub(crate) const STANDARD_INPUT: &str = "-";

impl Input<'_> {
    /// A file; or standard input or a pipe, such as that of `<(...)` of a shell, whose beginning is read.
    #[must_use]
    pub(crate) fn open(path: &Path) -> Input<'_> {
        let mut head = Vec::new();
        if path.as_os_str() == STANDARD_INPUT {
            // What could not be read now, can't later: then it is told.
            let _told_later = std::io::stdin().lock().take(HEAD_BYTES).read_to_end(&mut head);
            return Input::Stream { shown: "standard input".to_owned(), head, rest: None };
        }
        if path.is_file() || path.is_dir() {
            return Input::File(path);
        }
        // What can't be opened is told when it is read.
        let Ok(file) = File::open(path) else { return Input::File(path) };
        let _told_later = (&file).take(HEAD_BYTES).read_to_end(&mut head);
        Input::Stream { shown: path.display().to_string(), head, rest: Some(file) }
    }

    /// Gives the packets to `take`, until it breaks: of a file all, of what can be read once those of its beginning.
    pub(crate) fn glance(&self, take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>) {
        // What is wrong with it the second reading tells.
        let _told_later = match self {
            Input::File(path) => read_file(path, &|_| {}, take),
            Input::Stream { shown, head, .. } => {
                read_stream(Cursor::new(head), shown, is_gzip_magic(head), &|_| {}, take)
            }
        };
    }

    /// Gives every packet to `take`, until it breaks. `step` hears how many bytes were read so far.
    ///
    /// # Errors
    /// What is wrong with it, and where; the packets before were given.
    pub(crate) fn read(
        &self,
        step: &dyn Fn(u64),
        take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        match self {
            Input::File(path) => read_file(path, step, take),
            Input::Stream { shown, head, rest } => {
                let (begin, is_packed) = (Cursor::new(head), is_gzip_magic(head));
                match rest {
                    None => read_stream(begin.chain(std::io::stdin()), shown, is_packed, step, take),
                    Some(file) => read_stream(begin.chain(file), shown, is_packed, step, take),
                }
            }
        }
    }
}

fn read_file(
    path: &Path,
    step: &dyn Fn(u64),
    take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>,
) -> Result<(), String> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| format!("{shown} can't be opened: {error}"))?;
    if file.metadata().is_ok_and(|about| about.is_dir()) {
        return Err(format!("{shown} is a directory, no capture"));
    }
    let packed = is_gzip(path).then(|| {
        format!("{shown} is compressed with gzip: `zcat {shown} | sipguard replay -`, or unpack it first (`gunzip --keep {shown}`)")
    });
    read(file, &shown.to_string(), packed, step, take)
}

fn read_stream(
    from: impl Read + Send,
    shown: &str,
    is_packed: bool,
    step: &dyn Fn(u64),
    take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>,
) -> Result<(), String> {
    let packed = format!("{shown} is compressed with gzip: put `gunzip |` before `sipguard replay -`");
    read(from, shown, is_packed.then_some(packed), step, take)
}

/// Gives every packet to `take`. `packed` is what to say where it is compressed.
fn read(
    from: impl Read + Send,
    shown: &str,
    packed: Option<String>,
    step: &dyn Fn(u64),
    take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>,
) -> Result<(), String> {
    let no_capture = |error| match (packed, error) {
        (Some(packed), _) => packed,
        (_, PcapError::Eof) => format!("{shown} is empty: no capture"),
        (_, PcapError::ReadError) => format!("{shown} can't be read"),
        _ => format!("{shown} is no capture: neither pcap nor pcapng (`tcpdump -w FILE` writes one)"),
    };
    let mut reader = create_reader(READ_BYTES, from).map_err(no_capture)?;
    let mut reading = CaptureReading::default();
    let mut capacity = READ_BYTES;
    loop {
        let more = match reader.next() {
            Ok((len, block)) => {
                let told = reading.block(block, take);
                let told = told.map_err(|wrong| format!("{shown}: {}: {wrong}", reading.position.shown()))?;
                if told.is_break() {
                    return Ok(());
                }
                reader.consume(len);
                reading.position.bytes += len as u64;
                continue;
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => true,
            Err(PcapError::UnexpectedEof) => false,
            Err(_) => {
                return Err(format!(
                    "{shown}: {}: its lengths contradict each other",
                    reading.position.shown()
                ));
            }
        };
        step(reading.position.bytes);
        if !more {
            // The reader says the same of a file that ends where a packet does.
            return if reader.data().is_empty() {
                Ok(())
            } else {
                Err(format!("{shown}: {}: the file ends in the middle of it", reading.position.shown()))
            };
        }
        let had = reader.data().len();
        if reader.refill().is_err() {
            return Err(format!("{shown}: {}: it can't be read", reading.position.shown()));
        }
        if reader.data().len() == had && !reader.reader_exhausted() {
            capacity *= 2;
            if capacity > MOST_BYTES || !reader.grow(capacity) {
                let most = MOST_BYTES >> 20;
                return Err(format!(
                    "{shown}: {}: it says that it is longer than {most} MiB",
                    reading.position.shown()
                ));
            }
        }
    }
}

impl PacketPosition {
    /// For people: what could not be read.
    fn shown(&self) -> String {
        format!("packet {} (at byte {})", self.packets + 1, self.bytes)
    }
}

/// Whether a file begins as gzip does (RFC 1952 2.3.1). Of a pipe nothing is read.
fn is_gzip(path: &Path) -> bool {
    let mut magic = [0; 2];
    let mut read = || File::open(path)?.read_exact(&mut magic);
    path.is_file() && read().is_ok() && is_gzip_magic(&magic)
}

/// RFC 1952 2.3.1.
fn is_gzip_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

impl CaptureReading {
    fn block(
        &mut self,
        block: PcapBlockOwned<'_>,
        take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, String> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                // The upper bits say whether frames end with a checksum, which the lengths of IP leave out anyway.
                self.link = header.network.0.cast_unsigned() & 0xffff;
                self.nanoseconds = header.is_nanosecond_precision();
                Ok(ControlFlow::Continue(()))
            }
            PcapBlockOwned::Legacy(packet) => {
                fits(packet.caplen)?;
                let unit = if self.nanoseconds { 1 } else { 1000 };
                let time_ns = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * unit;
                let (link, original_len) = (self.link, packet.origlen);
                Ok(self.packet(take, packet.data, link, original_len, Some(time_ns), None))
            }
            PcapBlockOwned::NG(block) => self.block_ng(&block, take),
        }
    }

    fn block_ng(
        &mut self,
        block: &Block<'_>,
        take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, String> {
        match block {
            Block::SectionHeader(section) => {
                self.big_endian = section.big_endian();
                self.interfaces.clear();
            }
            Block::InterfaceDescription(about) => self.interfaces.push(CaptureInterface {
                link: about.linktype.0.cast_unsigned() & 0xffff,
                snaplen: about.snaplen,
                ticks: about.ts_resolution().filter(|ticks| *ticks != 0).unwrap_or(1_000_000),
            }),
            Block::EnhancedPacket(packet) => {
                fits(packet.caplen)?;
                let CaptureInterface { link, ticks, .. } = self.interface(packet.if_id)?;
                let ticked = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let time_ns = u128::from(ticked) * 1_000_000_000 / u128::from(ticks);
                let (time_ns, outgoing) = (u64::try_from(time_ns).ok(), self.outgoing(packet));
                return Ok(self.packet(take, packet.packet_data(), link, packet.origlen, time_ns, outgoing));
            }
            Block::SimplePacket(packet) => {
                let CaptureInterface { link, snaplen, .. } = self.interface(0)?;
                let most = if snaplen == 0 { u32::MAX } else { snaplen };
                let len = packet.origlen.min(most) as usize;
                let data = packet.data.get(..len).unwrap_or(packet.data);
                return Ok(self.packet(take, data, link, packet.origlen, None, None));
            }
            // Names, statistics, keys of TLS and what others have put there.
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn packet(
        &mut self,
        take: &mut dyn FnMut(CapturePacket<'_>) -> ControlFlow<()>,
        data: &[u8],
        link: u32,
        original_len: u32,
        time_ns: Option<u64>,
        outgoing: Option<bool>,
    ) -> ControlFlow<()> {
        self.position.packets += 1;
        take(CapturePacket { number: self.position.packets, link, data, original_len, time_ns, outgoing })
    }

    fn interface(&self, index: u32) -> Result<CaptureInterface, String> {
        let found = self.interfaces.get(index as usize).copied();
        found.ok_or_else(|| format!("it is of interface {index}, which the file does not describe"))
    }

    fn outgoing(&self, packet: &EnhancedPacketBlock<'_>) -> Option<bool> {
        let flags = packet.options.iter().find(|option| option.code.0 == OPTION_FLAGS)?;
        let bytes: [u8; 4] = flags.value.get(..4)?.try_into().ok()?;
        let flags = if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        match flags & 3 {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        }
    }
}

fn fits(len: u32) -> Result<(), String> {
    if len <= MOST_PACKET {
        return Ok(());
    }
    Err(format!("it says that {len} bytes of it were captured, and captures have {MOST_PACKET} at the most"))
}
