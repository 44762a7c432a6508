//! The kernel's own lists, as the bytes it sends: to look at a host in a millisecond, thousands of times.

use std::fmt::Write as _;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

/// An attribute: its number without flags, and its value.
pub(crate) type Attribute<'a> = (u16, &'a [u8]);

/// The bodies of all messages of a dump: `kind` is the request's type, `header` its fixed part. None where the kernel has no such list.
pub(crate) fn dump(protocol: SockProtocol, kind: u16, header: &[u8]) -> Vec<Vec<u8>> {
    // A dump that changes meanwhile says so, or not; what is looked at here is at rest.
    list(protocol, kind, header).unwrap_or_default()
}

fn list(protocol: SockProtocol, kind: u16, header: &[u8]) -> nix::Result<Vec<Vec<u8>>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let length = u32::try_from(HEADER + header.len()).unwrap_or(0);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend([0; 8]);
    request.extend(header);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut bodies = Vec::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= HEADER {
            let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let size = size.clamp(HEADER, rest.len());
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NLMSG_DONE | NLMSG_ERROR => return Ok(bodies),
                _ => bodies.push(rest[HEADER..size].to_vec()),
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// The attributes in some bytes.
pub(crate) fn attributes(mut rest: &[u8]) -> Vec<Attribute<'_>> {
    let mut all = Vec::new();
    while rest.len() >= 4 {
        let size = usize::from(u16::from_ne_bytes([rest[0], rest[1]])).clamp(4, rest.len());
        let number = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff; // two flag bits on top
        all.push((number, &rest[4..size]));
        rest = &rest[size.next_multiple_of(4).min(rest.len())..];
    }
    all
}

/// The value of one attribute; empty if it is not there.
pub(crate) fn value<'a>(all: &[Attribute<'a>], number: u16) -> &'a [u8] {
    all.iter().find(|(candidate, _)| *candidate == number).map(|(_, value)| *value).unwrap_or_default()
}

/// A value as text where it is one, else in hexadecimal.
pub(crate) fn text(value: &[u8]) -> String {
    let content = value.strip_suffix(&[0]).unwrap_or(value);
    if content.len() > 1 && content.iter().all(u8::is_ascii_graphic) {
        return String::from_utf8_lossy(content).into_owned();
    }
    value.iter().fold(String::with_capacity(2 * value.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
