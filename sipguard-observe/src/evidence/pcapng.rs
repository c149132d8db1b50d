//! Packets as pcapng, which Wireshark, tshark and sngrep open: each with its interface, a comment, and the verdict.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::{CommonOption, UnknownOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};
use sipguard_core::counters::Action;

use crate::redact::RedactedPacket;
use crate::tap::TapPacket;

/// Code of the option `epb_verdict`.
const VERDICT: u16 = 7;
/// Its kind: what an XDP program returned.
const XDP: u8 = 2;
/// `epb_flags`: which way a packet went.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// Longest packet of a capture (`MAXIMUM_SNAPLEN` of libpcap).
const MOST_BYTES: u32 = 1 << 18;
const XDP_DROP: u64 = 1;
const XDP_PASS: u64 = 2;
/// A comment is cut behind this many bytes; an option has room for 65535.
pub(super) const COMMENT_BYTES: usize = 4096;

/// Writes packets as one section of pcapng. Each block is one `write`, so that what is killed in between leaves whole blocks.
pub struct PcapWriter<W> {
    /// Makes the blocks.
    blocks: PcapNgWriter<Vec<u8>>,
    interfaces: BTreeMap<String, u32>,
    out: W,
}

impl<W: Write> PcapWriter<W> {
    /// Begins a section.
    pub fn new(out: W) -> Result<PcapWriter<W>> {
        let program = concat!("sipguard ", env!("CARGO_PKG_VERSION"));
        let options = vec![SectionHeaderOption::UserApplication(Cow::Borrowed(program))];
        let section =
            SectionHeaderBlock { endianness: Endianness::native(), options, ..SectionHeaderBlock::default() };
        let blocks =
            PcapNgWriter::with_section_header(Vec::new(), section).context("making a section header")?;
        let mut writer = PcapWriter { blocks, interfaces: BTreeMap::new(), out };
        writer.flush()?;
        Ok(writer)
    }

    /// Writes a packet. Its interface is described before the first packet that came over it.
    ///
    /// # Errors
    /// When it can't be written. How much of it is written then is up to the writer below, and nothing may follow.
    pub fn write(&mut self, packet: &RedactedPacket, comment: &str) -> Result<()> {
        self.write_with_credentials(packet, comment)
    }

    /// The same of a packet with the credentials that it carries, for whoever asked for them.
    ///
    /// # Errors
    /// As [`PcapWriter::write`].
    pub(crate) fn write_with_credentials(&mut self, packet: &TapPacket, comment: &str) -> Result<()> {
        let verdict = [&[XDP][..], &returned(packet.action).to_ne_bytes()].concat();
        let options = vec![
            EnhancedPacketOption::Common(CommonOption::Comment(Cow::Borrowed(cut(comment)))),
            EnhancedPacketOption::Common(CommonOption::Unknown(UnknownOption::new(VERDICT, &verdict))),
            EnhancedPacketOption::Flags(INBOUND),
        ];
        self.block(packet, options)
    }

    /// Writes a packet that this machine sent, of which there is no verdict.
    ///
    /// # Errors
    /// As [`PcapWriter::write`].
    pub(crate) fn write_sent(&mut self, packet: &TapPacket) -> Result<()> {
        self.block(packet, vec![EnhancedPacketOption::Flags(OUTBOUND)])
    }

    fn block(&mut self, packet: &TapPacket, options: Vec<EnhancedPacketOption<'_>>) -> Result<()> {
        let interface_id = self.interface(&packet.interface)?;
        let data = Cow::Borrowed(packet.frame.as_slice());
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(u64::try_from(packet.time.as_nanosecond()).unwrap_or(0)),
            // The kernel's length of a frame is never below what it recorded of it.
            original_len: packet.frame_len.max(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            data,
            options,
        };
        if let Err(error) = self.blocks.write_pcapng_block(block) {
            // The beginning of a block.
            self.blocks.get_mut().clear();
            return Err(error).context("making a block of a packet");
        }
        self.flush()
    }

    /// Where it is written to.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    fn interface(&mut self, name: &str) -> Result<u32> {
        if let Some(id) = self.interfaces.get(name) {
            return Ok(*id);
        }
        let id = u32::try_from(self.interfaces.len()).context("more interfaces than pcapng can have")?;
        let mut options = vec![InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO)];
        if !name.is_empty() {
            options.push(InterfaceDescriptionOption::IfName(Cow::Borrowed(name)));
        }
        let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: MOST_BYTES, options };
        self.blocks.write_pcapng_block(block).context("making a block of an interface")?;
        self.flush()?;
        self.interfaces.insert(name.to_owned(), id);
        Ok(id)
    }

    fn flush(&mut self) -> Result<()> {
        let made = std::mem::take(self.blocks.get_mut());
        self.out.write_all(&made).context("writing packets")
    }
}

/// What the program returned for a packet.
fn returned(action: Action) -> u64 {
    match action {
        Action::Drop => XDP_DROP,
        // What goes up instead of the packet is the reset that it was made into.
        Action::Pass | Action::Reset | Action::WouldDrop | Action::WouldReset => XDP_PASS,
    }
}

/// The comment of a packet: why, by which rule, of which trunk, and how many there were like it.
#[must_use]
pub fn comment(packet: &TapPacket, rule: Option<&str>) -> String {
    let verdict = packet.action;
    let mut text = format!("reason: {}; verdict: {}", packet.reason.name(), verdict.name());
    if verdict == Action::Reset {
        text += " (shown as it came; a reset of its connection, made of it, went up in its place)";
    }
    if let Some(rule) = rule {
        text += &format!("; rule: {rule}");
    }
    if let Some(trunk) = &packet.trunk {
        text += &format!("; trunk: {trunk}");
    }
    text + &format!("; count: {}", packet.count)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(COMMENT_BYTES)]
}
