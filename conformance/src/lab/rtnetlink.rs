//! What `ip link`, `ip addr` and `ip route` do, for the few things that nearly every case needs.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A conversation with the kernel about the network namespace that the calling thread was in when it began.
pub(super) struct Rtnetlink(Socket);

impl Rtnetlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// `ip link set … up`
    pub(super) fn raise(&self, index: u32) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.header.flags = LinkFlags::Up;
        request.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(request), 0)
    }

    /// `ip link add NAME type veth peer name PEER netns …`
    pub(super) fn add_veth(&self, name: &str, peer: &str, namespace: impl AsFd) -> io::Result<()> {
        let mut end = LinkMessage::default();
        end.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        end.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        request.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end))),
        ]));
        self.ask(RouteNetlinkMessage::NewLink(request), NEW)
    }

    /// `ip addr add ADDRESS/LENGTH dev …`, of IPv6 with `nodad`
    pub(super) fn add_address(&self, index: u32, address: IpAddr, length: u8) -> io::Result<()> {
        let mut request = AddressMessage::default();
        request.header.family = family_of(address);
        request.header.prefix_len = length;
        request.header.index = index;
        request.attributes.push(AddressAttribute::Local(address));
        request.attributes.push(AddressAttribute::Address(address));
        if address.is_ipv6() {
            request.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.ask(RouteNetlinkMessage::NewAddress(request), NEW)
    }

    /// `ip route add default via GATEWAY metric METRIC`
    pub(super) fn add_default_route(&self, gateway: IpAddr, metric: u32) -> io::Result<()> {
        let mut request = RouteMessage::default();
        request.header.address_family = family_of(gateway);
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        request.header.protocol = RouteProtocol::Boot;
        request.header.scope = RouteScope::Universe;
        request.header.kind = RouteType::Unicast;
        let gateway = match gateway {
            IpAddr::V4(ip) => RouteAddress::Inet(ip),
            IpAddr::V6(ip) => RouteAddress::Inet6(ip),
        };
        request.attributes.push(RouteAttribute::Gateway(gateway));
        request.attributes.push(RouteAttribute::Priority(metric));
        self.ask(RouteNetlinkMessage::NewRoute(request), NEW)
    }

    fn ask(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    }
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
