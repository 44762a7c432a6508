//! What a rule can look at: fields of headers, and what the kernel knows about a packet.

use std::fmt;

use super::abi::expression as abi;
use super::table::Family;
use super::value::{DataType, Protocol};
use crate::nfnetlink::Attributes;

/// Something of a packet that can be compared or looked up, under the name `nft` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    name: &'static str,
    source: Source,
    data_type: DataType,
    needs: Needs,
}

/// Where a field comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// `enum nft_meta_keys`
    Meta(u32),
    /// `enum nft_ct_keys`
    Ct(u32),
    /// `enum nft_fib_flags`: which address is looked up.
    Fib(u32),
    /// A header, and the offset in it: RFC 791 (IPv4), 8200 (IPv6), 826 (ARP), 4861 (ND), 768 and 9293 (ports).
    Payload(Header, u32),
}

/// `enum nft_payload_bases`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// What must be known of a packet before a field can be read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Ethernet,
    Network(Family),
    Transport(Family, Protocol),
}

const IPV4: Needs = Needs::Network(Family::Ip);
const IPV6: Needs = Needs::Network(Family::Ip6);
const ARP: Needs = Needs::Network(Family::Arp);
const ICMPV6: Needs = Needs::Transport(Family::Ip6, Protocol::ICMPV6);

/// `NFT_META_MARK`, which rules also write.
pub(super) const META_MARK: u32 = 3;

impl Field {
    /// The transport protocol, behind all extension headers.
    pub const L4PROTO: Self =
        Self::new("meta l4proto", Source::Meta(16), DataType::InetProto, Needs::Nothing);
    /// The interface the packet came in by.
    pub const IIFNAME: Self = Self::new("iifname", Source::Meta(6), DataType::IfName, Needs::Nothing);
    /// The interface the packet goes out by.
    pub const OIFNAME: Self = Self::new("oifname", Source::Meta(7), DataType::IfName, Needs::Nothing);
    /// The bridge whose port the frame came in by. Bridge family only; needs a kernel with `CONFIG_NFT_BRIDGE_META`.
    pub const IBRNAME: Self = Self::new("meta ibrname", Source::Meta(17), DataType::IfName, Needs::Nothing);
    /// The bridge whose port the frame goes out by. As [`Field::IBRNAME`].
    pub const OBRNAME: Self = Self::new("meta obrname", Source::Meta(18), DataType::IfName, Needs::Nothing);
    /// The packet's mark.
    pub const MARK: Self = Self::new("meta mark", Source::Meta(META_MARK), DataType::Mark, Needs::Nothing);
    /// The connection's mark.
    pub const CT_MARK: Self = Self::new("ct mark", Source::Ct(3), DataType::Mark, Needs::Nothing);
    /// Destination MAC address.
    pub const ETHER_DADDR: Self =
        Self::header("ether daddr", Header::Link, 0, DataType::EtherAddr, Needs::Ethernet);
    /// Source MAC address.
    pub const ETHER_SADDR: Self =
        Self::header("ether saddr", Header::Link, 6, DataType::EtherAddr, Needs::Ethernet);
    /// Source address.
    pub const IP_SADDR: Self = Self::header("ip saddr", Header::Network, 12, DataType::Ipv4Addr, IPV4);
    /// Destination address.
    pub const IP_DADDR: Self = Self::header("ip daddr", Header::Network, 16, DataType::Ipv4Addr, IPV4);
    /// Source address.
    pub const IP6_SADDR: Self = Self::header("ip6 saddr", Header::Network, 8, DataType::Ipv6Addr, IPV6);
    /// Destination address.
    pub const IP6_DADDR: Self = Self::header("ip6 daddr", Header::Network, 24, DataType::Ipv6Addr, IPV6);
    /// The MAC address the sender claims.
    pub const ARP_SADDR_ETHER: Self =
        Self::header("arp saddr ether", Header::Network, 8, DataType::EtherAddr, ARP);
    /// The address the sender claims.
    pub const ARP_SADDR_IP: Self = Self::header("arp saddr ip", Header::Network, 14, DataType::Ipv4Addr, ARP);
    /// The address asked for.
    pub const ARP_DADDR_IP: Self = Self::header("arp daddr ip", Header::Network, 24, DataType::Ipv4Addr, ARP);
    /// The address a neighbour solicitation or advertisement is about; compare the `ICMPv6` type first.
    pub const ND_TARGET: Self =
        Self::header("icmpv6 taddr", Header::Transport, 8, DataType::Ipv6Addr, ICMPV6);
    /// Source port of whatever transport protocol.
    pub const TH_SPORT: Self =
        Self::header("th sport", Header::Transport, 0, DataType::InetService, Needs::Nothing);
    /// Destination port of whatever transport protocol.
    pub const TH_DPORT: Self =
        Self::header("th dport", Header::Transport, 2, DataType::InetService, Needs::Nothing);

