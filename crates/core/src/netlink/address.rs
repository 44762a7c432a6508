//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use cni::Cidr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// How far the kernel has got with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressState {
    /// In use.
    Ready,
    /// Duplicate address detection is under way (RFC 4862).
    Tentative,
    /// Somebody else has it.
    Duplicate,
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Address and prefix length.
    pub cidr: Cidr,
    /// Whether it can be used.
    pub state: AddressState,
}

impl Netlink {
    /// The addresses of a link.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<InterfaceAddress>, NetlinkError> {
        let mut message = AddressMessage::default();
        // With strict checking the kernel sends only this link's; older kernels (before 4.20) send all.
        message.header.index = index;
        let answers = self.dump(&RouteNetlinkMessage::GetAddress(message), || {
            format!("list addresses of the link with index {index}")
        })?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) if message.header.index == index => read(&message),
                _ => None,
            })
            .collect())
    }

    /// The addresses of all links of the namespace.
    pub fn local_addresses(&mut self) -> Result<Vec<IpAddr>, NetlinkError> {
        let message = AddressMessage::default();
        let answers = self.dump(&RouteNetlinkMessage::GetAddress(message), || "list addresses".to_owned())?;
        Ok(by_link(answers).map(|(_, address)| address.cidr.address()).collect())
    }

    /// The addresses of a family of all links, each with the index of its link. Those of links that come or go meanwhile may be missing.
    pub fn addresses_by_link(&mut self, ipv4: bool) -> Result<Vec<(u32, InterfaceAddress)>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let request = RouteNetlinkMessage::GetAddress(message);
        let answers = self.dump_loosely(&request, || "list addresses".to_owned())?;
        Ok(by_link(answers).collect())
    }

    /// Adds an address. `dad` lets duplicate address detection run for IPv6; without it the address can be used at once.
    pub fn add_address(
        &mut self,
        index: u32,
        name: &str,
        cidr: &Cidr,
        dad: bool,
    ) -> Result<(), NetlinkError> {
        let mut message = message(index, cidr);
        match cidr.last() {
            // As iproute2 and the Go suite: a broadcast address where the subnet has one.
            IpAddr::V4(broadcast) if cidr.prefix() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(broadcast));
            }
            IpAddr::V6(_) if !dad => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
            _ => {}
        }
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("add address {cidr} to {name}")
        })
    }

    /// Removes an address.
    pub fn delete_address(&mut self, index: u32, name: &str, cidr: &Cidr) -> Result<(), NetlinkError> {
        let message = message(index, cidr);
        self.change(RouteNetlinkMessage::DelAddress(message), 0, || {
            format!("remove address {cidr} from {name}")
        })
    }
}

fn by_link(answers: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = (u32, InterfaceAddress)> {
    answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => Some((message.header.index, read(&message)?)),
        _ => None,
    })
}

fn message(index: u32, cidr: &Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = cidr.prefix();
    message.header.family = if cidr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(AddressAttribute::Local(cidr.address()));
    message.attributes.push(AddressAttribute::Address(cidr.address()));
    message
}

pub(super) fn read(message: &AddressMessage) -> Option<InterfaceAddress> {
    let mut address = None;
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            // IFA_LOCAL is the interface's own; IFA_ADDRESS the peer's on a point-to-point link.
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(ip) => address = address.or(Some(*ip)),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    let state = if flags.contains(AddressFlags::Dadfailed) {
        AddressState::Duplicate
    } else if flags.contains(AddressFlags::Tentative) {
        AddressState::Tentative
    } else {
        AddressState::Ready
    };
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Cidr::new(address, message.header.prefix_len).map(|cidr| InterfaceAddress { cidr, state })
}
