//! rtnetlink dumps of the calling thread's network namespace (`man 7 rtnetlink`), on a blocking socket.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

use super::devconf::Settings;

/// A network interface.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the kernel, each on its own")]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind as `ip -d link` names it (`veth`, `bridge`); empty for `lo` and hardware.
    pub kind: String,
    /// Hardware address, lower-case with colons; empty where the link has none.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Promiscuous mode, asked for by the flag.
    pub promiscuous: bool,
    /// Receives all multicast.
    pub all_multicast: bool,
    /// Transmit queue length in packets.
    pub tx_queue: u32,
    /// Index of the bridge (or other controller) it is a port of.
    pub controller: Option<u32>,
    /// Index of its peer or parent, in the namespace of `peer_namespace` if that is set.
    pub peer: Option<u32>,
    /// The peer is in another namespace.
    pub peer_elsewhere: bool,
    /// `ip link set … alias`.
    pub alias: String,
    /// Port kind, when it is a port of something.
    pub port_kind: String,
    /// Its settings below `net/ipv4/conf` and `net/ipv6/conf`.
    pub settings: Settings,
}

/// An address of an interface.
#[derive(Debug, Clone)]
pub struct Address {
    /// Interface index.
    pub link: u32,
    /// The address with its prefix length, host bits kept.
    pub network: IpNetwork,
    /// Scope: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Duplicate address detection has not ended.
    pub tentative: bool,
}

/// A route of any table but `local`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Destination; a default route has prefix length 0.
    pub destination: IpNetwork,
    /// Gateway, if any.
    pub gateway: Option<IpAddr>,
    /// Outgoing interface index.
    pub link: Option<u32>,
    /// Table number, 254 is main.
    pub table: u32,
    /// Scope: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Priority (metric).
    pub priority: Option<u32>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// MTU of the route, in bytes.
    pub mtu: Option<u32>,
    /// Advertised maximal segment size, in bytes.
    pub advmss: Option<u32>,
    /// Who made it: 2 kernel, 3 boot, 4 static ….
    pub protocol: u8,
    /// Type: 1 unicast, 6 blackhole ….
    pub kind: u8,
}

/// A policy rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Everything about it, in a fixed order, for comparison.
    pub text: String,
}

/// A neighbour that somebody configured (permanent), or a forwarding entry of a bridge.
#[derive(Debug, Clone)]
pub struct Neighbour {
    /// Interface index.
    pub link: u32,
    /// Address, or hardware address of a forwarding entry.
    pub text: String,
}

/// Everything of one namespace.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses, but for IPv6 link-local ones.
    pub addresses: Vec<Address>,
    /// Routes, but for those of table `local` and IPv6 link-local and multicast ones.
    pub routes: Vec<Route>,
    /// Policy rules of both families.
    pub rules: Vec<Rule>,
    /// Permanent neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Permanent forwarding entries of bridges and tunnels, and the VLANs of bridge ports.
    pub forwarding: Vec<Neighbour>,
}

impl View {
    /// Reads the namespace that the calling thread is in.
    ///
    /// # Errors
    /// What the kernel said to a dump.
    pub fn read() -> io::Result<Self> {
        let socket = open(NETLINK_ROUTE)?;
        let mut view = Self::default();
        for message in dump(&socket, &RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            if let RouteNetlinkMessage::NewLink(link) = message {
                view.links.push(read_link(&link));
            }
        }
        for message in dump(&socket, &RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                view.addresses.extend(read_address(&address));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            for message in dump(&socket, &RouteNetlinkMessage::GetRoute(request))? {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    view.routes.extend(read_route(&route));
                }
            }
            let mut request = RuleMessage::default();
            request.header.family = family;
            for message in dump(&socket, &RouteNetlinkMessage::GetRule(request))? {
                if let RouteNetlinkMessage::NewRule(rule) = message {
                    view.rules.push(read_rule(&rule));
                }
            }
        }
        for (family, list) in
            [(AddressFamily::Unspec, &mut view.neighbours), (AddressFamily::Bridge, &mut view.forwarding)]
        {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            for message in dump(&socket, &RouteNetlinkMessage::GetNeighbour(request))? {
                if let RouteNetlinkMessage::NewNeighbour(neighbour) = message {
                    list.extend(read_neighbour(&neighbour));
                }
            }
        }
        Ok(view)
    }

    /// The interface of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The name of the interface with this index, or the number itself.
    pub fn link_name(&self, index: u32) -> String {
        let found = self.links.iter().find(|link| link.index == index);
        found.map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }

    /// The addresses of the interface of this name.
    pub fn addresses_of(&self, name: &str) -> Vec<IpNetwork> {
        let index = self.link(name).map(|link| link.index);
        self.addresses.iter().filter(|a| Some(a.link) == index).map(|a| a.network).collect()
    }

    /// The ports of the bridge of this name.
    pub fn ports(&self, bridge: &str) -> Vec<&Link> {
        let index = self.link(bridge).map(|link| link.index);
        self.links.iter().filter(|link| link.controller.is_some() && link.controller == index).collect()
    }

    /// Interface names by index.
    pub fn names(&self) -> BTreeMap<u32, String> {
        self.links.iter().map(|link| (link.index, link.name.clone())).collect()
    }
}

