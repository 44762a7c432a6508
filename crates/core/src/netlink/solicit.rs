//! Having the kernel ask a link who has an address.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

impl Netlink {
    /// Has the kernel ask once, now, who has the address on the link: an ARP request, or a neighbour solicitation. Nobody waits for an answer,
    /// and no entry stays (`NTF_USE`, linux/neighbour.h).
    pub fn solicit(&mut self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.state = NeighbourState::None;
        let destination = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let entry = message.clone();
        message.header.flags = NeighbourFlags::Use;
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE, || {
            format!("ask who has {address} on the link with index {index}")
        })?;
        // Without an answer the kernel would ask again, and list an address of its own among its neighbours.
        self.change(RouteNetlinkMessage::DelNeighbour(entry), 0, || {
            format!("forget who has {address} on the link with index {index}")
        })
    }
}
