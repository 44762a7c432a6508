//! The few kernel requests a [`Host`](crate::Host) is built with, written as bytes.
//!
//! So that the kit needs no `ip` to set a scene (the demonstration runs on machines without it), and so that it shares
//! no encoder with the code under test. Numbers are those of `linux/rtnetlink.h`, `linux/if_link.h`, `linux/veth.h`.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;

const NLM_F_DUMP: u16 = 0x300;
const NLMSG_DONE: u16 = 3;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// Length of a message's header, and of nfnetlink's own after it.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

/// Sets a link of the calling thread's namespace up.
pub(crate) fn set_up(link: &str) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, 0);
    message.link_header(index_of(link)?, IFF_UP, IFF_UP);
    message.transact()
}

/// Makes a veth pair: `name` here, `peer_name` in the namespace behind `peer_netns`.
pub(crate) fn add_veth(name: &str, peer_name: &str, peer_netns: &std::fs::File) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    message.link_header(0, 0, 0);
    message.attribute(IFLA_IFNAME, &zero_ended(name));
    message.nested(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, &zero_ended("veth"));
        info.nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                peer.link_header(0, 0, 0);
                peer.attribute(IFLA_IFNAME, &zero_ended(peer_name));
                peer.attribute(IFLA_NET_NS_FD, &peer_netns.as_raw_fd().to_ne_bytes());
            });
        });
    });
    message.transact()
}

/// Makes a bridge in the calling thread's namespace.
pub(crate) fn add_bridge(name: &str) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    message.link_header(0, 0, 0);
    message.attribute(IFLA_IFNAME, &zero_ended(name));
    message.nested(IFLA_LINKINFO, |info| info.attribute(IFLA_INFO_KIND, &zero_ended("bridge")));
    message.transact()
}

/// Makes a link a port of a bridge.
pub(crate) fn set_master(link: &str, bridge: &str) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, 0);
    message.link_header(index_of(link)?, 0, 0);
    message.attribute(IFLA_MASTER, &index_of(bridge)?.to_ne_bytes());
    message.transact()
}

/// Sets the MTU of a link.
pub(crate) fn set_mtu(link: &str, mtu: u32) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, 0);
    message.link_header(index_of(link)?, 0, 0);
    message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
    message.transact()
}

/// Adds an address to a link; an IPv6 one is usable at once (no duplicate address detection).
pub(crate) fn add_address(link: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    message.bytes(&[family(address), prefix, flags, 0]);
    message.bytes(&index_of(link)?.to_ne_bytes());
    message.attribute(IFA_LOCAL, &octets(address));
    message.attribute(IFA_ADDRESS, &octets(address));
    message.transact()
}

/// Adds the default route of the gateway's family to the main table.
pub(crate) fn add_default_route(gateway: IpAddr) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    message.bytes(&[family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST]);
    message.bytes(&[0; 4]);
    message.attribute(RTA_GATEWAY, &octets(gateway));
    message.transact()
}

/// Everything of one kind in the nftables ruleset (`kind` is an `NFT_MSG_GET…` number): each object's attributes, by
/// number. An empty list where the kernel has no nftables.
pub(crate) fn nftables_objects(kind: u16) -> io::Result<Vec<BTreeMap<u16, Vec<u8>>>> {
    let mut message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_DUMP);
    message.bytes(&[0; NFGENMSG]);
    let socket = match message.send(SockProtocol::NetlinkNetFilter) {
        Ok(socket) => socket,
        Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EPROTONOSUPPORT as i32) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    let mut objects = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= HEADER {
            let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NLMSG_DONE | NLMSG_ERROR => return Ok(objects),
                _ => objects.push(attributes(&rest[HEADER + NFGENMSG..size])),
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn attributes(mut rest: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    let mut all = BTreeMap::new();
    while rest.len() >= 4 {
        let size = usize::from(u16::from_ne_bytes([rest[0], rest[1]])).clamp(4, rest.len());
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff; // two flag bits on top
        all.insert(kind, rest[4..size].to_vec());
        rest = &rest[size.next_multiple_of(4).min(rest.len())..];
    }
    all
}

fn index_of(link: &str) -> io::Result<u32> {
    Ok(if_nametoindex(link)?)
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    u8::try_from(family as i32).expect("address families are small numbers")
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn zero_ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// One request: a header whose length is filled in when it is sent, then a fixed part and attributes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(vec![0; 4]);
        message.bytes(&kind.to_ne_bytes());
        message.bytes(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.bytes(&[0; 8]); // sequence and port: one request per socket, nothing to tell apart
        message
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn link_header(&mut self, index: u32, flags: u32, change: u32) {
        self.bytes(&[0; 4]);
        for field in [index, flags, change] {
            self.bytes(&field.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes(value));
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.bytes(&[0; 2]);
        self.bytes(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).expect("a short attribute");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Sends it on a new socket, and returns that.
    fn send(mut self, protocol: SockProtocol) -> io::Result<OwnedFd> {
        let length = u32::try_from(self.0.len()).expect("a short message");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        send(socket.as_raw_fd(), &self.0, MsgFlags::empty())?;
        Ok(socket)
    }

    fn transact(self) -> io::Result<()> {
        let socket = self.send(SockProtocol::NetlinkRoute)?;
        let mut answer = [0; 4096];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if length < HEADER + 4 || answer[4..6] != NLMSG_ERROR.to_ne_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel did not acknowledge a request",
            ));
        }
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        }
    }
}
