//! Entries of the kernel's forwarding tables: neighbours, FDB entries, nexthop objects and routes, as data with their wire form.
//!
//! They are encoded here rather than by `rtnetlink`, whose crate has no nexthop objects and no FDB entries that point at them. Numbers are those
//! of `linux/neighbour.h`, `linux/nexthop.h` and `linux/rtnetlink.h`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::Cidr;

use super::MacAddress;
use crate::nfnetlink::{Attributes, parse};

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
/// From the message that makes something to the one that removes it, and to the one that lists.
pub(super) const DELETE: u16 = 1;
pub(super) const GET: u16 = 2;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NUD_REACHABLE: u16 = 0x02;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_MASTER: u8 = 0x04;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
const NDA_MASTER: u16 = 9;
const NDA_PROTOCOL: u16 = 12;
const NDA_NH_ID: u16 = 13;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_FDB: u16 = 11;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;
const RTA_NH_ID: u16 = 30;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
/// The next hop is on the link whatever the addresses say (`RTNH_F_ONLINK`).
const ONLINK: u32 = 4;

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
                    NexthopKind::VtepGroup(_) | NexthopKind::Other => Ok(()),
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

impl Change {
    /// Type, flags beside `NLM_F_REQUEST`, and content of the message.
    pub(super) fn encode(&self) -> (u16, u16, Vec<u8>) {
        match self {
            Self::Set(entry) => {
                let replace = NLM_F_CREATE | NLM_F_REPLACE;
                match entry {
                    Entry::Neighbour(neighbour) => (RTM_NEWNEIGH, replace, neighbour.encode()),
                    // There may be several for the zero address, so one does not take another's place.
                    Entry::Fdb(fdb) if fdb.mac.0 == [0; 6] => {
                        (RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, fdb.encode())
                    }
                    Entry::Fdb(fdb) => (RTM_NEWNEIGH, replace, fdb.encode()),
                    Entry::Nexthop(nexthop) => (RTM_NEWNEXTHOP, replace, nexthop.encode()),
                    Entry::Route(route) => (RTM_NEWROUTE, replace, route.encode()),
                }
            }
            Self::Remove(entry) => match entry {
                Entry::Neighbour(neighbour) => (RTM_NEWNEIGH + DELETE, 0, neighbour.encode()),
                Entry::Fdb(fdb) => (RTM_NEWNEIGH + DELETE, 0, fdb.encode()),
                Entry::Nexthop(nexthop) => (RTM_NEWNEXTHOP + DELETE, 0, nexthop.encode_key()),
                Entry::Route(route) => (RTM_NEWROUTE + DELETE, 0, route.encode()),
            },
        }
    }
}

fn family(address: &IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(attributes: &mut Attributes, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => attributes.bytes(kind, &v4.octets()),
        IpAddr::V6(v6) => attributes.bytes(kind, &v6.octets()),
    };
}

fn number(attributes: &mut Attributes, kind: u16, value: u32) {
    attributes.bytes(kind, &value.to_ne_bytes());
}

fn address(payload: &[u8]) -> Option<IpAddr> {
    match payload.len() {
        4 => <[u8; 4]>::try_from(payload).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => <[u8; 16]>::try_from(payload).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

fn u32_of(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_ne_bytes)
}

/// `struct ndmsg`, then attributes.
fn neighbour_message(family: u8, link: u32, state: u16, flags: u8, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0];
    bytes.extend(link.to_ne_bytes());
    bytes.extend(state.to_ne_bytes());
    bytes.extend([flags, 0]);
    bytes.extend(attributes.as_bytes());
    bytes
}

const NDMSG: usize = 12;

/// The fixed part of a listed neighbour or FDB entry.
struct Heard<'a> {
    link: u32,
    state: u16,
    flags: u8,
    attributes: &'a [u8],
}

fn heard(payload: &[u8]) -> Option<Heard<'_>> {
    Some(Heard {
        link: u32_of(payload.get(4..8)?)?,
        state: payload.get(8..10)?.try_into().ok().map(u16::from_ne_bytes)?,
        flags: *payload.get(10)?,
        attributes: payload.get(NDMSG..)?,
    })
}

impl Neighbour {
    fn encode(&self) -> Vec<u8> {
        let mut attributes = Attributes::new();
        octets(&mut attributes, NDA_DST, self.address);
        attributes.bytes(NDA_LLADDR, &self.mac.0);
        attributes.bytes(NDA_PROTOCOL, &[self.protocol]);
        neighbour_message(family(&self.address), self.link, NUD_PERMANENT, 0, &attributes)
    }

