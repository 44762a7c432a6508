//! What the kernel tells of its own accord: somebody has changed a link, an address, a neighbour, a route, a nexthop, or the firewall.
//!
//! A notification is not trusted to say what is there now; it only says that it is worth looking. So what does not concern this network is
//! passed over by the few bytes that tell, and an overflow of the socket is as good as a notification.

use std::io;

use ferrule_core::netlink::{Change, is_echo};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use crate::descriptor::register;

/// Multicast groups of rtnetlink (`linux/rtnetlink.h`): links, neighbours, addresses, routes, nexthops.
const ROUTE_GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];
/// Changes of `nf_tables` (`linux/netfilter/nfnetlink.h`).
const NFNLGRP_NFTABLES: u32 = 7;

/// `NFT_MSG_NEWGEN` of `NFNL_SUBSYS_NFTABLES`.
const NEWGEN: u16 = (10 << 8) | 15;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const NLMSG_HEADER: usize = 16;
/// The family of messages about ports and their entries, how long the headers of both are, and the attributes that name the bridge.
const AF_BRIDGE: u8 = 7;
const IFINFOMSG: usize = 16;
const IFLA_MASTER: u16 = 10;
const NDMSG: usize = 12;
const NDA_MASTER: u16 = 9;
const BUFFER: usize = 64 * 1024;

/// What may have changed.
#[expect(clippy::struct_excessive_bools, reason = "each is noticed by itself")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Something that this network's objects, or those it depends on, may be concerned by.
    pub concerns: bool,
    /// An address or a link, whosever: the underlay may be another.
    pub addresses: bool,
    /// A route has gone that is not of an overlay: what was refused because of it may be possible now.
    pub freed: bool,
    /// Notifications were lost.
    pub overflow: bool,
}

impl Noticed {
    fn add(&mut self, other: Self) {
        self.concerns |= other.concerns;
        self.addresses |= other.addresses;
        self.freed |= other.freed;
        self.overflow |= other.overflow;
    }

    /// Nothing of interest.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// What tells our objects from those of others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope {
    /// Indexes of the device, the bridge and the underlay's link; 0 for none.
    pub links: [u32; 3],
    /// The protocol number of routes, neighbours and nexthops.
    pub protocol: u8,
    /// Index of a bridge whose ports and their entries count as well; 0 for none. One that learns tells of every frame.
    pub ports_of: u32,
}

/// The sockets.
#[derive(Debug)]
pub struct Notifications {
    route: AsyncFd<Socket>,
    /// Missing where the kernel has no `nf_tables`, and then there is no table to watch either.
    firewall: Option<AsyncFd<Socket>>,
    buffer: Vec<u8>,
}

