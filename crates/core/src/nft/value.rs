//! The values that rules compare and sets hold, with their `nf_tables` types.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A transport protocol by its IANA number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6, which includes neighbour discovery.
    pub const ICMPV6: Self = Self(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMPV6 => f.write_str("ipv6-icmp"),
            Self::SCTP => f.write_str("sctp"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

/// The type of a value in a set, under the name `nft` gives it.
///
/// The kernel only knows lengths; the type travels with the set so that tools can print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// `ipv4_addr`
    Ipv4Addr,
    /// `ipv6_addr`
    Ipv6Addr,
    /// `ether_addr`
    EtherAddr,
    /// `inet_proto`: a transport protocol.
    InetProto,
    /// `inet_service`: a port.
    InetService,
    /// `ifname`: an interface by name.
    IfName,
    /// `mark`: the firewall mark of a packet or connection.
    Mark,
}

impl DataType {
    /// The number under which `nft` knows the type (`enum datatypes` in its `include/datatype.h`); six bits.
    pub(super) const fn id(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::IfName => 41,
        }
    }

    /// Length in bytes.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark => 4,
            Self::EtherAddr => 6,
            Self::Ipv6Addr | Self::IfName => 16,
        }
    }

    /// True for the types that are kept in the machine's byte order, not the network's.
    pub(super) const fn is_host_endian(self) -> bool {
        matches!(self, Self::Mark | Self::IfName)
    }

    fn decode(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Self::Ipv4Addr => Value::Ipv4(<[u8; 4]>::try_from(bytes).ok()?.into()),
            Self::Ipv6Addr => Value::Ipv6(<[u8; 16]>::try_from(bytes).ok()?.into()),
            Self::EtherAddr => Value::Ether(bytes.try_into().ok()?),
            Self::InetProto => Value::Protocol(Protocol(*bytes.first()?)),
            Self::InetService => Value::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
            Self::IfName => Value::IfName(crate::nfnetlink::text(bytes)),
            Self::Mark => Value::Mark(u32::from_ne_bytes(bytes.try_into().ok()?)),
        })
    }
}

/// One value; several of them form the key of a set with a concatenated type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A MAC address.
    Ether([u8; 6]),
    /// A transport protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
    /// The name of an interface, at most 15 bytes.
    IfName(String),
    /// A packet mark.
    Mark(u32),
}

impl Value {
    /// The type of sets that can hold this value.
    pub const fn data_type(&self) -> DataType {
        match self {
            Self::Ipv4(_) => DataType::Ipv4Addr,
            Self::Ipv6(_) => DataType::Ipv6Addr,
            Self::Ether(_) => DataType::EtherAddr,
            Self::Protocol(_) => DataType::InetProto,
            Self::Port(_) => DataType::InetService,
            Self::IfName(_) => DataType::IfName,
            Self::Mark(_) => DataType::Mark,
        }
    }

    /// The value as the kernel compares it. `None` for an interface name that cannot be one.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        Some(match self {
            Self::Ipv4(address) => address.octets().to_vec(),
            Self::Ipv6(address) => address.octets().to_vec(),
            Self::Ether(address) => address.to_vec(),
            Self::Protocol(protocol) => vec![protocol.0],
            Self::Port(port) => port.to_be_bytes().to_vec(),
            Self::IfName(name) => {
                if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
                    return None;
                }
                let mut bytes = name.clone().into_bytes();
                bytes.resize(libc::IFNAMSIZ, 0);
                bytes
            }
            Self::Mark(mark) => mark.to_ne_bytes().to_vec(),
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => address.fmt(f),
            Self::Ipv6(address) => address.fmt(f),
            Self::Ether(octets) => {
                for (index, octet) in octets.iter().enumerate() {
                    write!(f, "{}{octet:02x}", if index > 0 { ":" } else { "" })?;
                }
                Ok(())
            }
            Self::Protocol(protocol) => protocol.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::IfName(name) => write!(f, "\"{name}\""),
            Self::Mark(mark) => write!(f, "{mark:#010x}"),
        }
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }
}

