//! The messages that go over the socket, and the numbers in them: those of `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h` and
//! `linux/neighbour.h`.
//!
//! `rtnetlink` would bring an enumeration of all that can be said. Its decoders of links alone, which know every kind there is, are a tenth of a
//! plugin's code, and part of it in memory at each call (`docs/adr/0011-small-programs.md`). Here a message is its type and its bytes; who asks for
//! an object writes and reads the attributes he has use for.

use crate::nfnetlink::{Attributes, ne32, parse};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_BRIDGE: u8 = 7;
pub(super) const AF_INET6: u8 = 10;

/// Of both families of addresses.
pub(super) fn family(ipv4: bool) -> u8 {
    if ipv4 { AF_INET } else { AF_INET6 }
}

/// A message: its type, and behind the header of all messages the one of its kind, then attributes.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) content: Attributes,
}

/// `struct ifinfomsg`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LinkHeader {
    pub(super) family: u8,
    pub(super) index: u32,
    pub(super) flags: u32,
    /// Which of the flags are meant.
    pub(super) change: u32,
}

/// `struct rtmsg`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RouteHeader {
    pub(super) family: u8,
    pub(super) prefix: u8,
    pub(super) table: u8,
    pub(super) protocol: u8,
    pub(super) scope: u8,
    pub(super) kind: u8,
}

/// `struct ifaddrmsg`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AddressHeader {
    pub(super) family: u8,
    pub(super) prefix: u8,
    pub(super) index: u32,
}

impl Message {
    fn new(kind: u16, header: &[&[u8]]) -> Self {
        let mut content = Attributes::new();
        for part in header {
            content.raw(part);
        }
        Self { kind, content }
    }

    pub(super) fn link(kind: u16, header: LinkHeader) -> Self {
        let LinkHeader { family, index, flags, change } = header;
        let [index, flags, change] = [index, flags, change].map(u32::to_ne_bytes);
        Self::new(kind, &[&[family, 0, 0, 0], &index, &flags, &change])
    }

    pub(super) fn address(kind: u16, header: AddressHeader) -> Self {
        let AddressHeader { family, prefix, index } = header;
        Self::new(kind, &[&[family, prefix, 0, 0], &index.to_ne_bytes()])
    }

    pub(super) fn route(kind: u16, header: RouteHeader) -> Self {
        let RouteHeader { family, prefix, table, protocol, scope, kind: route } = header;
        Self::new(kind, &[&[family, prefix, 0, 0, table, protocol, scope, route, 0, 0, 0, 0]])
    }

    /// With `struct ndmsg`, whose state is none.
    pub(super) fn neighbour(kind: u16, family: u8, index: u32, flags: u8) -> Self {
        Self::new(kind, &[&[family, 0, 0, 0], &index.to_ne_bytes(), &[0, 0, flags, 0]])
    }

    /// A message of an answer.
    pub(super) fn received(kind: u16, payload: &[u8]) -> Self {
        Self::new(kind, &[payload])
    }

    /// What an answer of this type says.
    pub(super) fn answer(&self, kind: u16) -> Option<&[u8]> {
        (self.kind == kind).then_some(self.content.as_bytes())
    }
}

impl LinkHeader {
    /// The header, and the attributes behind it.
    pub(super) fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (header, attributes) = payload.split_at_checked(16)?;
        let header = Self {
            family: *header.first()?,
            index: ne32(header.get(4..8)?)?,
            flags: ne32(header.get(8..12)?)?,
            change: ne32(header.get(12..)?)?,
        };
        Some((header, attributes))
    }
}

impl AddressHeader {
    /// The header, and the attributes behind it.
    pub(super) fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (header, attributes) = payload.split_at_checked(8)?;
        let header =
            Self { family: *header.first()?, prefix: *header.get(1)?, index: ne32(header.get(4..)?)? };
        Some((header, attributes))
    }
}

impl RouteHeader {
    /// The header, and the attributes behind it.
    pub(super) fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (header, attributes) = payload.split_at_checked(12)?;
        let [family, prefix, _, _, table, protocol, scope, kind] = *header.first_chunk()?;
        Some((Self { family, prefix, table, protocol, scope, kind }, attributes))
    }
}

/// The links in the `struct rtnexthop`s of a route of several ways.
pub(super) fn hops(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    /// Of the structure; attributes follow.
    const LENGTH: usize = 8;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let link = ne32(bytes.get(4..LENGTH)?)?;
        bytes = bytes.get(length.next_multiple_of(4).max(LENGTH)..).unwrap_or_default();
        Some(link)
    })
}

/// The value of the first attribute of a type.
pub(super) fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    parse(attributes).find(|(found, _)| *found == kind).and_then(|(_, value)| ne32(value))
}