impl Notifications {
    /// Listens in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        let route = register(listen(NETLINK_ROUTE, &ROUTE_GROUPS)?)?;
        let firewall = listen(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES]).and_then(register).ok();
        Ok(Self { route, firewall, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Waits until there is something of interest, and takes all that is there.
    pub async fn next(&mut self, scope: Scope) -> io::Result<Noticed> {
        loop {
            let mut noticed = Noticed::default();
            let firewall = async {
                match &self.firewall {
                    Some(socket) => socket.readable().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = self.route.readable() => {
                    let mut ready = ready?;
                    drain(ready.get_inner(), &mut self.buffer, |kind, content| {
                        noticed.add(judge(kind, content, scope));
                    }).map(|overflow| noticed.overflow |= overflow)?;
                    ready.clear_ready();
                }
                ready = firewall => {
                    let mut ready = ready?;
                    // Which table it is, the check itself will say: it is one request.
                    drain(ready.get_inner(), &mut self.buffer, |_, _| noticed.concerns = true)
                        .map(|overflow| noticed.overflow |= overflow)?;
                    ready.clear_ready();
                }
            }
            if !noticed.is_nothing() {
                return Ok(noticed);
            }
        }
    }
}

impl Notifications {
    /// Takes what has come until now, but for what tells of one's own changes: of these in the forwarding tables, and of so many transactions of the
    /// firewall. The kernel tells before it answers, so what a finished change has caused is there.
    pub fn drain(&mut self, scope: Scope, own: &[Change], transactions: usize) -> io::Result<Noticed> {
        let mut noticed = Noticed::default();
        let overflow = drain(self.route.get_ref(), &mut self.buffer, |kind, content| {
            if !is_echo(kind, content, own) {
                noticed.add(judge(kind, content, scope));
            }
        })?;
        noticed.overflow |= overflow;
        if let Some(firewall) = &self.firewall {
            // A transaction ends with one of these, whoever's it is.
            let mut generations = 0;
            let overflow = drain(firewall.get_ref(), &mut self.buffer, |kind, _| {
                generations += usize::from(kind == NEWGEN);
            })?;
            noticed.overflow |= overflow;
            noticed.concerns |= generations != transactions;
        }
        Ok(noticed)
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    // Group 32, of nexthops, is unknown before 5.3; so are nexthops.
    for (index, group) in groups.iter().enumerate() {
        let joined = socket.add_membership(*group);
        if index == 0 {
            joined?;
        }
    }
    Ok(socket)
}

/// Reads until there is nothing left. Says whether something was lost.
fn drain(socket: &Socket, buffer: &mut Vec<u8>, mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    let mut overflow = false;
    loop {
        buffer.clear();
        match socket.recv(buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(overflow),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                overflow = true;
                continue;
            }
            Err(error) => return Err(error),
        }
        let mut rest = buffer.as_slice();
        while let Some((kind, content, next)) = split(rest) {
            each(kind, content);
            rest = next;
        }
    }
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let content = bytes.get(NLMSG_HEADER..length)?;
    Some((kind, content, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The number that is an attribute of a message, whose attributes begin at an offset.
fn attribute(content: &[u8], offset: usize, wanted: u16) -> Option<u32> {
    let mut rest = content.get(offset..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        if kind == wanted {
            return Some(u32::from_ne_bytes(*rest.get(4..length)?.first_chunk()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn judge(kind: u16, content: &[u8], scope: Scope) -> Noticed {
    let byte = |offset: usize| content.get(offset).copied().unwrap_or_default();
    let number = |offset: usize| {
        content
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    };
    let concerns = match kind {
        // ifinfomsg, ifaddrmsg and ndmsg: four bytes of family and flags, then the interface.
        RTM_NEWLINK..=RTM_DELADDR | RTM_NEWNEIGH | RTM_DELNEIGH => {
            let master = match kind {
                RTM_NEWLINK | RTM_DELLINK if byte(0) == AF_BRIDGE => {
                    attribute(content, IFINFOMSG, IFLA_MASTER)
                }
                RTM_NEWNEIGH | RTM_DELNEIGH if byte(0) == AF_BRIDGE => attribute(content, NDMSG, NDA_MASTER),
                _ => None,
            };
            let is_port = master.is_some_and(|master| master != 0 && master == scope.ports_of);
            is_port || (number(4) != 0 && scope.links.contains(&number(4)))
        }
        // rtmsg: family, lengths of both addresses, tos, table, protocol.
        RTM_NEWROUTE | RTM_DELROUTE => byte(5) == scope.protocol,
        // nhmsg: family, scope, protocol.
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => byte(2) == scope.protocol,
        _ => false,
    };
    let addresses = matches!(kind, RTM_NEWLINK..=RTM_DELADDR);
    Noticed { concerns, addresses, freed: kind == RTM_DELROUTE && !concerns, overflow: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope = Scope { links: [7, 0, 2], protocol: 99, ports_of: 5 };

    fn neighbour(link: u32) -> Vec<u8> {
        [&[2, 0, 0, 0][..], &link.to_ne_bytes(), &[0; 4]].concat()
    }

    #[test]
    fn neighbours_of_other_links_are_passed_over() {
        assert!(judge(RTM_DELNEIGH, &neighbour(7), SCOPE).concerns);
        assert!(judge(RTM_DELNEIGH, &neighbour(8), SCOPE).is_nothing());
    }

    #[test]
    fn ports_of_other_bridges_are_passed_over() {
        let port = |family: u8, header: usize, master_attribute: u16, master: u32| {
            let mut message = vec![0; header];
            message[0] = family;
            message[4] = 40;
            // An attribute of five bytes, then the master.
            message.extend([5, 0, 3, 0, b'v', 0, 0, 0, 8, 0]);
            message.extend(master_attribute.to_ne_bytes());
            message.extend(master.to_ne_bytes());
            message
        };
        for kind in [RTM_NEWLINK, RTM_DELLINK] {
            assert!(judge(kind, &port(AF_BRIDGE, 16, 10, 5), SCOPE).concerns);
            assert!(!judge(kind, &port(AF_BRIDGE, 16, 10, 6), SCOPE).concerns);
            assert!(!judge(kind, &port(0, 16, 10, 5), SCOPE).concerns);
        }
        assert!(judge(RTM_DELNEIGH, &port(AF_BRIDGE, 12, 9, 5), SCOPE).concerns);
        assert!(judge(RTM_DELNEIGH, &port(AF_BRIDGE, 12, 9, 6), SCOPE).is_nothing());
        let nobody = Scope { ports_of: 0, ..SCOPE };
        assert!(judge(RTM_DELNEIGH, &port(AF_BRIDGE, 12, 9, 0), nobody).is_nothing());
        assert!(judge(RTM_DELNEIGH, &port(AF_BRIDGE, 12, 9, 5)[..20], SCOPE).is_nothing());
    }

    #[test]
    fn routes_of_other_daemons_are_passed_over() {
        assert!(judge(RTM_DELROUTE, &[2, 24, 0, 0, 254, 99, 0, 1], SCOPE).concerns);
        let foreign = |kind| judge(kind, &[2, 24, 0, 0, 254, 3, 0, 1], SCOPE);
        assert!(foreign(RTM_NEWROUTE).is_nothing());
        let gone = foreign(RTM_DELROUTE);
        assert!(gone.freed && !gone.concerns && !gone.addresses);
        assert!(judge(RTM_DELNEXTHOP, &[2, 0, 99, 0, 0, 0, 0, 0], SCOPE).concerns);
    }

    #[test]
    fn a_message_cut_short_is_no_message() {
        assert!(split(&[40, 0, 0, 0, 29, 0, 0, 0]).is_none());
        assert!(judge(RTM_DELNEIGH, &[], SCOPE).is_nothing());
    }
}
