//! Having the kernel ask a link who has an address.

use std::net::IpAddr;

use super::message::{Message, RTM_DELNEIGH, RTM_NEWNEIGH, family};
use super::socket::NLM_F_CREATE;
use super::{Netlink, NetlinkError};

const NDA_DST: u16 = 1;
const NTF_USE: u8 = 1;

impl Netlink {
    /// Has the kernel ask once, now, who has the address on the link: an ARP request, or a neighbour solicitation. Nobody waits for an answer,
    /// and no entry stays (`NTF_USE`, linux/neighbour.h).
    pub fn solicit(&mut self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let message = |kind, flags| {
            let mut message = Message::neighbour(kind, family(address.is_ipv4()), index, flags);
            message.content.ip(NDA_DST, address);
            message
        };
        self.change(&message(RTM_NEWNEIGH, NTF_USE), NLM_F_CREATE, || {
            format!("ask who has {address} on the link with index {index}")
        })?;
        // Without an answer the kernel would ask again, and list an address of its own among its neighbours.
        self.change(&message(RTM_DELNEIGH, 0), 0, || {
            format!("forget who has {address} on the link with index {index}")
        })
    }
}