    /// The request that lists the neighbours of a link.
    pub(super) fn list(link: u32, ipv4: bool) -> Vec<u8> {
        let mut attributes = Attributes::new();
        number(&mut attributes, NDA_IFINDEX, link);
        neighbour_message(if ipv4 { AF_INET } else { AF_INET6 }, 0, 0, 0, &attributes)
    }

    /// A permanent neighbour from a listing; `None` for one that the kernel found by itself.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let heard = heard(payload)?;
        let mut mac = None;
        let mut destination = None;
        let mut protocol = 0;
        for (kind, value) in parse(heard.attributes) {
            match kind {
                NDA_DST => destination = address(value),
                NDA_LLADDR => mac = value.try_into().ok().map(MacAddress),
                NDA_PROTOCOL => protocol = value.first().copied().unwrap_or_default(),
                _ => {}
            }
        }
        let permanent = heard.state & NUD_PERMANENT != 0;
        Some(Self { link: heard.link, address: destination?, mac: mac?, protocol }).filter(|_| permanent)
    }
}

impl Fdb {
    fn encode(&self) -> Vec<u8> {
        let mut attributes = Attributes::new();
        attributes.bytes(NDA_LLADDR, &self.mac.0);
        match self.target {
            FdbTarget::Vtep(vtep) => octets(&mut attributes, NDA_DST, vtep),
            FdbTarget::Nexthops(id) => number(&mut attributes, NDA_NH_ID, id),
            FdbTarget::Port => {}
        }
        let (state, flags) = match (self.target, self.bridge) {
            (FdbTarget::Port, _) => (NUD_NOARP, NTF_MASTER),
            // To a bridge, `permanent` would mean an address of its own; to the device, `noarp` alone means nothing.
            (_, true) => (NUD_NOARP | NUD_REACHABLE, NTF_SELF | NTF_MASTER),
            (_, false) => (NUD_PERMANENT | NUD_NOARP, NTF_SELF),
        };
        neighbour_message(AF_BRIDGE, self.link, state, flags, &attributes)
    }

    /// The request that lists the entries of a link.
    pub(super) fn list(link: u32) -> Vec<u8> {
        neighbour_message(AF_BRIDGE, link, 0, 0, &Attributes::new())
    }

    /// A static entry from a listing. What a VXLAN device has and what its bridge has for it are two.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let heard = heard(payload)?;
        let mut mac = None;
        let mut target = None;
        let mut master = false;
        for (kind, value) in parse(heard.attributes) {
            match kind {
                NDA_LLADDR => mac = value.try_into().ok().map(MacAddress),
                NDA_DST => target = address(value).map(FdbTarget::Vtep),
                NDA_NH_ID => target = u32_of(value).map(FdbTarget::Nexthops),
                NDA_MASTER => master = true,
                _ => {}
            }
        }
        let of_bridge = master && heard.flags & NTF_SELF == 0;
        // A bridge's own addresses on the port (`permanent`), and what was learnt, are nobody's business here.
        let static_entry = heard.state & NUD_NOARP != 0 && heard.state & NUD_PERMANENT == 0;
        match target {
            // What a device has learnt ages.
            Some(target) if !of_bridge && heard.state & (NUD_PERMANENT | NUD_NOARP) != 0 => {
                Some(Self { link: heard.link, mac: mac?, target, bridge: false })
            }
            _ if of_bridge && static_entry => {
                Some(Self { link: heard.link, mac: mac?, target: FdbTarget::Port, bridge: true })
            }
            _ => None,
        }
    }
}

/// `struct nhmsg`, then attributes.
fn nexthop_message(family: u8, protocol: u8, flags: u32, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = vec![family, 0, protocol, 0];
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(attributes.as_bytes());
    bytes
}

const NHMSG: usize = 8;

impl Nexthop {
    fn encode(&self) -> Vec<u8> {
        let mut attributes = Attributes::new();
        number(&mut attributes, NHA_ID, self.id);
        match &self.kind {
            NexthopKind::Gateway { link, gateway } => {
                number(&mut attributes, NHA_OIF, *link);
                octets(&mut attributes, NHA_GATEWAY, *gateway);
                nexthop_message(family(gateway), self.protocol, ONLINK, &attributes)
            }
            NexthopKind::Vtep(vtep) => {
                octets(&mut attributes, NHA_GATEWAY, *vtep);
                attributes.bytes(NHA_FDB, &[]);
                nexthop_message(family(vtep), self.protocol, 0, &attributes)
            }
            NexthopKind::VtepGroup(members) => {
                let mut group = Vec::with_capacity(members.len() * 8);
                for member in members {
                    group.extend(member.to_ne_bytes());
                    group.extend([0; 4]);
                }
                attributes.bytes(NHA_GROUP, &group);
                attributes.bytes(NHA_FDB, &[]);
                nexthop_message(0, self.protocol, 0, &attributes)
            }
            NexthopKind::Other => nexthop_message(0, self.protocol, 0, &attributes),
        }
    }