/// `0a:58:…`, as results print hardware addresses.
pub fn format_mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Whether the calling thread's network namespace has any table of `nf_tables` (`linux/netfilter/nf_tables.h`).
///
/// # Errors
/// What the kernel said; it may have no `nf_tables`.
pub(super) fn has_nft_tables() -> io::Result<bool> {
    const NFT_MSG_GETTABLE: u16 = 10 << 8 | 1; // of NFNL_SUBSYS_NFTABLES
    const NLMSG_ERROR: u16 = 2;
    let socket = open(NETLINK_NETFILTER)?;
    let mut message = vec![0; 20]; // header, and an nfgenmsg of zeros: every family
    message[..4].copy_from_slice(&20_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&NFT_MSG_GETTABLE.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // The first message tells: a table, or the end of an empty dump, or an error.
    match answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]])) {
        Some(NLMSG_ERROR) | None => Err(io::Error::other("nf_tables does not answer")),
        Some(kind) => Ok(kind >> 8 != 0),
    }
}

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn dump(socket: &Socket, request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    // A dump that a change of the table interrupts (NLM_F_DUMP_INTR, EINTR) is asked again.
    for _ in 0..10 {
        if let Some(messages) = dump_once(socket, request)? {
            return Ok(messages);
        }
    }
    Err(io::Error::other("the kernel's tables changed during ten dumps in a row"))
}

fn dump_once(socket: &Socket, request: &RouteNetlinkMessage) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
    const INTERRUPTED: u16 = 0x10; // NLM_F_DUMP_INTR
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request.clone()));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    let mut whole = true;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < 16 || length > rest.len() {
                return Err(io::Error::other("a netlink message with a wrong length"));
            }
            // One attribute that the parser does not know must not hide the rest of a dump.
            if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
                whole &= message.header.flags & INTERRUPTED == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(found)),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    _ => {}
                }
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        mac: String::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        promiscuous: flags.contains(LinkFlags::Promisc),
        all_multicast: flags.contains(LinkFlags::Allmulti),
        tx_queue: 0,
        controller: None,
        peer: None,
        peer_elsewhere: false,
        alias: String::new(),
        port_kind: String::new(),
        settings: Settings::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = format_mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::TxQueueLen(length) => link.tx_queue = *length,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::AfSpecUnspec(families) => link.settings = Settings::read(families),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::PortKind(kind) => link.port_kind = port_kind(kind),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn port_kind(kind: &InfoPortKind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    let ip = local.or(address)?;
    if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return None;
    }
    Some(Address {
        link: message.header.index,
        network: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        scope: scope_of_address(message.header.scope),
        tentative: message.header.flags.contains(AddressHeaderFlags::Tentative),
    })
}

fn scope_of_address(scope: AddressScope) -> u8 {
    u8::from(scope)
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn read_route(message: &RouteMessage) -> Vec<Route> {
    let Some(route) = read_one_route(message) else { return Vec::new() };
    // Several next hops of one destination are as many routes here.
    let hops: Vec<Route> = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops),
            _ => None,
        })
        .flatten()
        .map(|hop| {
            let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Gateway(address) => ip_of(address),
                _ => None,
            });
            Route { gateway, link: Some(hop.interface_index), ..route.clone() }
        })
        .collect();
    if hops.is_empty() { vec![route] } else { hops }
}

fn read_one_route(message: &RouteMessage) -> Option<Route> {
    const LOCAL: u32 = 255;
    let header: &RouteHeader = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        destination: IpNetwork::new(unspecified, header.destination_prefix_length).ok()?,
        gateway: None,
        link: None,
        table: u32::from(header.table),
        scope: scope_of_route(header.scope),
        priority: None,
        source: None,
        mtu: None,
        advmss: None,
        protocol: protocol_number(header.protocol),
        kind: kind_number(header.kind),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.destination = IpNetwork::new(ip_of(address)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
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
    let automatic = match route.destination.ip() {
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
        IpAddr::V4(_) => false,
    };
    (route.table != LOCAL && !automatic).then_some(route)
}

fn scope_of_route(scope: RouteScope) -> u8 {
    u8::from(scope)
}

fn protocol_number(protocol: RouteProtocol) -> u8 {
    u8::from(protocol)
}

fn kind_number(kind: RouteType) -> u8 {
    u8::from(kind)
}

fn read_rule(message: &RuleMessage) -> Rule {
    let mut parts: Vec<String> = message
        .attributes
        .iter()
        .filter(|attribute| !matches!(attribute, RuleAttribute::Other(_)))
        .map(|attribute| format!("{attribute:?}"))
        .collect();
    parts.sort();
    let header = &message.header;
    Rule { text: format!("{:?} {:?} {}", header.family, header.action, parts.join(" ")) }
}

fn read_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    // What the kernel learned by itself comes and goes; what somebody configured stays.
    let permanent = matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
    if !permanent {
        return None;
    }
    let mut parts = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) if !ip.is_multicast() => {
                parts.push(ip.to_string());
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) if !ip.is_multicast() => {
                parts.push(ip.to_string());
            }
            // Multicast groups are joined by the kernel, whenever an address appears.
            NeighbourAttribute::Destination(_) => return None,
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                if bytes.first().is_some_and(|first| first & 1 == 1) {
                    return None;
                }
                parts.push(format_mac(bytes));
            }
            NeighbourAttribute::Vlan(vlan) => parts.push(format!("vlan {vlan}")),
            _ => {}
        }
    }
    (!parts.is_empty()).then(|| Neighbour { link: message.header.ifindex, text: parts.join(" ") })
}
