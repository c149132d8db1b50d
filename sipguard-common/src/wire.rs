//! Header fields on the wire: Ethernet, VLAN tags, IPv4, IPv6, TCP and UDP. Offsets and lengths are in bytes and come from the header structs
//! of `network-types`; numbers (EtherTypes, IP protocols, TCP flags) are in host byte order.
//!
//! Nothing is read here: the XDP program checks each load against the end of the frame, userspace reads slices.

/// Ethernet II (IEEE 802.3 section 3).
pub mod ethernet {
    use core::mem::offset_of;

    use network_types::eth::EthHdr;

    /// Length of the header.
    pub const LEN: usize = EthHdr::LEN;
    /// Offset of the EtherType, two bytes.
    pub const TYPE: usize = offset_of!(EthHdr, ether_type);
}

/// A VLAN tag (IEEE 802.1Q section 9.6): two bytes of control information, then the next EtherType. It stands right before the IP header or
/// the next tag.
pub mod vlan {
    use core::mem::offset_of;

    use network_types::vlan::VlanHdr;

    /// Length of a tag, from its control information on.
    pub const LEN: usize = VlanHdr::LEN;
    /// Offset of the EtherType of what follows, two bytes.
    pub const TYPE: usize = offset_of!(VlanHdr, ether_type);
}

/// EtherTypes.
pub mod ether_type {
    use network_types::eth::EtherType;

    /// IPv4.
    pub const IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
    /// IPv6.
    pub const IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
    /// A customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);
    /// A service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = u16::from_be(EtherType::Ieee8021ad as u16);

    /// Whether a VLAN tag follows.
    #[must_use]
    #[inline(always)]
    pub const fn is_vlan(ether_type: u16) -> bool {
        ether_type == VLAN || ether_type == SERVICE_VLAN
    }
}

/// Protocols of IPv4 and next headers of IPv6.
pub mod protocol {
    use network_types::ip::IpProto;

    /// TCP.
    pub const TCP: u8 = IpProto::Tcp as u8;
    /// UDP.
    pub const UDP: u8 = IpProto::Udp as u8;
    /// Hop-by-hop options of IPv6.
    pub const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    /// Routing header of IPv6.
    pub const ROUTING: u8 = IpProto::Ipv6Route as u8;
    /// Fragment header of IPv6.
    pub const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = IpProto::Ah as u8;
    /// Destination options of IPv6.
    pub const DESTINATION: u8 = IpProto::Ipv6Opts as u8;
    /// Mobility header (RFC 6275).
    pub const MOBILITY: u8 = IpProto::MobilityHeader as u8;
}

/// IPv4 (RFC 791 section 3.1).
pub mod ipv4 {
    use core::mem::offset_of;

    use network_types::ip::Ipv4Hdr;

    /// Length of a header without options.
    pub const LEN: usize = Ipv4Hdr::LEN;
    /// Offset of the byte of version (high four bits) and header length in words of four bytes (low four bits).
    pub const VERSION: usize = offset_of!(Ipv4Hdr, vihl);
    /// Offset of the total length, two bytes.
    pub const TOTAL_LEN: usize = offset_of!(Ipv4Hdr, tot_len);
    /// Offset of the identification, two bytes.
    pub const ID: usize = offset_of!(Ipv4Hdr, id);
    /// Offset of flags and fragment offset, two bytes.
    pub const FRAGMENT: usize = offset_of!(Ipv4Hdr, frags);
    /// Offset of the protocol, one byte.
    pub const PROTOCOL: usize = offset_of!(Ipv4Hdr, proto);
    /// Offset of the header checksum, two bytes.
    pub const CHECKSUM: usize = offset_of!(Ipv4Hdr, check);
    /// Offset of the source address, four bytes.
    pub const SOURCE: usize = offset_of!(Ipv4Hdr, src_addr);
    /// Offset of the destination address, four bytes.
    pub const DESTINATION: usize = offset_of!(Ipv4Hdr, dst_addr);
    /// Bits of [`FRAGMENT`]: the offset in units of eight bytes.
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;
    /// Bit of [`FRAGMENT`]: more fragments follow.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
}

/// IPv6 and its extension headers (RFC 8200 sections 3 and 4).
pub mod ipv6 {
    use core::mem::offset_of;

    use network_types::ip::Ipv6Hdr;

    /// Length of the header without extension headers.
    pub const LEN: usize = Ipv6Hdr::LEN;
    /// Offset of the length of what follows the header, two bytes.
    pub const PAYLOAD_LEN: usize = offset_of!(Ipv6Hdr, payload_len);
    /// Offset of the protocol of what follows the header, one byte.
    pub const NEXT_HEADER: usize = offset_of!(Ipv6Hdr, next_hdr);
    /// Offset of the source address, 16 bytes.
    pub const SOURCE: usize = offset_of!(Ipv6Hdr, src_addr);
    /// Offset of the destination address, 16 bytes.
    pub const DESTINATION: usize = offset_of!(Ipv6Hdr, dst_addr);

