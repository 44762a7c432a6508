//! IP addresses as the Go plugins read them: strictly.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::json::shorten;

/// Why a text is not an address or a CIDR.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not an IPv4 or IPv6 address.
    #[error("`{text}` is not an IP address")]
    Address {
        /// What was given.
        text: String,
    },
    /// Not `address/prefix-length`.
    #[error("`{text}` is not in CIDR notation, such as 10.1.0.0/16 or fd00::/64")]
    Cidr {
        /// What was given.
        text: String,
    },
}

/// An address with the length of its network prefix. Host bits are kept: `10.1.0.5/16` stays that.
///
/// Parsing follows Go's `net.ParseCIDR`: a bare address, a dotted mask and a signed length are refused, an IPv4-mapped
/// IPv6 address is IPv4 (as Go's `net.IP` prints it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNetwork);

impl Cidr {
    /// An address and its prefix length in bits; `None` if the length is too large for the family.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        IpNetwork::new(address, prefix).ok().map(Self)
    }

    /// The address alone, as a network of one: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        Self(IpNetwork::from(address))
    }

    /// The address, host bits included.
    pub fn address(&self) -> IpAddr {
        self.0.ip()
    }

    /// Prefix length in bits.
    pub fn prefix(&self) -> u8 {
        self.0.prefix()
    }

    /// Bits of an address of this family: 32 or 128.
    pub fn bits(&self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    /// Whether this is IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.0.is_ipv4()
    }

    /// The network: the same prefix with all host bits zero.
    #[must_use]
    pub fn network(&self) -> Self {
        Self::new(self.0.network(), self.prefix()).unwrap_or(*self)
    }

    /// The last address of the network (the broadcast address in IPv4).
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Whether an address lies in the network; false across families.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether the two networks share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network().address()) || other.contains(self.network().address())
    }

    /// Whether this is a default route's destination: `0.0.0.0/0` or `::/0`.
    pub fn is_default(&self) -> bool {
        self.prefix() == 0
    }
}

impl FromStr for Cidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = || AddressError::Cidr { text: shorten(text) };
        let (address, length) = text.split_once('/').ok_or_else(refused)?;
        // Leading zeros are allowed in the length (not in the address), a sign is not.
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        let length: u8 = length.parse().ok().ok_or_else(refused)?;
        let address: IpAddr = address.parse().ok().ok_or_else(refused)?;
        match (address, canonical(address)) {
            // Go keeps a mapped address in 16 bytes with a 128-bit mask and prints it as IPv4. A prefix that reaches into the first
            // 96 bits has no IPv4 form (Go makes a /0 of it, a default route nobody asked for), so it is refused.
            (IpAddr::V6(_), IpAddr::V4(v4)) => {
                let length = length.checked_sub(96).ok_or_else(refused)?;
                Self::new(IpAddr::V4(v4), length).ok_or_else(refused)
            }
            (address, _) => Self::new(address, length).ok_or_else(refused),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix())
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Parses an address, an IPv4-mapped one as IPv4.
pub fn parse_ip(text: &str) -> Result<IpAddr, AddressError> {
    text.parse().ok().map(canonical).ok_or_else(|| AddressError::Address { text: shorten(text) })
}

/// Parses `address` or `address/prefix`, the form of requested addresses (`ips`, `IP=`), and returns both parts.
pub fn parse_ip_maybe_prefix(text: &str) -> Result<(IpAddr, Option<u8>), AddressError> {
    if text.contains('/') {
        text.parse::<Cidr>().map(|cidr| (cidr.address(), Some(cidr.prefix())))
    } else {
        parse_ip(text).map(|address| (address, None))
    }
}

/// An IPv4-mapped IPv6 address as IPv4, anything else unchanged.
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The address after this one; `None` after the last of the family.
pub fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The address before this one; `None` before the first of the family.
pub fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

#[cfg(test)]
mod tests;
