//! Names and numbers of an overlay, valid by construction.

use std::fmt;
use std::str::FromStr;

use cni::{NameError, NetworkName};
use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

/// A number that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{given} is not a {what}; it is {first} to {last}")]
pub struct RangeError {
    /// What it should be.
    pub what: &'static str,
    /// What was given.
    pub given: u64,
    /// The least that is possible.
    pub first: u32,
    /// The most.
    pub last: u32,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $what:literal, $first:literal..=$last:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Takes the number if it is in its range.
            pub fn new(number: u64) -> Result<Self, RangeError> {
                let refused = || RangeError { what: $what, given: number, first: $first, last: $last };
                if !($first..=$last).contains(&number) {
                    return Err(refused());
                }
                <$inner>::try_from(number).map(Self).map_err(|_| refused())
            }

            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = deserializer.deserialize_any(Within { first: $first, last: $last })?;
                Self::new(number).map_err(de::Error::custom)
            }
        }
    };
}

number!(
    /// A VXLAN network identifier (RFC 7348, section 5): 24 bits, and not 0.
    Vni(u32), "VXLAN network identifier", 1..=16_777_215
);
number!(
    /// The UDP port that VXLAN packets are sent to, the same on all nodes of a network.
    Port(u16), "UDP port", 1..=65535
);

number!(
    /// How large a packet may be, in bytes: the least that IPv4 needs, to the most that its length can say.
    Mtu(u32), "possible MTU", 576..=65535
);

/// Reads a number whose range is narrower than its type's, so that who has written something else is told what it may be.
struct Within {
    first: u32,
    last: u32,
}

impl Within {
    fn refused<E: de::Error>(&self, found: &str) -> E {
        let Self { first, last } = self;
        E::custom(format_args!("expected a whole number from {first} to {last}, {found}"))
    }
}

impl de::Visitor<'_> for Within {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {}", self.first, self.last)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        if number < 0 { Err(self.refused("found a negative one")) } else { Ok(number.unsigned_abs()) }
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<u64, E> {
        Err(self.refused("without decimals"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        let is_number = text.trim().parse::<i128>().is_ok();
        Err(self.refused(if is_number { "without quotes" } else { "found a string" }))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<u64, E> {
        Err(self.refused("found a boolean"))
    }
}

impl Port {
    /// The port that IANA has given to VXLAN. (The kernel's own default, 8472, is older than the assignment.)
    pub const VXLAN: Self = Self(4789);
}

impl Default for Port {
    fn default() -> Self {
        Self::VXLAN
    }
}

/// The name of a node in an overlay: letters, digits, `_`, `.` and `-`, the first a letter or a digit. At most 253 bytes, as a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// Takes the name if it is valid.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.len() > 253 {
            return Err(NameError::TooLong { length: text.len() });
        }
        // The rule for names of networks is the rule for names of nodes: both are parts of paths and of keys.
        NetworkName::new(text.as_str())?;
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address or a network, by whether it is IPv4.
    pub const fn of(ipv4: bool) -> Self {
        if ipv4 { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// Whether it is IPv4.
    pub const fn is_ipv4(self) -> bool {
        matches!(self, Self::Ipv4)
    }

    /// What VXLAN adds to a packet in bytes, when this family carries it: outer IP and UDP headers, VXLAN's own, and the inner Ethernet
    /// header (RFC 7348, section 5).
    pub const fn overhead(self) -> u32 {
        match self {
            Self::Ipv4 => 20 + 8 + 8 + 14,
            Self::Ipv6 => 40 + 8 + 8 + 14,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ipv4() { "IPv4" } else { "IPv6" })
    }
}

/// What the containers of a network have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each node has blocks of addresses of its own, and packets are routed between nodes.
    #[default]
    Routed,
    /// One subnet is stretched over all nodes, and frames are switched between them.
    Bridged,
}
