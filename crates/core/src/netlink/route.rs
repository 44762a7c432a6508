//! Routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::Cidr;
use serde::{Deserialize, Serialize};

use super::message::{Message, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE, RouteHeader, family, hops, number};
use super::socket::NLM_F_CREATE;
use super::{Netlink, NetlinkError};
use crate::nfnetlink::{ip, ne32, parse};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;

/// A route through a link, with the attributes of CNI 1.1.0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteEntry {
    /// Destination network.
    pub dst: Cidr,
    /// Next hop; `None` for an on-link route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Path MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Advertised TCP maximum segment size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Routing table; `None` and `Some(0)` are the main table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope as `rtnetlink(7)` numbers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl RouteEntry {
    /// A route without attributes.
    pub fn new(dst: Cidr, gateway: Option<IpAddr>) -> Self {
        Self {
            dst: dst.network(),
            gateway,
            source: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }

    /// The table in effect.
    pub fn effective_table(&self) -> u32 {
        self.table.filter(|table| *table != 0).unwrap_or(u32::from(RT_TABLE_MAIN))
    }
}

impl fmt::Display for RouteEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        for (word, value) in
            [("metric", self.priority), ("table", self.table), ("mtu", self.mtu), ("advmss", self.advmss)]
        {
            if let Some(value) = value {
                write!(f, " {word} {value}")?;
            }
        }
        match self.scope {
            Some(scope) => write!(f, " scope {scope}"),
            None => Ok(()),
        }
    }
}

impl Netlink {
    /// Adds a route through a link. One that is there already in every respect is `EEXIST`.
    pub fn add_route(&mut self, index: u32, name: &str, route: &RouteEntry) -> Result<(), NetlinkError> {
        let message = message(RTM_NEWROUTE, index, route);
        self.change(&message, NLM_F_CREATE, || format!("add route {route} through {name}"))
    }

    /// Removes a route through a link.
    pub fn delete_route(&mut self, index: u32, name: &str, route: &RouteEntry) -> Result<(), NetlinkError> {
        let message = message(RTM_DELROUTE, index, route);
        self.change(&message, 0, || format!("remove route {route} through {name}"))
    }

    /// The unicast routes of a family that go through a link, in all tables.
    pub fn routes(&mut self, index: u32, ipv4: bool) -> Result<Vec<RouteEntry>, NetlinkError> {
        let header = RouteHeader { family: family(ipv4), ..RouteHeader::default() };
        let answers = self.dump(&Message::route(RTM_GETROUTE, header), || {
            format!("list routes through the link with index {index}")
        })?;
        let payloads = answers.iter().filter_map(|answer| answer.answer(RTM_NEWROUTE));
        Ok(payloads.filter_map(|payload| read(payload, index, ipv4)).collect())
    }

    /// The index of the link that packets to an address leave through; `None` if there is no route.
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let header = RouteHeader { family: family(address.is_ipv4()), prefix, ..RouteHeader::default() };
        let mut message = Message::route(RTM_GETROUTE, header);
        message.content.ip(RTA_DST, address);
        match self.get(&message, || format!("look up the route to {address}")) {
            Ok(answer) => Ok(answer.as_ref().and_then(|answer| {
                let (_, attributes) = RouteHeader::split(answer.answer(RTM_NEWROUTE)?)?;
                number(attributes, RTA_OIF)
            })),
            Err(error) if error.errno() == Some(nix::errno::Errno::ENETUNREACH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn message(kind: u16, index: u32, route: &RouteEntry) -> Message {
    let table = route.effective_table();
    let header = RouteHeader {
        family: family(route.dst.is_ipv4()),
        prefix: route.dst.prefix(),
        // A number that does not fit is in the attribute only.
        table: u8::try_from(table).unwrap_or_default(),
        protocol: RTPROT_BOOT,
        scope: match route.scope {
            Some(scope) => scope,
            // As iproute2: a route without next hop leads to the link itself. (IPv6 knows no scopes.)
            None if route.gateway.is_none() && route.dst.is_ipv4() => RT_SCOPE_LINK,
            None => RT_SCOPE_UNIVERSE,
        },
        kind: RTN_UNICAST,
    };
    let mut message = Message::route(kind, header);
    let content = &mut message.content;
    if !route.dst.is_default() {
        content.ip(RTA_DST, route.dst.network().address());
    }
    content.u32(RTA_OIF, index).u32(RTA_TABLE, table);
    for (kind, address) in [(RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)] {
        if let Some(address) = address {
            content.ip(kind, address);
        }
    }
    if let Some(priority) = route.priority {
        content.u32(RTA_PRIORITY, priority);
    }
    if route.mtu.is_some() || route.advmss.is_some() {
        content.nest_unmarked(RTA_METRICS, |metrics| {
            for (kind, value) in [(RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)] {
                if let Some(value) = value {
                    metrics.u32(kind, value);
                }
            }
        });
    }
    message
}

/// A unicast route through this link.
pub(super) fn read(payload: &[u8], index: u32, ipv4: bool) -> Option<RouteEntry> {
    let (header, attributes) = RouteHeader::split(payload)?;
    if header.kind != RTN_UNICAST {
        return None;
    }
    let unspecified: IpAddr = if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut destination = unspecified;
    let mut through = None;
    let mut route = RouteEntry::new(Cidr::new(unspecified, 0)?, None);
    route.table = Some(u32::from(header.table));
    route.scope = Some(header.scope);
    for (kind, value) in parse(attributes) {
        match kind {
            RTA_DST => destination = ip(value)?,
            RTA_GATEWAY => route.gateway = ip(value),
            RTA_PREFSRC => route.source = ip(value),
            RTA_OIF => through = ne32(value),
            RTA_TABLE => route.table = ne32(value),
            RTA_PRIORITY => route.priority = ne32(value),
            RTA_MULTIPATH => through = through.or(hops(value).find(|hop| *hop == index)),
            RTA_METRICS => {
                route.mtu = number(value, RTAX_MTU);
                route.advmss = number(value, RTAX_ADVMSS);
            }
            _ => {}
        }
    }
    route.dst = Cidr::new(destination, header.prefix)?;
    (through == Some(index)).then_some(route)
}