    fn encode_key(&self) -> Vec<u8> {
        let mut attributes = Attributes::new();
        number(&mut attributes, NHA_ID, self.id);
        nexthop_message(0, 0, 0, &attributes)
    }

    /// The request that lists all nexthop objects.
    pub(super) fn list() -> Vec<u8> {
        nexthop_message(0, 0, 0, &Attributes::new())
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let protocol = *payload.get(2)?;
        let (mut id, mut link, mut gateway, mut fdb, mut group) = (None, None, None, false, None);
        for (kind, value) in parse(payload.get(NHMSG..)?) {
            match kind {
                NHA_ID => id = u32_of(value),
                NHA_OIF => link = u32_of(value),
                NHA_GATEWAY => gateway = address(value),
                NHA_FDB => fdb = true,
                NHA_GROUP => {
                    group =
                        Some(value.chunks_exact(8).filter_map(|m| u32_of(m.get(..4)?)).collect::<Vec<_>>());
                }
                _ => {}
            }
        }
        let kind = match (group, fdb, link, gateway) {
            (Some(members), true, ..) => NexthopKind::VtepGroup(members),
            (None, true, _, Some(vtep)) => NexthopKind::Vtep(vtep),
            (None, false, Some(link), Some(gateway)) => NexthopKind::Gateway { link, gateway },
            _ => NexthopKind::Other,
        };
        Some(Self { id: id?, kind, protocol })
    }
}

const RTMSG: usize = 12;

impl PrefixRoute {
    fn encode(&self) -> Vec<u8> {
        let mut attributes = Attributes::new();
        let destination = self.destination.network();
        octets(&mut attributes, RTA_DST, destination.address());
        number(&mut attributes, RTA_PRIORITY, self.metric);
        let (kind, flags) = match self.way {
            Way::Nexthop(id) => {
                number(&mut attributes, RTA_NH_ID, id);
                (RTN_UNICAST, 0)
            }
            Way::Gateway { link, gateway } => {
                number(&mut attributes, RTA_OIF, link);
                octets(&mut attributes, RTA_GATEWAY, gateway);
                (RTN_UNICAST, ONLINK)
            }
            Way::Blackhole => (RTN_BLACKHOLE, 0),
            Way::Other => (RTN_UNICAST, 0),
        };
        let mut bytes = route_header(destination.is_ipv4(), destination.prefix(), self.protocol, kind, flags);
        bytes.extend(attributes.as_bytes());
        bytes
    }

    /// The request that lists the routes of the main table that somebody has made.
    pub(super) fn list(ipv4: bool, protocol: u8) -> Vec<u8> {
        let mut attributes = Attributes::new();
        number(&mut attributes, RTA_TABLE, u32::from(RT_TABLE_MAIN));
        let mut bytes = route_header(ipv4, 0, protocol, 0, 0);
        bytes.extend(attributes.as_bytes());
        bytes
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let ipv4 = *payload.first()? == AF_INET;
        let prefix = *payload.get(1)?;
        let (table, protocol, kind) = (*payload.get(4)?, *payload.get(5)?, *payload.get(7)?);
        let unspecified: IpAddr =
            if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let (mut destination, mut metric) = (unspecified, 0);
        let (mut link, mut gateway, mut nexthop) = (None, None, None);
        for (attribute, value) in parse(payload.get(RTMSG..)?) {
            match attribute {
                RTA_DST => destination = address(value)?,
                RTA_OIF => link = u32_of(value),
                RTA_GATEWAY => gateway = address(value),
                RTA_PRIORITY => metric = u32_of(value)?,
                RTA_NH_ID => nexthop = u32_of(value),
                _ => {}
            }
        }
        // A route by a nexthop object shows where that leads as well.
        let way = match (kind, nexthop, link, gateway) {
            (RTN_BLACKHOLE, ..) => Way::Blackhole,
            (RTN_UNICAST, Some(id), ..) => Way::Nexthop(id),
            (RTN_UNICAST, None, Some(link), Some(gateway)) => Way::Gateway { link, gateway },
            _ => Way::Other,
        };
        let destination = Cidr::new(destination, prefix)?;
        Some(Self { destination, way, metric, protocol }).filter(|_| table == RT_TABLE_MAIN)
    }
}

fn route_header(ipv4: bool, prefix: u8, protocol: u8, kind: u8, flags: u32) -> Vec<u8> {
    let family = if ipv4 { AF_INET } else { AF_INET6 };
    let mut bytes = vec![family, prefix, 0, 0, RT_TABLE_MAIN, protocol, 0, kind];
    bytes.extend(flags.to_ne_bytes());
    bytes
}