    /// Least length of an extension header, which is that of a fragment header.
    pub const EXTENSION_LEN: usize = 8;
    /// Offset in an extension header of its length, one byte.
    pub const EXTENSION_SIZE: usize = 1;
    /// Offset in a fragment header of the fragment offset and the flag that more follow, two bytes.
    pub const FRAGMENT: usize = 2;
    /// Offset in a fragment header of the identification, four bytes.
    pub const FRAGMENT_ID: usize = 4;
    /// Bits of [`FRAGMENT`]: the offset in bytes.
    pub const FRAGMENT_OFFSET: u16 = 0xfff8;
    /// Bit of [`FRAGMENT`]: more fragments follow.
    pub const MORE_FRAGMENTS: u16 = 1;
}

/// TCP (RFC 9293 section 3.1).
pub mod tcp {
    use core::mem::offset_of;

    use network_types::tcp::TcpHdr;

    /// Length of a header without options.
    pub const LEN: usize = TcpHdr::LEN;
    /// Offset of the source port, two bytes, and behind it the destination port.
    pub const PORTS: usize = offset_of!(TcpHdr, source);
    /// Offset of the sequence number, four bytes.
    pub const SEQ: usize = offset_of!(TcpHdr, seq);
    /// Offset of the acknowledgement number, four bytes.
    pub const ACK_SEQ: usize = offset_of!(TcpHdr, ack_seq);
    /// Offset of the byte whose high four bits are the header length in words of four bytes.
    pub const DATA_OFFSET: usize = offset_of!(TcpHdr, _bitfield_1);
    /// Offset of the flags, one byte.
    pub const FLAGS: usize = DATA_OFFSET + 1;
    /// Offset of the window, two bytes.
    pub const WINDOW: usize = offset_of!(TcpHdr, window);
    /// Offset of the checksum, two bytes.
    pub const CHECKSUM: usize = offset_of!(TcpHdr, check);

    /// The sender has no more data.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is valid.
    pub const URG: u8 = 0x20;

    /// The first four bytes of options in nearly all segments: NOP, NOP, and kind and length of a timestamp (RFC 7323 appendix A).
    pub const TIMESTAMP_OPTION: [u8; 4] = [1, 1, 8, 10];
    /// Offset of the sender's timestamp where the options are [`TIMESTAMP_OPTION`], four bytes.
    pub const TIMESTAMP: usize = LEN + TIMESTAMP_OPTION.len();
    /// Length of a header whose only option is that timestamp.
    pub const TIMESTAMP_LEN: usize = TIMESTAMP + 8;
}

/// UDP (RFC 768).
pub mod udp {
    use core::mem::offset_of;

    use network_types::udp::UdpHdr;

    /// Length of the header.
    pub const LEN: usize = UdpHdr::LEN;
    /// Offset of the length of header and payload, two bytes.
    pub const TOTAL_LEN: usize = offset_of!(UdpHdr, len);
    /// Offset of the checksum, two bytes.
    pub const CHECKSUM: usize = offset_of!(UdpHdr, check);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers as the standards have them, so that another layout of the structs is seen here and not in a frame.
    #[test]
    fn the_offsets_are_those_of_the_standards() {
        assert_eq!((ethernet::LEN, ethernet::TYPE, vlan::LEN, vlan::TYPE), (14, 12, 4, 2));
        assert_eq!([ether_type::IPV4, ether_type::IPV6, ether_type::VLAN], [0x0800, 0x86dd, 0x8100]);
        assert_eq!(ether_type::SERVICE_VLAN, 0x88a8);
        let protocols = [protocol::TCP, protocol::UDP, protocol::HOP_BY_HOP, protocol::ROUTING];
        assert_eq!(protocols, [6, 17, 0, 43]);
        let protocols =
            [protocol::FRAGMENT, protocol::AUTHENTICATION, protocol::DESTINATION, protocol::MOBILITY];
        assert_eq!(protocols, [44, 51, 60, 135]);
        let fields = [ipv4::VERSION, ipv4::TOTAL_LEN, ipv4::ID, ipv4::FRAGMENT, ipv4::PROTOCOL];
        assert_eq!(fields, [0, 2, 4, 6, 9]);
        assert_eq!([ipv4::CHECKSUM, ipv4::SOURCE, ipv4::DESTINATION, ipv4::LEN], [10, 12, 16, 20]);
        let fields = [ipv6::PAYLOAD_LEN, ipv6::NEXT_HEADER, ipv6::SOURCE, ipv6::DESTINATION, ipv6::LEN];
        assert_eq!(fields, [4, 6, 8, 24, 40]);
        let fields = [tcp::PORTS, tcp::SEQ, tcp::ACK_SEQ, tcp::DATA_OFFSET, tcp::FLAGS, tcp::CHECKSUM];
        assert_eq!(fields, [0, 4, 8, 12, 13, 16]);
        assert_eq!((tcp::LEN, tcp::TIMESTAMP, tcp::TIMESTAMP_LEN), (20, 24, 32));
        assert_eq!((udp::TOTAL_LEN, udp::CHECKSUM, udp::LEN), (4, 6, 8));
    }
}
