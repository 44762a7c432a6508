//! Rules: what to look at in a packet, and what to do with it.
//!
//! A rule is a list of expressions that pass values through registers: load a header field, compare it, look it up, act.
//! The builder writes them as `nft` would, so that `nft list ruleset` prints the line one would have typed; it also puts in
//! the checks that `nft` adds unasked: before IPv4 header fields are read in a table that sees IPv6 too, the protocol is
//! compared first.

use std::net::IpAddr;

use super::abi::{expression as abi, register};
use super::expression::Comparison;
use super::field::Field;
use super::set::{MapTo, Set};
use super::table::Family;
use super::userdata;
use super::value::{Protocol, Value};
use super::verdict::Verdict;
use crate::nfnetlink::Attributes;

/// States of a connection, for [`Rule::ct_state`]; combine with `|`. (`enum ip_conntrack_info`, as `nf_tables` numbers it.)
pub mod ct_state {
    /// Not part of any known connection, and not able to start one.
    pub const INVALID: u32 = 1;
    /// Part of a connection that has seen packets both ways.
    pub const ESTABLISHED: u32 = 2;
    /// Starts a connection that an existing one announced.
    pub const RELATED: u32 = 4;
    /// Starts a connection.
    pub const NEW: u32 = 8;
}

/// Status bits of a connection, for [`Rule::ct_status`]; combine with `|`. (`enum ip_conntrack_status`)
pub mod ct_status {
    /// Its source is translated.
    pub const SNAT: u32 = 1 << 4;
    /// Its destination is translated.
    pub const DNAT: u32 = 1 << 5;
}

/// Which way a packet of a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the first one.
    Original,
    /// Back.
    Reply,
}

/// Kind of an address according to the routing table (`RTN_*` in `linux/rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressType {
    /// Routed on.
    Unicast = 1,
    /// One of this host's own.
    Local = 2,
    /// Broadcast.
    Broadcast = 3,
    /// Multicast.
    Multicast = 5,
}

/// A rule under construction. Parts apply from left to right: the first comparison that fails ends the rule.
///
/// ```
/// use ferrule_core::nft::{AddressType, DataType, Family, Field, Rule, Set};
/// const PORTS: Set = Set::map("ports", &[DataType::InetProto, DataType::InetService], &[DataType::Ipv4Addr, DataType::InetService]);
///
/// // fib daddr type local dnat ip to meta l4proto . th dport map @ports comment "published ports"
/// let rule = Rule::new(Family::Inet)
///     .fib_daddr_type(AddressType::Local)
///     .dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &PORTS)
///     .comment("published ports");
/// ```
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) family: Family,
    pub(super) expressions: Attributes,
    pub(super) comment: Option<String>,
    /// The network protocol that the rule has already checked for.
    pub(super) network: Option<Family>,
    pub(super) transport: Option<Protocol>,
    /// Whether the packet is known to have an Ethernet header.
    pub(super) ethernet: bool,
    pub(super) fault: Option<String>,
}

impl Rule {
    /// An empty rule for a table of this family. Without a comparison it matches every packet.
    pub fn new(family: Family) -> Self {
        let network = matches!(family, Family::Ip | Family::Ip6 | Family::Arp).then_some(family);
        Self {
            family,
            expressions: Attributes::new(),
            comment: None,
            network,
            transport: None,
            ethernet: matches!(family, Family::Bridge | Family::Arp),
            fault: None,
        }
    }

    /// Sets the comment, at most 128 bytes without double quotes.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    // Comparisons.

    /// The field has this value, as in `tcp dport 80`.
    #[must_use]
    pub fn is(self, field: Field, value: impl Into<Value>) -> Self {
        self.compare_value(field, Comparison::Equal, &value.into())
    }

    /// The field has another value, as in `iifname != "lo"`.
    #[must_use]
    pub fn is_not(self, field: Field, value: impl Into<Value>) -> Self {
        self.compare_value(field, Comparison::NotEqual, &value.into())
    }

    /// The address is in this prefix, as in `ip saddr 10.0.0.0/24`.
    #[must_use]
    pub fn within(self, field: Field, address: IpAddr, prefix_length: u8) -> Self {
        self.compare_prefix(field, Comparison::Equal, address, prefix_length)
    }

