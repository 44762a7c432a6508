//! Entries as the kernel reads and lists them. Numbers are those of `linux/neighbour.h`, `linux/nexthop.h` and `linux/rtnetlink.h`.
//!
//! They are encoded here rather than by `rtnetlink`, whose crate has no nexthop objects and no FDB entries that point at them; and straight into
//! the buffer that is sent, since there are hundreds of thousands of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::Cidr;

use super::{Change, Entry, Fdb, FdbTarget, Neighbour, Nexthop, NexthopKind, PrefixRoute, Way};
use crate::netlink::MacAddress;
use crate::nfnetlink::{ip, ne32, parse};

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

pub(in crate::netlink) const RTM_NEWROUTE: u16 = 24;
pub(in crate::netlink) const RTM_NEWNEIGH: u16 = 28;
pub(in crate::netlink) const RTM_NEWNEXTHOP: u16 = 104;
/// From the message that makes something to the one that removes it, and to the one that lists.
pub(in crate::netlink) const DELETE: u16 = 1;
pub(in crate::netlink) const GET: u16 = 2;

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

const NDMSG: usize = 12;
const NHMSG: usize = 8;
const RTMSG: usize = 12;

impl Change {
    /// Type of the message, and flags beside `NLM_F_REQUEST`.
    pub(in crate::netlink) fn kind(&self) -> (u16, u16) {
        let replace = NLM_F_CREATE | NLM_F_REPLACE;
        match self {
            Self::Set(entry) => match entry {
                // There may be several for the zero address, so one does not take another's place.
                Entry::Fdb(fdb) if fdb.mac.0 == [0; 6] => (RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND),
                Entry::Neighbour(_) | Entry::Fdb(_) => (RTM_NEWNEIGH, replace),
                Entry::Nexthop(_) => (RTM_NEWNEXTHOP, replace),
                Entry::Route(_) => (RTM_NEWROUTE, replace),
            },
            Self::Remove(entry) => match entry {
                Entry::Neighbour(_) | Entry::Fdb(_) => (RTM_NEWNEIGH + DELETE, 0),
                Entry::Nexthop(_) => (RTM_NEWNEXTHOP + DELETE, 0),
                Entry::Route(_) => (RTM_NEWROUTE + DELETE, 0),
            },
        }
    }

    /// The content of the message, appended.
    pub(in crate::netlink) fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Remove(Entry::Nexthop(nexthop)) => {
                nexthop_header(into, 0, 0, 0);
                number(into, NHA_ID, nexthop.id);
            }
            Self::Set(entry) | Self::Remove(entry) => match entry {
                Entry::Neighbour(neighbour) => neighbour.encode(into),
                Entry::Fdb(fdb) => fdb.encode(into),
                Entry::Nexthop(nexthop) => nexthop.encode(into),
                Entry::Route(route) => route.encode(into),
            },
        }
    }
}

fn family(address: &IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// Appends an attribute. None is longer than a group of nexthops, whose number the kernel limits to 256.
fn attribute(into: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(payload);
    into.resize(into.len().next_multiple_of(4), 0);
}

fn octets(into: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => attribute(into, kind, &v4.octets()),
        IpAddr::V6(v6) => attribute(into, kind, &v6.octets()),
    }
}

fn number(into: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(into, kind, &value.to_ne_bytes());
}

/// `struct ndmsg`.
fn neighbour_header(into: &mut Vec<u8>, family: u8, link: u32, state: u16, flags: u8) {
    into.extend_from_slice(&[family, 0, 0, 0]);
    into.extend_from_slice(&link.to_ne_bytes());
    into.extend_from_slice(&state.to_ne_bytes());
    into.extend_from_slice(&[flags, 0]);
}

/// The fixed part of a listed neighbour or FDB entry.
struct Heard<'a> {
    link: u32,
    state: u16,
    flags: u8,
    attributes: &'a [u8],
}

fn heard(payload: &[u8]) -> Option<Heard<'_>> {
    Some(Heard {
        link: ne32(payload.get(4..8)?)?,
        state: payload.get(8..10)?.try_into().ok().map(u16::from_ne_bytes)?,
        flags: *payload.get(10)?,
        attributes: payload.get(NDMSG..)?,
    })
}

impl Neighbour {
    fn encode(&self, into: &mut Vec<u8>) {
        neighbour_header(into, family(&self.address), self.link, NUD_PERMANENT, 0);
        octets(into, NDA_DST, self.address);
        attribute(into, NDA_LLADDR, &self.mac.0);
        attribute(into, NDA_PROTOCOL, &[self.protocol]);
    }

    /// The request that lists the neighbours of a link.
    pub(in crate::netlink) fn list(link: u32, ipv4: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        neighbour_header(&mut bytes, if ipv4 { AF_INET } else { AF_INET6 }, 0, 0, 0);
        number(&mut bytes, NDA_IFINDEX, link);
        bytes
    }

