//! One request at a time, and its answer.

use std::io;

use super::message::Message;
use super::socket::{NLM_F_ACK, NLM_F_DUMP, NLM_F_ECHO, NLMSG_DONE, NLMSG_ERROR, Socket, message as encode};
use super::{KernelError, Link, NetlinkError};
use crate::netns::Netns;
use nix::errno::Errno;

/// How often an interrupted dump is repeated (the Go suite's number).
const DUMP_ATTEMPTS: usize = 5;

/// An rtnetlink socket, bound to the network namespace it was opened in for good.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    /// Links as they were when they were last seen here.
    pub(super) seen: Vec<Link>,
}

impl Netlink {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::open().map(Self::of).map_err(|source| NetlinkError::Open { source })
    }

    /// A socket in another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        let socket = netns.run(Socket::open).map_err(io::Error::from).and_then(|socket| socket);
        socket.map(Self::of).map_err(|source| NetlinkError::Open { source })
    }

    /// For a listing that may be long ([`Socket::make_room_for_listings`]).
    pub(super) fn make_room_for_listings(&mut self) {
        self.socket.make_room_for_listings();
    }

    #[cfg(test)]
    pub(super) fn use_little_room(&mut self) {
        self.socket.use_little_room();
    }

    fn of(socket: Socket) -> Self {
        Self { socket, seen: Vec::new() }
    }

    /// Sends a change and waits for its acknowledgement.
    pub(super) fn change(
        &mut self,
        message: &Message,
        flags: u16,
        operation: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_ACK | flags, &operation).map(|_| ())
    }

    /// The same, and what the kernel notifies of the change, where it sends that to who has asked for it.
    pub(super) fn change_echoed(
        &mut self,
        message: &Message,
        flags: u16,
        operation: impl Fn() -> String,
    ) -> Result<Option<Message>, NetlinkError> {
        let answer = self.exchange(message, NLM_F_ACK | NLM_F_ECHO | flags, &operation)?;
        Ok(answer.messages.into_iter().next())
    }

    /// Asks for one object. `None` if the kernel says there is no such thing.
    pub(super) fn get(
        &mut self,
        message: &Message,
        operation: impl Fn() -> String,
    ) -> Result<Option<Message>, NetlinkError> {
        match self.exchange(message, 0, &operation) {
            Ok(answer) => Ok(answer.messages.into_iter().next()),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for all objects of a kind, again if they changed meanwhile.
    pub(super) fn dump(
        &mut self,
        message: &Message,
        operation: impl Fn() -> String,
    ) -> Result<Vec<Message>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.listing(message, &operation)?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(NetlinkError::Interrupted { operation: operation() })
    }

    /// As [`Netlink::dump`], for objects of which those that change meanwhile do not matter: what was listed is returned even if it was
    /// interrupted every time, as it is on a host where containers come and go at once.
    pub(super) fn dump_loosely(
        &mut self,
        message: &Message,
        operation: impl Fn() -> String,
    ) -> Result<Vec<Message>, NetlinkError> {
        let mut last = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.listing(message, &operation)?;
            last = answer.messages;
            if !answer.interrupted {
                break;
            }
        }
        Ok(last)
    }

    /// One listing. Where the answer to an earlier one could not be read, the kernel is still at that one; it goes on while its rest is read here.
    fn listing(&mut self, message: &Message, operation: &dyn Fn() -> String) -> Result<Answer, NetlinkError> {
        let mut attempts = 1;
        loop {
            match self.exchange(message, NLM_F_DUMP, operation) {
                Err(error) if error.errno() == Some(Errno::EBUSY) && attempts < DUMP_ATTEMPTS => {
                    attempts += 1;
                }
                other => return other,
            }
        }
    }

    /// Asks, and once more where the answer is larger than there was room for. A change is not made twice: what there is to its answer is small.
    fn exchange(
        &mut self,
        message: &Message,
        flags: u16,
        operation: &dyn Fn() -> String,
    ) -> Result<Answer, NetlinkError> {
        for _ in 0..2 {
            let answer = self.attempt(message, flags, operation)?;
            if answer.whole || flags & NLM_F_ACK != 0 {
                return Ok(answer);
            }
        }
        Err(NetlinkError::Socket { operation: operation(), source: Errno::EMSGSIZE.into() })
    }

    fn attempt(
        &mut self,
        message: &Message,
        flags: u16,
        operation: &dyn Fn() -> String,
    ) -> Result<Answer, NetlinkError> {
        if !message.content.is_encodable() {
            return Err(NetlinkError::Socket { operation: operation(), source: Errno::EMSGSIZE.into() });
        }
        let sequence = self.socket.next_sequence();
        let mut bytes = Vec::with_capacity(256);
        encode(&mut bytes, message.kind, flags, sequence, |into| {
            into.extend_from_slice(message.content.as_bytes());
        });
        self.socket.send(&bytes, operation)?;
        // A request without acknowledgement and without dump is answered by one message, after which nothing comes.
        let single = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let mut answer = Answer::default();
        answer.whole = self.socket.receive(operation, |heard| {
            // Another number is that of a request that failed before its answer was read.
            if heard.sequence != sequence {
                return false;
            }
            answer.interrupted |= heard.is_interrupted();
            match heard.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    answer.refusal = heard.refusal();
                    true
                }
                kind => {
                    answer.messages.push(Message::received(kind, heard.payload));
                    single
                }
            }
        })?;
        match answer.refusal.take() {
            Some(source) => Err(NetlinkError::Refused { operation: operation(), source }),
            None => Ok(answer),
        }
    }
}

#[derive(Default)]
struct Answer {
    messages: Vec<Message>,
    whole: bool,
    interrupted: bool,
    refusal: Option<KernelError>,
}

#[cfg(test)]
mod tests {
    use super::super::message::{LinkHeader, RTM_GETLINK};
    use super::super::tests::pairs;
    use super::*;

    /// As after an error of the socket's: the kernel is busy with the earlier one.
    #[test]
    fn a_listing_after_one_whose_answer_was_not_read() {
        let host = testkit::Host::new();
        pairs(60);
        let mut netlink = Netlink::open().unwrap();
        let (sequence, mut bytes) = (netlink.socket.next_sequence(), Vec::new());
        let listing = Message::link(RTM_GETLINK, LinkHeader::default());
        encode(&mut bytes, listing.kind, NLM_F_DUMP, sequence, |into| {
            into.extend_from_slice(listing.content.as_bytes());
        });
        netlink.socket.send(&bytes, &|| "list links".to_owned()).unwrap();
        assert_eq!(netlink.links().unwrap().len(), 121);
        drop(host);
    }
}
