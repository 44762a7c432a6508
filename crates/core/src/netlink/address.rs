//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use cni::Cidr;

use super::message::{AddressHeader, Message, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR, family};
use super::socket::{NLM_F_CREATE, NLM_F_EXCL};
use super::{Netlink, NetlinkError};
use crate::nfnetlink::{ip, ne32, parse};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

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
        // With strict checking the kernel sends only this link's; older kernels (before 4.20) send all.
        let header = AddressHeader { index, ..AddressHeader::default() };
        let answers = self.dump(&Message::address(RTM_GETADDR, header), || {
            format!("list addresses of the link with index {index}")
        })?;
        let found = by_link(&answers).filter(|(link, _)| *link == index);
        Ok(found.map(|(_, address)| address).collect())
    }

    /// The addresses of all links of the namespace.
    pub fn local_addresses(&mut self) -> Result<Vec<IpAddr>, NetlinkError> {
        let message = Message::address(RTM_GETADDR, AddressHeader::default());
        let answers = self.dump(&message, || "list the addresses of all links".to_owned())?;
        Ok(by_link(&answers).map(|(_, address)| address.cidr.address()).collect())
    }

    /// The addresses of a family of all links, each with the index of its link. Those of links that come or go meanwhile may be missing.
    pub fn addresses_by_link(&mut self, ipv4: bool) -> Result<Vec<(u32, InterfaceAddress)>, NetlinkError> {
        let header = AddressHeader { family: family(ipv4), ..AddressHeader::default() };
        let request = Message::address(RTM_GETADDR, header);
        let answers = self.dump_loosely(&request, || {
            format!("list the {} addresses of all links", if ipv4 { "IPv4" } else { "IPv6" })
        })?;
        Ok(by_link(&answers).collect())
    }

    /// Adds an address. `dad` lets duplicate address detection run for IPv6; without it the address can be used at once.
    pub fn add_address(
        &mut self,
        index: u32,
        name: &str,
        cidr: &Cidr,
        dad: bool,
    ) -> Result<(), NetlinkError> {
        let mut message = message(RTM_NEWADDR, index, cidr);
        match cidr.last() {
            // As iproute2 and the Go suite: a broadcast address where the subnet has one.
            broadcast @ IpAddr::V4(_) if cidr.prefix() < 31 => {
                message.content.ip(IFA_BROADCAST, broadcast);
            }
            IpAddr::V6(_) if !dad => {
                message.content.u32(IFA_FLAGS, IFA_F_NODAD);
            }
            _ => {}
        }
        self.change(&message, NLM_F_CREATE | NLM_F_EXCL, || format!("add address {cidr} to {name}"))
    }

    /// Removes an address.
    pub fn delete_address(&mut self, index: u32, name: &str, cidr: &Cidr) -> Result<(), NetlinkError> {
        let message = message(RTM_DELADDR, index, cidr);
        self.change(&message, 0, || format!("remove address {cidr} from {name}"))
    }
}

fn by_link(answers: &[Message]) -> impl Iterator<Item = (u32, InterfaceAddress)> {
    answers.iter().filter_map(|answer| read(answer.answer(RTM_NEWADDR)?))
}

pub(super) fn message(kind: u16, index: u32, cidr: &Cidr) -> Message {
    let header = AddressHeader { family: family(cidr.is_ipv4()), prefix: cidr.prefix(), index };
    let mut message = Message::address(kind, header);
    message.content.ip(IFA_LOCAL, cidr.address()).ip(IFA_ADDRESS, cidr.address());
    message
}

/// An address, and the index of its link.
pub(super) fn read(payload: &[u8]) -> Option<(u32, InterfaceAddress)> {
    let (header, attributes) = AddressHeader::split(payload)?;
    let mut address = None;
    let mut flags = 0;
    for (kind, value) in parse(attributes) {
        match kind {
            // IFA_LOCAL is the interface's own; IFA_ADDRESS the peer's on a point-to-point link.
            IFA_LOCAL => address = ip(value),
            IFA_ADDRESS => address = address.or(ip(value)),
            IFA_FLAGS => flags = ne32(value)?,
            _ => {}
        }
    }
    let state = if flags & IFA_F_DADFAILED != 0 {
        AddressState::Duplicate
    } else if flags & IFA_F_TENTATIVE != 0 {
        AddressState::Tentative
    } else {
        AddressState::Ready
    };
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Some((header.index, InterfaceAddress { cidr: Cidr::new(address, header.prefix)?, state }))
}
