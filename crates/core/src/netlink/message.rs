//! The messages that go over the socket: those of `netlink-packet-route` that are sent and read here, and no others.
//!
//! Its own enumeration knows all of rtnetlink, traffic control and neighbour tables among it. A plugin would carry the code for them, unused,
//! and have part of it in memory at each call (`docs/adr/0011-small-programs.md`).

use netlink_packet_core::{
    DecodeError, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    Parseable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteMessage;

/// Numbers of the answers (`linux/rtnetlink.h`).
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

/// A message, of a kind that is used here.
#[derive(Debug, Clone)]
pub(super) struct Message(pub(super) RouteNetlinkMessage);

impl Message {
    fn content(&self) -> Option<&dyn Emitable> {
        use RouteNetlinkMessage::{
            DelAddress, DelLink, DelNeighbour, DelRoute, GetAddress, GetLink, GetRoute, NewAddress, NewLink,
            NewNeighbour, NewRoute, SetLink,
        };
        match &self.0 {
            NewLink(link) | DelLink(link) | GetLink(link) | SetLink(link) => Some(link),
            NewAddress(address) | DelAddress(address) | GetAddress(address) => Some(address),
            NewRoute(route) | DelRoute(route) | GetRoute(route) => Some(route),
            NewNeighbour(neighbour) | DelNeighbour(neighbour) => Some(neighbour),
            _ => None,
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.0.message_type()
    }

    fn buffer_len(&self) -> usize {
        self.content().map_or(0, Emitable::buffer_len)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(content) = self.content() {
            content.emit(buffer);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(match header.message_type {
            RTM_NEWLINK => RouteNetlinkMessage::NewLink(LinkMessage::parse(payload)?),
            RTM_NEWADDR => RouteNetlinkMessage::NewAddress(AddressMessage::parse(payload)?),
            RTM_NEWROUTE => RouteNetlinkMessage::NewRoute(RouteMessage::parse(payload)?),
            kind => return Err(format!("message of type {kind}, which nobody asked for").into()),
        }))
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::neighbour::NeighbourMessage;
    use rtnetlink::packet_route::nsid::NsidMessage;

    use super::*;

    fn encoded(message: &impl NetlinkSerializable) -> (u16, Vec<u8>) {
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        (message.message_type(), bytes)
    }

    /// What is sent is encoded as the crate encodes it, byte for byte; a kind that is not in the list above would be sent empty.
    #[test]
    fn every_kind_that_is_sent_is_encoded() {
        use RouteNetlinkMessage as M;
        let (link, address) = (LinkMessage::default(), AddressMessage::default());
        let (route, neighbour) = (RouteMessage::default(), NeighbourMessage::default());
        for message in [
            M::NewLink(link.clone()),
            M::DelLink(link.clone()),
            M::GetLink(link.clone()),
            M::SetLink(link),
            M::NewAddress(address.clone()),
            M::DelAddress(address.clone()),
            M::GetAddress(address),
            M::NewRoute(route.clone()),
            M::DelRoute(route.clone()),
            M::GetRoute(route),
            M::NewNeighbour(neighbour.clone()),
            M::DelNeighbour(neighbour),
        ] {
            let (kind, bytes) = encoded(&message);
            assert!(!bytes.is_empty());
            assert_eq!(encoded(&Message(message)), (kind, bytes));
        }
        assert!(encoded(&Message(M::GetNsId(NsidMessage::default()))).1.is_empty());
    }
}
