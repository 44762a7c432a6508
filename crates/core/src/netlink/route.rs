//! Routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::Cidr;
use netlink_packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::{Netlink, NetlinkError};

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
        self.table.filter(|table| *table != 0).unwrap_or(u32::from(RouteHeader::RT_TABLE_MAIN))
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
        let message = message(index, route);
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE, || {
            format!("add route {route} through {name}")
        })
    }

    /// Removes a route through a link.
    pub fn delete_route(&mut self, index: u32, name: &str, route: &RouteEntry) -> Result<(), NetlinkError> {
        let message = message(index, route);
        self.change(RouteNetlinkMessage::DelRoute(message), 0, || {
            format!("remove route {route} through {name}")
        })
    }

    /// The unicast routes of a family that go through a link, in all tables.
    pub fn routes(&mut self, index: u32, ipv4: bool) -> Result<Vec<RouteEntry>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let answers = self.dump(&RouteNetlinkMessage::GetRoute(message), || {
            format!("list routes through the link with index {index}")
        })?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) if message.header.kind == RouteType::Unicast => {
                    read(&message, index, ipv4)
                }
                _ => None,
            })
            .collect())
    }

    /// The index of the link that packets to an address leave through; `None` if there is no route.
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family =
            if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let answer =
            self.get(RouteNetlinkMessage::GetRoute(message), || format!("look up the route to {address}"));
        match answer {
            Ok(Some(RouteNetlinkMessage::NewRoute(message))) => {
                Ok(message.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.errno() == Some(nix::errno::Errno::ENETUNREACH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn message(index: u32, route: &RouteEntry) -> RouteMessage {
    let mut message = RouteMessage::default();
    let table = route.effective_table();
    message.header.address_family =
        if route.dst.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = route.dst.prefix();
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.scope {
        Some(scope) => RouteScope::from(scope),
        // As iproute2: a route without next hop leads to the link itself. (IPv6 knows no scopes.)
        None if route.gateway.is_none() && route.dst.is_ipv4() => RouteScope::Link,
        None => RouteScope::Universe,
    };
    if !route.dst.is_default() {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(route.dst.network().address())));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.push(RouteAttribute::Table(table));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message.attributes.extend(route.priority.map(RouteAttribute::Priority));
    let metrics: Vec<RouteMetric> =
        route.mtu.map(RouteMetric::Mtu).into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

pub(super) fn read(message: &RouteMessage, index: u32, ipv4: bool) -> Option<RouteEntry> {
    let unspecified: IpAddr = if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut destination = unspecified;
    let mut through = None;
    let mut route = RouteEntry::new(Cidr::new(unspecified, 0)?, None);
    route.table = Some(u32::from(message.header.table));
    route.scope = Some(u8::from(message.header.scope));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Oif(oif) => through = Some(*oif),
            RouteAttribute::Table(table) => route.table = Some(*table),
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            RouteAttribute::MultiPath(hops) => {
                through = through.or(hops.iter().map(|hop| hop.interface_index).find(|hop| *hop == index));
            }
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                        RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    route.dst = Cidr::new(destination, message.header.destination_prefix_length)?;
    (through == Some(index)).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