    /// A permanent neighbour from a listing; `None` for one that the kernel found by itself.
    pub(in crate::netlink) fn decode(payload: &[u8]) -> Option<Self> {
        let heard = heard(payload)?;
        if heard.state & NUD_PERMANENT == 0 {
            return None;
        }
        let mut mac = None;
        let mut destination = None;
        let mut protocol = 0;
        for (kind, value) in parse(heard.attributes) {
            match kind {
                NDA_DST => destination = ip(value),
                NDA_LLADDR => mac = value.try_into().ok().map(MacAddress),
                NDA_PROTOCOL => protocol = value.first().copied().unwrap_or_default(),
                _ => {}
            }
        }
        Some(Self { link: heard.link, address: destination?, mac: mac?, protocol })
    }
}

impl Fdb {
    fn encode(&self, into: &mut Vec<u8>) {
        let (state, flags) = match (self.target, self.bridge) {
            (FdbTarget::Port, _) => (NUD_NOARP, NTF_MASTER),
            // To a bridge, `permanent` would mean an address of its own; to the device, `noarp` alone means nothing.
            (_, true) => (NUD_NOARP | NUD_REACHABLE, NTF_SELF | NTF_MASTER),
            (_, false) => (NUD_PERMANENT | NUD_NOARP, NTF_SELF),
        };
        neighbour_header(into, AF_BRIDGE, self.link, state, flags);
        attribute(into, NDA_LLADDR, &self.mac.0);
        match self.target {
            FdbTarget::Vtep(vtep) => octets(into, NDA_DST, vtep),
            FdbTarget::Nexthops(id) => number(into, NDA_NH_ID, id),
            FdbTarget::Port => {}
        }
    }

    /// The request that lists the entries of a link.
    pub(in crate::netlink) fn list(link: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        neighbour_header(&mut bytes, AF_BRIDGE, link, 0, 0);
        bytes
    }

