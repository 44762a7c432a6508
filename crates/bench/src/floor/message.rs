//! Netlink requests as bytes, many in one system call.
//!
//! Numbers are those of `linux/rtnetlink.h`, `linux/if_link.h` and `linux/netfilter/nf_tables.h`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_SETLINK: u16 = 19;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_HEADER: usize = 16;

pub(super) const IFF_UP: u32 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const LOOPBACK_INDEX: u32 = 1;

/// Brings `lo` of the calling thread's namespace up.
///
/// # Errors
/// What the kernel said.
pub fn set_loopback_up() -> io::Result<()> {
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, 0, |message| message.link(LOOPBACK_INDEX, IFF_UP));
    batch.transact(SockProtocol::NetlinkRoute)
}

/// Makes a veth pair, one end here, the other in another namespace, both down.
///
/// # Errors
/// What the kernel said.
pub fn add_veth(name: &str, netns: &File) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |message| {
        message.link(0, 0);
        message.text(IFLA_IFNAME, name);
        message.veth(name, netns);
    });
    batch.transact(SockProtocol::NetlinkRoute)
}

/// Requests that go to the kernel in one system call, which handles them in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    last: usize,
    sequence: u32,
}

impl Batch {
    pub(super) fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Body<'_>)) {
        self.last = self.bytes.len();
        self.sequence += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        fill(&mut Body(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - self.last).unwrap_or(u32::MAX);
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Asks for the acknowledgement of the message that was put in last. Refusals come without being asked for.
    pub(super) fn acknowledge(&mut self) -> u32 {
        let flags = self.last + 6;
        self.bytes[flags] |= NLM_F_ACK.to_le_bytes()[0];
        self.sequence
    }

    pub(super) fn transact(mut self, protocol: SockProtocol) -> io::Result<()> {
        let last = self.acknowledge();
        self.exchange(protocol, last)
    }

    /// Sends it on a socket of its own, and reads answers up to that of message number `last`.
    pub(super) fn exchange(self, protocol: SockProtocol, last: u32) -> io::Result<()> {
        let socket: OwnedFd =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Without a destination it goes to the kernel, and the socket gets its address by itself.
        send(socket.as_raw_fd(), &self.bytes, MsgFlags::empty())?;
        let mut buffer = [0; 4096];
        loop {
            let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((size, kind, sequence)) = header(rest) {
                if kind == NLMSG_ERROR {
                    let code = word(rest, NLMSG_HEADER).map_or(0, u32::cast_signed);
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    if sequence == last {
                        return Ok(());
                    }
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn header(bytes: &[u8]) -> Option<(usize, u16, u32)> {
    let size = usize::try_from(word(bytes, 0)?).ok()?.max(NLMSG_HEADER);
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    Some((size, kind, word(bytes, 8)?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

/// What follows a message's header.
#[derive(Debug)]
pub(super) struct Body<'a>(&'a mut Vec<u8>);

impl Body<'_> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// `struct ifinfomsg`; the flags are changed to exactly these.
    pub(super) fn link(&mut self, index: u32, flags: u32) {
        for field in [0, index, flags, flags] {
            self.bytes(&field.to_ne_bytes());
        }
    }

    /// What makes a link a veth, with its other end in another namespace.
    pub(super) fn veth(&mut self, peer_name: &str, netns: &File) {
        self.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    // It can't be up yet: for the kernel it has no other end at this moment.
                    peer.link(0, 0);
                    peer.text(IFLA_IFNAME, peer_name);
                    peer.attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
                });
            });
        });
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |body| body.bytes(value));
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.nested(kind, |body| {
            body.bytes(text.as_bytes());
            body.bytes(&[0]);
        });
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Body<'_>)) {
        let start = self.0.len();
        self.bytes(&[0; 2]);
        self.bytes(&kind.to_ne_bytes());
        fill(&mut Body(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
