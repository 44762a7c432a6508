//! Entries of the kernel's forwarding tables: neighbours, FDB entries, nexthop objects and routes, as data.

mod notice;
pub(super) mod wire;

use std::fmt;
use std::net::IpAddr;

use cni::Cidr;

use super::MacAddress;
pub use notice::is_echo;

/// The metric of an IPv6 route that is given none (`IP6_RT_PRIO_USER`); IPv4's is 0.
const DEFAULT_METRIC_IPV6: u32 = 1024;

/// A neighbour that never ages: an address on a link, and who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: MacAddress,
    /// Who made it (`NDA_PROTOCOL`): numbers as of routes.
    pub protocol: u8,
}

/// Where a VXLAN device sends frames for a hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FdbTarget {
    /// To a tunnel end.
    Vtep(IpAddr),
    /// To the tunnel ends of a group of FDB nexthops.
    Nexthops(u32),
    /// Through the link itself: an entry of a bridge for one of its ports.
    Port,
}

/// An entry of a forwarding database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fdb {
    /// Index of the VXLAN device, or of the port of a bridge.
    pub link: u32,
    /// The hardware address; all zeros for frames that no other entry is for, of which there may be several.
    pub mac: MacAddress,
    /// Where to.
    pub target: FdbTarget,
    /// The bridge that the link is a port of has an entry too, so that it need not learn.
    pub bridge: bool,
}

/// What a nexthop object leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NexthopKind {
    /// Through a link to a gateway that is on it.
    Gateway {
        /// Index of the link.
        link: u32,
        /// The gateway.
        gateway: IpAddr,
    },
    /// A tunnel end, for FDB entries.
    Vtep(IpAddr),
    /// A group of tunnel ends, for FDB entries.
    VtepGroup(Vec<u32>),
    /// Something that is not made here.
    Other,
}

/// A nexthop object (Linux 5.3; for FDB entries 5.8).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexthop {
    /// Its identifier in this network namespace.
    pub id: u32,
    /// What it leads to.
    pub kind: NexthopKind,
    /// Who made it: numbers as of routes.
    pub protocol: u8,
}

/// Which way a route goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// A nexthop object.
    Nexthop(u32),
    /// Through a link to a gateway that is on it whatever the addresses say.
    Gateway {
        /// Index of the link.
        link: u32,
        /// The gateway.
        gateway: IpAddr,
    },
    /// Nowhere: packets are dropped without an answer.
    Blackhole,
    /// Something that is not made here.
    Other,
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixRoute {
    /// Destination network.
    pub destination: Cidr,
    /// Which way.
    pub way: Way,
    /// Metric; [`PrefixRoute::usual_metric`] where none is wanted.
    pub metric: u32,
    /// Who made it.
    pub protocol: u8,
}

impl PrefixRoute {
    /// The metric that the kernel gives a route of a family which is made without one.
    pub const fn usual_metric(ipv4: bool) -> u32 {
        if ipv4 { 0 } else { DEFAULT_METRIC_IPV6 }
    }
}

/// An entry of one of the tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// Of the neighbour table.
    Neighbour(Neighbour),
    /// Of a forwarding database.
    Fdb(Fdb),
    /// A nexthop object.
    Nexthop(Nexthop),
    /// Of the routing table.
    Route(PrefixRoute),
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make it, or make it so where there is one for the same key.
    Set(Entry),
    /// Remove it. That there is none is no error.
    Remove(Entry),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neighbour(n) => write!(f, "neighbour {} at {} on link {}", n.address, n.mac, n.link),
            Self::Fdb(fdb) => {
                write!(f, "FDB entry {} on link {}", fdb.mac, fdb.link)?;
                match fdb.target {
                    FdbTarget::Vtep(address) => write!(f, " to {address}"),
                    FdbTarget::Nexthops(id) => write!(f, " to nexthop group {id}"),
                    FdbTarget::Port => Ok(()),
                }
            }
            Self::Nexthop(nexthop) => {
                write!(f, "nexthop {}", nexthop.id)?;
                match &nexthop.kind {
                    NexthopKind::Gateway { link, gateway } => write!(f, " via {gateway} on link {link}"),
                    NexthopKind::Vtep(address) => write!(f, " to {address}"),
                    NexthopKind::VtepGroup(members) => write!(f, " of the nexthops {members:?}"),
                    NexthopKind::Other => Ok(()),
                }
            }
            Self::Route(route) => {
                write!(f, "route {}", route.destination)?;
                match route.way {
                    Way::Nexthop(id) => write!(f, " by nexthop {id}")?,
                    Way::Gateway { link, gateway } => write!(f, " via {gateway} on link {link}")?,
                    Way::Blackhole => write!(f, " to nowhere")?,
                    Way::Other => {}
                }
                write!(f, " metric {}", route.metric)
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(entry) => write!(f, "set {entry}"),
            Self::Remove(entry) => write!(f, "remove {entry}"),
        }
    }
}