    /// The address is not in this prefix.
    #[must_use]
    pub fn outside(self, field: Field, address: IpAddr, prefix_length: u8) -> Self {
        self.compare_prefix(field, Comparison::NotEqual, address, prefix_length)
    }

    /// The field has one of the values from `first` to `last`, as in `th dport 80-90`.
    #[must_use]
    pub fn between(mut self, field: Field, first: impl Into<Value>, last: impl Into<Value>) -> Self {
        let (first, last) = (first.into(), last.into());
        let fits = first.data_type() == field.data_type() && last.data_type() == field.data_type();
        let (Some(first), Some(last), true) = (first.encode(), last.encode(), fits) else {
            return self.faulty(format!("the range does not fit {field}"));
        };
        self = self.load(&[field]);
        self.expression("range", |range| {
            range.be32(abi::RANGE_SREG, register::FIRST);
            range.be32(abi::RANGE_OP, Comparison::Equal as u32);
            range.nest(abi::RANGE_FROM, |data| _ = data.bytes(super::abi::data::VALUE, &first));
            range.nest(abi::RANGE_TO, |data| _ = data.bytes(super::abi::data::VALUE, &last));
        })
    }

    /// The packet is of this network protocol, as in `meta nfproto ipv4`; only [`Family::Ip`] and [`Family::Ip6`] make sense.
    /// Comparing a header field implies it.
    #[must_use]
    pub fn network(mut self, network: Family) -> Self {
        self.network = None;
        self.require_network(network)
    }

    /// The packet is of this transport protocol, as in `meta l4proto tcp`.
    #[must_use]
    pub fn transport(mut self, protocol: Protocol) -> Self {
        self = self.is(Field::L4PROTO, protocol);
        self.transport = Some(protocol);
        self
    }

    /// The `ICMPv6` message is of this type, as in `icmpv6 type nd-neighbor-advert` (136).
    #[must_use]
    pub fn icmpv6_type(self, kind: u8) -> Self {
        self.compare(Field::ICMPV6_TYPE, Comparison::Equal, &[kind])
    }

    /// The UDP packet is of this VXLAN network, as in `@th,96,24 100`. (`nft` has `vxlan vni` too, which needs a kernel that parses inner
    /// headers.)
    #[must_use]
    pub fn vxlan_vni(self, vni: u32) -> Self {
        let [_, identifier @ ..] = vni.to_be_bytes();
        self.load_leading(Field::VXLAN_VNI, identifier.len()).compare_loaded(Comparison::Equal, &identifier)
    }

    /// The packet's connection is in one of these [states](ct_state).
    #[must_use]
    pub fn ct_state(self, states: u32) -> Self {
        self.any_bit(Field::CT_STATE, states)
    }

    /// The packet's connection has one of these [status bits](ct_status).
    #[must_use]
    pub fn ct_status(self, bits: u32) -> Self {
        self.any_bit(Field::CT_STATUS, bits)
    }

    /// The packet goes this way in its connection.
    #[must_use]
    pub fn ct_direction(self, direction: Direction) -> Self {
        self.compare(Field::CT_DIRECTION, Comparison::Equal, &[direction as u8])
    }

    /// The destination address is of this type for this host, as in `fib daddr type local`.
    #[must_use]
    pub fn fib_daddr_type(self, kind: AddressType) -> Self {
        self.compare(Field::FIB_DADDR_TYPE, Comparison::Equal, &(kind as u32).to_ne_bytes())
    }

    /// The source address is of this type for this host.
    #[must_use]
    pub fn fib_saddr_type(self, kind: AddressType) -> Self {
        self.compare(Field::FIB_SADDR_TYPE, Comparison::Equal, &(kind as u32).to_ne_bytes())
    }

    /// One of the bits in `mask` is set in the packet's mark.
    #[must_use]
    pub fn mark_any(self, mask: u32) -> Self {
        self.any_bit(Field::MARK, mask)
    }

    // Sets and maps.