    /// A static entry from a listing. What a VXLAN device has and what its bridge has for it are two.
    pub(in crate::netlink) fn decode(payload: &[u8]) -> Option<Self> {
        let heard = heard(payload)?;
        let mut mac = None;
        let mut target = None;
        let mut master = false;
        for (kind, value) in parse(heard.attributes) {
            match kind {
                NDA_LLADDR => mac = value.try_into().ok().map(MacAddress),
                NDA_DST => target = ip(value).map(FdbTarget::Vtep),
                NDA_NH_ID => target = ne32(value).map(FdbTarget::Nexthops),
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

/// What an entry is for, without what it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Neighbour(u32, IpAddr),
    Fdb(u32, MacAddress),
    Nexthop(u32),
    Route(Cidr, u32),
}

impl Key {
    pub(super) fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Neighbour(neighbour) => Self::Neighbour(neighbour.link, neighbour.address),
            Entry::Fdb(fdb) => Self::Fdb(fdb.link, fdb.mac),
            Entry::Nexthop(nexthop) => Self::Nexthop(nexthop.id),
            Entry::Route(route) => Self::Route(route.destination, route.metric),
        }
    }

    /// Whether a message about neighbours is about those of a bridge or a VXLAN device.
    pub(super) fn is_of_fdb(payload: &[u8]) -> bool {
        payload.first() == Some(&AF_BRIDGE)
    }
}

/// The key of the entry that a message is about, whether it makes the entry or removes it.
pub(super) fn key(kind: u16, payload: &[u8]) -> Option<Key> {
    match kind & !DELETE {
        RTM_NEWNEIGH => {
            let heard = heard(payload)?;
            let value =
                |wanted| parse(heard.attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
            if Key::is_of_fdb(payload) {
                Some(Key::Fdb(heard.link, MacAddress(value(NDA_LLADDR)?.try_into().ok()?)))
            } else {
                Some(Key::Neighbour(heard.link, ip(value(NDA_DST)?)?))
            }
        }
        RTM_NEWNEXTHOP => Nexthop::decode(payload).map(|nexthop| Key::Nexthop(nexthop.id)),
        RTM_NEWROUTE => PrefixRoute::decode(payload).map(|route| Key::Route(route.destination, route.metric)),
        _ => None,
    }
}

/// `struct nhmsg`.
fn nexthop_header(into: &mut Vec<u8>, family: u8, protocol: u8, flags: u32) {
    into.extend_from_slice(&[family, 0, protocol, 0]);
    into.extend_from_slice(&flags.to_ne_bytes());
}

impl Nexthop {
    fn encode(&self, into: &mut Vec<u8>) {
        match &self.kind {
            NexthopKind::Gateway { link, gateway } => {
                nexthop_header(into, family(gateway), self.protocol, ONLINK);
                number(into, NHA_ID, self.id);
                number(into, NHA_OIF, *link);
                octets(into, NHA_GATEWAY, *gateway);
            }
            NexthopKind::Vtep(vtep) => {
                nexthop_header(into, family(vtep), self.protocol, 0);
                number(into, NHA_ID, self.id);
                octets(into, NHA_GATEWAY, *vtep);
                attribute(into, NHA_FDB, &[]);
            }
            NexthopKind::VtepGroup(members) => {
                nexthop_header(into, 0, self.protocol, 0);
                number(into, NHA_ID, self.id);
                let entry = |member: &u32| [member.to_ne_bytes(), [0; 4]].concat();
                attribute(into, NHA_GROUP, &members.iter().flat_map(entry).collect::<Vec<_>>());
                attribute(into, NHA_FDB, &[]);
            }
            NexthopKind::Other => {
                nexthop_header(into, 0, self.protocol, 0);
                number(into, NHA_ID, self.id);
            }
        }
    }

    /// The request that lists all nexthop objects.
    pub(in crate::netlink) fn list() -> Vec<u8> {
        let mut bytes = Vec::new();
        nexthop_header(&mut bytes, 0, 0, 0);
        bytes
    }

    /// A request for a list that is empty, which only a kernel understands that has nexthops for FDB entries: of those through `lo`.
    pub(in crate::netlink) fn list_of_none() -> Vec<u8> {
        let mut bytes = Self::list();
        number(&mut bytes, NHA_OIF, 1);
        attribute(&mut bytes, NHA_FDB, &[]);
        bytes
    }

    pub(in crate::netlink) fn decode(payload: &[u8]) -> Option<Self> {
        let protocol = *payload.get(2)?;
        let (mut id, mut link, mut gateway, mut fdb, mut group) = (None, None, None, false, None);
        for (kind, value) in parse(payload.get(NHMSG..)?) {
            match kind {
                NHA_ID => id = ne32(value),
                NHA_OIF => link = ne32(value),
                NHA_GATEWAY => gateway = ip(value),
                NHA_FDB => fdb = true,
                NHA_GROUP => {
                    group = Some(value.chunks_exact(8).filter_map(|m| ne32(m.get(..4)?)).collect::<Vec<_>>());
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

impl PrefixRoute {
    fn encode(&self, into: &mut Vec<u8>) {
        let destination = self.destination.network();
        let (kind, flags) = match self.way {
            Way::Gateway { .. } => (RTN_UNICAST, ONLINK),
            Way::Blackhole => (RTN_BLACKHOLE, 0),
            Way::Nexthop(_) | Way::Other => (RTN_UNICAST, 0),
        };
        route_header(into, destination.is_ipv4(), destination.prefix(), self.protocol, kind, flags);
        octets(into, RTA_DST, destination.address());
        number(into, RTA_PRIORITY, self.metric);
        match self.way {
            Way::Nexthop(id) => number(into, RTA_NH_ID, id),
            Way::Gateway { link, gateway } => {
                number(into, RTA_OIF, link);
                octets(into, RTA_GATEWAY, gateway);
            }
            Way::Blackhole | Way::Other => {}
        }
    }

    /// The request that lists the routes of the main table that somebody has made.
    pub(in crate::netlink) fn list(ipv4: bool, protocol: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        route_header(&mut bytes, ipv4, 0, protocol, 0, 0);
        number(&mut bytes, RTA_TABLE, u32::from(RT_TABLE_MAIN));
        bytes
    }

    pub(in crate::netlink) fn decode(payload: &[u8]) -> Option<Self> {
        let ipv4 = *payload.first()? == AF_INET;
        let prefix = *payload.get(1)?;
        let (table, protocol, kind) = (*payload.get(4)?, *payload.get(5)?, *payload.get(7)?);
        if table != RT_TABLE_MAIN {
            return None;
        }
        let unspecified: IpAddr =
            if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let (mut destination, mut metric) = (unspecified, 0);
        let (mut link, mut gateway, mut nexthop) = (None, None, None);
        for (attribute, value) in parse(payload.get(RTMSG..)?) {
            match attribute {
                RTA_DST => destination = ip(value)?,
                RTA_OIF => link = ne32(value),
                RTA_GATEWAY => gateway = ip(value),
                RTA_PRIORITY => metric = ne32(value)?,
                RTA_NH_ID => nexthop = ne32(value),
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
        Some(Self { destination: Cidr::new(destination, prefix)?, way, metric, protocol })
    }
}

/// `struct rtmsg`.
fn route_header(into: &mut Vec<u8>, ipv4: bool, prefix: u8, protocol: u8, kind: u8, flags: u32) {
    let family = if ipv4 { AF_INET } else { AF_INET6 };
    into.extend_from_slice(&[family, prefix, 0, 0, RT_TABLE_MAIN, protocol, 0, kind]);
    into.extend_from_slice(&flags.to_ne_bytes());
}