impl From<Ipv4Addr> for Value {
    fn from(address: Ipv4Addr) -> Self {
        Self::Ipv4(address)
    }
}

impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Self {
        Self::Ipv6(address)
    }
}

impl From<Protocol> for Value {
    fn from(protocol: Protocol) -> Self {
        Self::Protocol(protocol)
    }
}

impl From<u16> for Value {
    fn from(port: u16) -> Self {
        Self::Port(port)
    }
}

impl From<[u8; 6]> for Value {
    fn from(address: [u8; 6]) -> Self {
        Self::Ether(address)
    }
}

impl From<&str> for Value {
    /// An interface name.
    fn from(name: &str) -> Self {
        Self::IfName(name.to_owned())
    }
}

/// Total length of a concatenation in bytes. Each part takes whole 4-byte registers, but a lone value is not padded.
pub(super) fn length(types: &[DataType]) -> usize {
    match types {
        [single] => single.length(),
        several => several.iter().map(|part| part.length().next_multiple_of(4)).sum(),
    }
}

/// The type number of a concatenation: six bits for each part, the first one highest.
pub(super) fn type_id(types: &[DataType]) -> u32 {
    types.iter().fold(0, |id, part| id << 6 | part.id())
}

/// The values as one key or datum of that type; `None` if they are not of that type.
pub(super) fn encode(types: &[DataType], values: &[Value]) -> Option<Vec<u8>> {
    if !types.iter().copied().eq(values.iter().map(Value::data_type)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(length(types));
    for value in values {
        bytes.extend_from_slice(&value.encode()?);
        if values.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    Some(bytes)
}

/// The reverse of [`encode`].
pub(super) fn decode(types: &[DataType], mut bytes: &[u8]) -> Option<Vec<Value>> {
    types
        .iter()
        .map(|part| {
            let value = part.decode(bytes.get(..part.length())?)?;
            bytes = bytes.get(part.length().next_multiple_of(4)..).unwrap_or_default();
            Some(value)
        })
        .collect()
}

/// A concatenation as `nft` prints it: `tcp . 8080`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Concatenation<'a>(pub(super) &'a [Value]);

impl fmt::Display for Concatenation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" . ")?;
            }
            value.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_take_whole_registers_but_a_lone_value_does_not() {
        let types = [DataType::InetProto, DataType::EtherAddr, DataType::InetService];
        let values = [Protocol::TCP.into(), [1, 2, 3, 4, 5, 6].into(), 0x5678.into()];
        let bytes = [6, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0x56, 0x78, 0, 0];
        assert_eq!(encode(&types, &values).unwrap(), bytes);
        assert_eq!(length(&types), bytes.len());
        assert_eq!(decode(&types, &bytes).unwrap(), values);
        assert_eq!(type_id(&types), (0b00_1100 << 12) | (0b00_1001 << 6) | 0b00_1101);

        assert_eq!(encode(&types[2..], &values[2..]).unwrap(), [0x56, 0x78]);
        assert_eq!(length(&types[2..]), 2);
    }

    #[test]
    fn values_of_another_type_number_or_shape_are_refused() {
        assert_eq!(encode(&[DataType::InetService], &[Protocol::TCP.into()]), None);
        assert_eq!(encode(&[DataType::InetService], &[80.into(), 80.into()]), None);
        assert_eq!(
            encode(&[DataType::IfName], &["abcdefghijklmnop".into()]),
            None,
            "16 bytes leave no room for the NUL"
        );
        assert_eq!(encode(&[DataType::IfName], &["".into()]), None);
        assert_eq!(decode(&[DataType::Ipv4Addr], &[10, 0, 0]), None);
    }

    #[test]
    fn values_print_as_nft_prints_them() {
        let values = [Protocol(99).into(), [2, 0, 0, 0, 0, 0xa].into(), "eth0".into(), Value::Mark(0x2000)];
        assert_eq!(Concatenation(&values).to_string(), "99 . 02:00:00:00:00:0a . \"eth0\" . 0x00002000");
    }
}