    /// The fields together are in the set, as in `ip saddr . th dport @allowed`.
    #[must_use]
    pub fn in_set(self, fields: &[Field], set: &Set) -> Self {
        self.lookup(fields, set, None, false)
    }

    /// The fields together are not in the set.
    #[must_use]
    pub fn not_in_set(self, fields: &[Field], set: &Set) -> Self {
        self.lookup(fields, set, None, true)
    }

    /// Looks the fields up in a verdict map and does what it says; goes on when it has nothing, as in `ip saddr vmap @policy`.
    #[must_use]
    pub fn vmap(self, fields: &[Field], map: &Set) -> Self {
        if map.to != Some(MapTo::Verdict) {
            return self.faulty(format!("'{}' is not a verdict map", map.name));
        }
        self.lookup(fields, map, Some(register::VERDICT), false)
    }

    // Actions.

    /// Counts packets and bytes that come here.
    #[must_use]
    pub fn counter(self) -> Self {
        self.expression("counter", |_| {})
    }

    /// Sets the bits of `mask` in the packet's mark to those of `value`, and leaves the others.
    #[must_use]
    pub fn set_mark(mut self, value: u32, mask: u32) -> Self {
        if mask == u32::MAX {
            self = self.immediate(register::FIRST, &value.to_ne_bytes());
        } else {
            self = self.load(&[Field::MARK]).bitwise(&(!mask).to_ne_bytes(), &(value & mask).to_ne_bytes());
        }
        self.expression("meta", |meta| {
            meta.be32(abi::META_KEY, super::field::META_MARK);
            meta.be32(abi::META_SREG, register::FIRST);
        })
    }

    /// Ends the rule with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |immediate| {
            immediate.be32(abi::IMMEDIATE_DREG, register::VERDICT);
            immediate.nest(abi::IMMEDIATE_DATA, |data| verdict.encode(data));
        })
    }

    /// Lets the packet pass this hook.
    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(&Verdict::Accept)
    }

    /// Discards the packet.
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(&Verdict::Drop)
    }

    /// Goes through another chain, then comes back.
    #[must_use]
    pub fn jump(self, chain: impl Into<String>) -> Self {
        self.verdict(&Verdict::jump(chain.into()))
    }

    /// Goes through another chain and returns to this one's caller.
    #[must_use]
    pub fn goto(self, chain: impl Into<String>) -> Self {
        self.verdict(&Verdict::goto(chain.into()))
    }

    /// Translates the source to an address of the outgoing interface. `random_fully` draws the port at random, which avoids
    /// lost packets when many connections start at once (two CPUs choosing the same free port).
    #[must_use]
    pub fn masquerade(self, random_fully: bool) -> Self {
        self.expression("masq", |masq| {
            if random_fully {
                masq.be32(abi::MASQ_FLAGS, abi::RANDOM_FULLY);
            }
        })
    }

    /// Translates the destination, as in `dnat ip to 10.0.0.2:80`.
    #[must_use]
    pub fn dnat(self, address: IpAddr, port: Option<u16>) -> Self {
        self.nat(abi::NAT_DNAT, address, port)
    }

    /// Translates the source, as in `snat ip to 192.0.2.1`.
    #[must_use]
    pub fn snat(self, address: IpAddr, port: Option<u16>) -> Self {
        self.nat(abi::NAT_SNAT, address, port)
    }

    /// Translates the destination to what the map yields for the fields, an address or an address and port, as in
    /// `dnat ip to meta l4proto . th dport map @ports`. The rule ends when the map has nothing.
    #[must_use]
    pub fn dnat_map(self, fields: &[Field], map: &Set) -> Self {
        self.nat_map(abi::NAT_DNAT, fields, map)
    }

    /// Translates the source to what the map yields for the fields.
    #[must_use]
    pub fn snat_map(self, fields: &[Field], map: &Set) -> Self {
        self.nat_map(abi::NAT_SNAT, fields, map)
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.fault
            .clone()
            .or_else(|| self.comment.as_deref().and_then(userdata::comment_fault).map(str::to_owned))
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.comment {
            Some(comment) => write!(f, "rule '{comment}'"),
            None => f.write_str("rule"),
        }
    }
}
