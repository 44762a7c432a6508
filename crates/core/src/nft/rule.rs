//! Rules: what to look at in a packet, and what to do with it.
//!
//! A rule is a list of expressions that pass values through registers: load a header field, compare it, look it up, act.
//! The builder writes them as `nft` would, so that `nft list ruleset` prints the line one would have typed; it also puts in
//! the checks that `nft` adds unasked: before IPv4 header fields are read in a table that sees IPv6 too, the protocol is
//! compared first.

use std::net::IpAddr;

use super::abi::{expression as abi, register};
use super::field::{Field, Needs};
use super::set::{MapTo, Set, Verdict};
use super::table::Family;
use super::userdata;
use super::value::{self, Protocol, Value};
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

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal = 0,
    NotEqual = 1,
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
    network: Option<Family>,
    transport: Option<Protocol>,
    fault: Option<String>,
}

impl Rule {
    /// An empty rule for a table of this family. Without a comparison it matches every packet.
    pub fn new(family: Family) -> Self {
        let network = matches!(family, Family::Ip | Family::Ip6 | Family::Arp).then_some(family);
        Self { family, expressions: Attributes::new(), comment: None, network, transport: None, fault: None }
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

    // How it is encoded.

    pub(super) fn fault(&self) -> Option<String> {
        self.fault
            .clone()
            .or_else(|| self.comment.as_deref().and_then(userdata::comment_fault).map(str::to_owned))
    }

    fn faulty(mut self, fault: String) -> Self {
        self.fault.get_or_insert(fault);
        self
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(super::abi::list::ELEM, |expression| {
            expression.string(abi::NAME, name);
            expression.nest(abi::DATA, fill);
        });
        self
    }

    fn compare_value(self, field: Field, how: Comparison, value: &Value) -> Self {
        match value.encode().filter(|_| value.data_type() == field.data_type()) {
            Some(bytes) => self.compare(field, how, &bytes),
            None => self.faulty(format!("{field} cannot be compared with {value}")),
        }
    }

    fn compare(self, field: Field, how: Comparison, bytes: &[u8]) -> Self {
        self.load(&[field]).compare_loaded(how, bytes)
    }

    fn compare_loaded(self, how: Comparison, bytes: &[u8]) -> Self {
        self.expression("cmp", |cmp| {
            cmp.be32(abi::CMP_SREG, register::FIRST);
            cmp.be32(abi::CMP_OP, how as u32);
            cmp.nest(abi::CMP_DATA, |data| _ = data.bytes(super::abi::data::VALUE, bytes));
        })
    }

    /// Compares the leading bits. Whole bytes are compared by loading only those, as `nft` does; else the rest is masked.
    fn compare_prefix(mut self, field: Field, how: Comparison, address: IpAddr, prefix_length: u8) -> Self {
        let value = Value::from(address);
        let bytes = value.encode().unwrap_or_default();
        let bits = usize::from(prefix_length);
        if value.data_type() != field.data_type() || bits > bytes.len() * 8 {
            return self.faulty(format!("{field} cannot be in {address}/{prefix_length}"));
        }
        if bits > 0 && bits.is_multiple_of(8) {
            return self.load_leading(field, bits / 8).compare_loaded(how, &bytes[..bits / 8]);
        }
        let mask: Vec<u8> =
            (0..bytes.len()).map(|index| leading_bits(bits.saturating_sub(index * 8))).collect();
        let network: Vec<u8> = bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
        self = self.load(&[field]).bitwise(&mask, &vec![0; mask.len()]);
        self.compare_loaded(how, &network)
    }

    fn any_bit(self, field: Field, bits: u32) -> Self {
        let zero = [0; 4];
        self.load(&[field]).bitwise(&bits.to_ne_bytes(), &zero).compare_loaded(Comparison::NotEqual, &zero)
    }

    /// Replaces the loaded value by `(value & mask) ^ xor`.
    fn bitwise(self, mask: &[u8], xor: &[u8]) -> Self {
        self.expression("bitwise", |bitwise| {
            bitwise.be32(abi::BITWISE_SREG, register::FIRST);
            bitwise.be32(abi::BITWISE_DREG, register::FIRST);
            bitwise.be32(abi::BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            bitwise.nest(abi::BITWISE_MASK, |data| _ = data.bytes(super::abi::data::VALUE, mask));
            bitwise.nest(abi::BITWISE_XOR, |data| _ = data.bytes(super::abi::data::VALUE, xor));
        })
    }

    fn immediate(self, register: u32, bytes: &[u8]) -> Self {
        self.expression("immediate", |immediate| {
            immediate.be32(abi::IMMEDIATE_DREG, register);
            immediate.nest(abi::IMMEDIATE_DATA, |data| _ = data.bytes(super::abi::data::VALUE, bytes));
        })
    }

    fn lookup(mut self, fields: &[Field], set: &Set, destination: Option<u32>, invert: bool) -> Self {
        if !fields.iter().map(|field| field.data_type()).eq(set.key.iter().copied()) {
            return self.faulty(format!(
                "'{}' is not the key of {} '{}'",
                names(fields),
                set.noun(),
                set.name
            ));
        }
        self = self.load(fields);
        self.expression("lookup", |lookup| {
            lookup.string(abi::LOOKUP_SET, &set.name);
            lookup.be32(abi::LOOKUP_SREG, register::FIRST);
            if let Some(register) = destination {
                lookup.be32(abi::LOOKUP_DREG, register);
            }
            if invert {
                lookup.be32(abi::LOOKUP_FLAGS, abi::LOOKUP_INVERT);
            }
        })
    }

    fn nat(self, kind: u32, address: IpAddr, port: Option<u16>) -> Self {
        let value = Value::from(address);
        let port_register = register::FIRST + registers(value.data_type().length());
        let mut rule = self.immediate(register::FIRST, &value.encode().unwrap_or_default());
        if let Some(port) = port {
            rule = rule.immediate(port_register, &port.to_be_bytes());
        }
        rule.nat_expression(kind, address.is_ipv4(), port.map(|_| port_register))
    }

    fn nat_map(self, kind: u32, fields: &[Field], map: &Set) -> Self {
        use super::value::DataType::{InetService, Ipv4Addr, Ipv6Addr};
        let (address, port) = match map.to {
            Some(MapTo::Data([address @ (Ipv4Addr | Ipv6Addr)])) => (*address, false),
            Some(MapTo::Data([address @ (Ipv4Addr | Ipv6Addr), InetService])) => (*address, true),
            _ => {
                return self
                    .faulty(format!("map '{}' does not yield an address, or an address and port", map.name));
            }
        };
        let port_register = register::FIRST + registers(address.length());
        self.lookup(fields, map, Some(register::FIRST), false).nat_expression(
            kind,
            address == Ipv4Addr,
            port.then_some(port_register),
        )
    }

    fn nat_expression(self, kind: u32, ipv4: bool, port_register: Option<u32>) -> Self {
        let family = if ipv4 { Family::Ip } else { Family::Ip6 };
        self.expression("nat", |nat| {
            nat.be32(abi::NAT_TYPE, kind);
            nat.be32(abi::NAT_FAMILY, u32::from(family.number()));
            nat.be32(abi::NAT_REG_ADDR_MIN, register::FIRST);
            if let Some(register) = port_register {
                nat.be32(abi::NAT_REG_PROTO_MIN, register);
            }
        })
    }

    /// Loads fields side by side, each into whole registers, as a concatenated key wants them.
    fn load(mut self, fields: &[Field]) -> Self {
        let types: Vec<_> = fields.iter().map(|field| field.data_type()).collect();
        if value::length(&types) > register::TOTAL {
            return self.faulty(format!("'{}' does not fit the registers", names(fields)));
        }
        // Checks use the first register too, so all of them come before the first load.
        for field in fields {
            self = self.require(*field);
        }
        let mut target = register::FIRST;
        for field in fields {
            self = self.load_expression(*field, field.length(), target);
            target += registers(field.length());
        }
        self
    }

    fn load_leading(self, field: Field, length: usize) -> Self {
        self.require(field).load_expression(field, length, register::FIRST)
    }

    fn load_expression(self, field: Field, length: usize, target: u32) -> Self {
        let (name, attributes) = field.load(length, target);
        self.expression(name, |data| _ = data.append(&attributes))
    }

    fn require(self, field: Field) -> Self {
        match field.needs() {
            Needs::Nothing => self,
            Needs::Network(network) => self.require_network(network),
            Needs::Transport(network, protocol) => {
                let rule = self.require_network(network);
                if rule.transport == Some(protocol) { rule } else { rule.transport(protocol) }
            }
        }
    }

    /// Compares the network protocol, unless the family of the table or an earlier comparison settled it.
    fn require_network(mut self, network: Family) -> Self {
        match self.network {
            Some(known) if known == network => return self,
            Some(known) => return self.faulty(format!("{network} headers do not occur in {known} packets")),
            None => self.network = Some(network),
        }
        match (self.family, network) {
            (Family::Inet, Family::Ip | Family::Ip6) => {
                self.compare(Field::NFPROTO, Comparison::Equal, &[network.number()])
            }
            (Family::Bridge | Family::Netdev, Family::Ip | Family::Ip6 | Family::Arp) => {
                let ethertype: u16 = match network {
                    Family::Ip6 => 0x86dd,
                    Family::Arp => 0x0806,
                    _ => 0x0800,
                };
                self.compare(Field::PROTOCOL, Comparison::Equal, &ethertype.to_be_bytes())
            }
            (family, _) if family == network => self,
            (family, _) => {
                self.faulty(format!("{network} headers do not occur in tables of family {family}"))
            }
        }
    }
}

fn names(fields: &[Field]) -> String {
    let names: Vec<_> = fields.iter().map(ToString::to_string).collect();
    names.join(" . ")
}

/// How many 4-byte registers a value of that many bytes takes.
fn registers(length: usize) -> u32 {
    u32::try_from(length.div_ceil(4)).unwrap_or(u32::MAX)
}

/// A byte with its leading `count` bits set.
fn leading_bits(count: usize) -> u8 {
    u8::MAX.checked_shr(u32::try_from(count).unwrap_or(u32::MAX)).map_or(u8::MAX, |low| !low)
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.comment {
            Some(comment) => write!(f, "rule '{comment}'"),
            None => f.write_str("rule"),
        }
    }
}
