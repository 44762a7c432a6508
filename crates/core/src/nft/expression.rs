//! How rules are encoded: the expressions, and the checks they need before them.

use std::net::IpAddr;

use super::abi::{self, expression, register};
use super::field::{Field, Needs};
use super::rule::Rule;
use super::set::{MapTo, Set};
use super::table::Family;
use super::value::{self, DataType, Value};
use crate::nfnetlink::Attributes;

/// `enum nft_cmp_ops` and `enum nft_range_ops`, as far as they are the same.
#[derive(Debug, Clone, Copy)]
pub(super) enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

impl Rule {
    pub(super) fn faulty(mut self, fault: String) -> Self {
        self.fault.get_or_insert(fault);
        self
    }

    pub(super) fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(abi::list::ELEM, |entry| {
            entry.string(expression::NAME, name);
            entry.nest(expression::DATA, fill);
        });
        self
    }

    pub(super) fn compare_value(self, field: Field, how: Comparison, value: &Value) -> Self {
        match value.encode().filter(|_| value.data_type() == field.data_type()) {
            Some(bytes) => self.compare(field, how, &bytes),
            None => self.faulty(format!("{field} cannot be compared with {value}")),
        }
    }

    pub(super) fn compare(self, field: Field, how: Comparison, bytes: &[u8]) -> Self {
        self.load(&[field]).compare_loaded(how, bytes)
    }

    pub(super) fn compare_loaded(self, how: Comparison, bytes: &[u8]) -> Self {
        self.expression("cmp", |cmp| {
            cmp.be32(expression::CMP_SREG, register::FIRST);
            cmp.be32(expression::CMP_OP, how as u32);
            cmp.nest(expression::CMP_DATA, |data| _ = data.bytes(abi::data::VALUE, bytes));
        })
    }

    /// Compares the leading bits. Whole bytes are compared by loading only those, as `nft` does; else the rest is masked.
    pub(super) fn compare_prefix(
        mut self,
        field: Field,
        how: Comparison,
        address: IpAddr,
        prefix_length: u8,
    ) -> Self {
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

    pub(super) fn any_bit(self, field: Field, bits: u32) -> Self {
        let zero = [0; 4];
        self.load(&[field]).bitwise(&bits.to_ne_bytes(), &zero).compare_loaded(Comparison::NotEqual, &zero)
    }

    /// Replaces the loaded value by `(value & mask) ^ xor`.
    pub(super) fn bitwise(self, mask: &[u8], xor: &[u8]) -> Self {
        self.expression("bitwise", |bitwise| {
            bitwise.be32(expression::BITWISE_SREG, register::FIRST);
            bitwise.be32(expression::BITWISE_DREG, register::FIRST);
            bitwise.be32(expression::BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            bitwise.nest(expression::BITWISE_MASK, |data| _ = data.bytes(abi::data::VALUE, mask));
            bitwise.nest(expression::BITWISE_XOR, |data| _ = data.bytes(abi::data::VALUE, xor));
        })
    }

    pub(super) fn immediate(self, register: u32, bytes: &[u8]) -> Self {
        self.expression("immediate", |immediate| {
            immediate.be32(expression::IMMEDIATE_DREG, register);
            immediate.nest(expression::IMMEDIATE_DATA, |data| _ = data.bytes(abi::data::VALUE, bytes));
        })
    }

    pub(super) fn lookup(
        mut self,
        fields: &[Field],
        set: &Set,
        destination: Option<u32>,
        invert: bool,
    ) -> Self {
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
            lookup.string(expression::LOOKUP_SET, &set.name);
            lookup.be32(expression::LOOKUP_SREG, register::FIRST);
            if let Some(register) = destination {
                lookup.be32(expression::LOOKUP_DREG, register);
            }
            if invert {
                lookup.be32(expression::LOOKUP_FLAGS, expression::LOOKUP_INVERT);
            }
        })
    }

    pub(super) fn nat(self, kind: u32, address: IpAddr, port: Option<u16>) -> Self {
        let value = Value::from(address);
        // An address register of its full size, whichever family: as nft does.
        let port_register = register::FIRST + registers(DataType::Ipv6Addr.length());
        let mut rule = self.immediate(register::FIRST, &value.encode().unwrap_or_default());
        if let Some(port) = port {
            rule = rule.immediate(port_register, &port.to_be_bytes());
        }
        rule.nat_expression(kind, address.is_ipv4(), port.map(|_| port_register))
    }

    pub(super) fn nat_map(self, kind: u32, fields: &[Field], map: &Set) -> Self {
        use DataType::{InetService, Ipv4Addr, Ipv6Addr};
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
            nat.be32(expression::NAT_TYPE, kind);
            nat.be32(expression::NAT_FAMILY, u32::from(family.number()));
            nat.be32(expression::NAT_REG_ADDR_MIN, register::FIRST);
            if let Some(register) = port_register {
                nat.be32(expression::NAT_REG_PROTO_MIN, register);
            }
        })
    }

    /// Loads fields side by side, each into whole registers, as a concatenated key wants them.
    pub(super) fn load(mut self, fields: &[Field]) -> Self {
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

    pub(super) fn load_leading(self, field: Field, length: usize) -> Self {
        self.require(field).load_expression(field, length, register::FIRST)
    }

    fn load_expression(self, field: Field, length: usize, target: u32) -> Self {
        let (name, attributes) = field.load(length, target);
        self.expression(name, |data| _ = data.append(&attributes))
    }

    fn require(self, field: Field) -> Self {
        match field.needs() {
            Needs::Nothing => self,
            Needs::Ethernet => self.require_ethernet(),
            Needs::Network(network) => self.require_network(network),
            Needs::Transport(network, protocol) => {
                let rule = self.require_network(network);
                if rule.transport == Some(protocol) { rule } else { rule.transport(protocol) }
            }
        }
    }

    /// Compares the type of the incoming interface, where packets may come from one that has no MAC addresses.
    fn require_ethernet(mut self) -> Self {
        if self.ethernet {
            return self;
        }
        self.ethernet = true;
        self.compare(Field::IIFTYPE, Comparison::Equal, &libc::ARPHRD_ETHER.to_ne_bytes())
    }

    /// Compares the network protocol, unless the family of the table or an earlier comparison settled it.
    pub(super) fn require_network(mut self, network: Family) -> Self {
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