    /// The VXLAN network identifier (RFC 7348, section 5) behind the UDP header.
    pub(super) const VXLAN_VNI: Self =
        Self::header("@th,96,24", Header::Transport, 12, DataType::Mark, Needs::Nothing);

    // Compared through methods of `Rule`: their values have types of their own, only the lengths are right here.
    pub(super) const PROTOCOL: Self =
        Self::new("meta protocol", Source::Meta(1), DataType::InetService, Needs::Nothing);
    pub(super) const IIFTYPE: Self =
        Self::new("iiftype", Source::Meta(8), DataType::InetService, Needs::Nothing);
    pub(super) const NFPROTO: Self =
        Self::new("meta nfproto", Source::Meta(15), DataType::InetProto, Needs::Nothing);
    pub(super) const ICMPV6_TYPE: Self =
        Self::header("icmpv6 type", Header::Transport, 0, DataType::InetProto, ICMPV6);
    pub(super) const CT_STATE: Self = Self::new("ct state", Source::Ct(0), DataType::Mark, Needs::Nothing);
    pub(super) const CT_DIRECTION: Self =
        Self::new("ct direction", Source::Ct(1), DataType::InetProto, Needs::Nothing);
    pub(super) const CT_STATUS: Self = Self::new("ct status", Source::Ct(2), DataType::Mark, Needs::Nothing);
    pub(super) const FIB_SADDR_TYPE: Self =
        Self::new("fib saddr type", Source::Fib(abi::FIB_F_SADDR), DataType::Mark, Needs::Nothing);
    pub(super) const FIB_DADDR_TYPE: Self =
        Self::new("fib daddr type", Source::Fib(abi::FIB_F_DADDR), DataType::Mark, Needs::Nothing);

    const fn new(name: &'static str, source: Source, data_type: DataType, needs: Needs) -> Self {
        Self { name, source, data_type, needs }
    }

    const fn header(
        name: &'static str,
        header: Header,
        offset: u32,
        data_type: DataType,
        needs: Needs,
    ) -> Self {
        Self::new(name, Source::Payload(header, offset), data_type, needs)
    }

    /// The type of its values in a set.
    pub const fn data_type(self) -> DataType {
        self.data_type
    }

    pub(super) const fn length(self) -> usize {
        self.data_type.length()
    }

    pub(super) const fn needs(self) -> Needs {
        self.needs
    }

    /// The expression that loads the first `length` bytes of the field into `register`: its name and its attributes.
    pub(super) fn load(self, length: usize, register: u32) -> (&'static str, Attributes) {
        let mut attributes = Attributes::new();
        let name = match self.source {
            Source::Meta(key) => {
                attributes.be32(abi::META_KEY, key).be32(abi::META_DREG, register);
                "meta"
            }
            Source::Ct(key) => {
                attributes.be32(abi::CT_KEY, key).be32(abi::CT_DREG, register);
                "ct"
            }
            Source::Fib(flags) => {
                attributes.be32(abi::FIB_DREG, register);
                attributes.be32(abi::FIB_RESULT, abi::FIB_RESULT_ADDRTYPE);
                attributes.be32(abi::FIB_FLAGS, flags);
                "fib"
            }
            Source::Payload(header, offset) => {
                attributes.be32(abi::PAYLOAD_DREG, register);
                attributes.be32(abi::PAYLOAD_BASE, header as u32);
                attributes.be32(abi::PAYLOAD_OFFSET, offset);
                attributes.be32(abi::PAYLOAD_LEN, u32::try_from(length).unwrap_or(u32::MAX));
                "payload"
            }
        };
        (name, attributes)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
