//! A rtnetlink socket: requests go in, answers come out, and nobody waits for ever.
//!
//! The kernel works through a message before `sendmsg` returns, and what it has to say is there by then. So an answer is read first, and waited
//! for only if it is not there: a request and its answer are two system calls (`docs/adr/0014-half-the-calls-of-an-add.md`).

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::{KernelError, NetlinkError};
use crate::nfnetlink::{find, text};

/// How long one request may take. Most take microseconds; the deletion of a link waits for grace periods, and behind other deletions.
const DEADLINE: Duration = Duration::from_secs(30);
/// Room for any object that is usual; a listing comes in messages that fit. What is larger is asked for again, with more room.
const RECEIVE_BUFFER: usize = 8 * 1024;

const HEADER: usize = 16;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
/// What the change is notified with is sent to who has asked for it, too.
pub(super) const NLM_F_ECHO: u16 = 8;
/// Set in a message of a dump whose objects changed meanwhile (`linux/netlink.h`); its parts may not fit together.
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;

/// A socket of the network namespace in which the calling thread opened it, and of that one only.
pub(super) struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("fd", &self.inner.as_raw_fd()).finish_non_exhaustive()
    }
}

/// One message of an answer.
pub(super) struct Heard<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Heard<'_> {
    /// Whether it is part of a listing that changed meanwhile.
    pub(super) fn is_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// The refusal that an `NLMSG_ERROR` is, or the `NLMSG_DONE` of a listing that fails midway; `None` if it is an acknowledgement or simply
    /// the end. Behind the number are attributes; those of an error come after the header of the request, cut off there (`NETLINK_CAP_ACK`).
    pub(super) fn refusal(&self) -> Option<KernelError> {
        let number = i32::from_ne_bytes(*self.payload.first_chunk()?);
        if number == 0 {
            return None;
        }
        let attributes = self.payload.get(if self.kind == NLMSG_DONE { 4 } else { 4 + HEADER }..);
        let explained = attributes.and_then(|attributes| find(attributes, NLMSGERR_ATTR_MSG)).map(text);
        Some(KernelError { errno: Errno::from_raw(number.saturating_abs()), text: explained })
    }
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        // It is bound when it is used first.
        let socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        // Older kernels (before 4.12) have neither; errors are then only numbers.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        // Since 4.20: filters of dumps are honoured.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { inner: socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// Takes a listing in the largest pieces that the kernel makes of one, 32 KiB, with room to spare: it is interrupted between pieces, by any change.
    pub(super) fn make_room_for_listings(&mut self) {
        self.buffer.clear();
        self.buffer.reserve_exact(64 * 1024);
    }

    /// Has the kernel keep so many bytes of answers.
    pub(super) fn enlarge(&mut self, bytes: usize) {
        self.make_room_for_listings();
        // Larger than rmem_max needs privilege in the initial user namespace; without it, take what is allowed.
        let _ = setsockopt(&self.inner, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.inner, sockopt::RcvBuf, &bytes));
    }

    #[cfg(test)]
    pub(super) fn use_little_room(&mut self) {
        self.buffer = Vec::with_capacity(64);
    }

    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    pub(super) fn send(&mut self, bytes: &[u8], operation: &dyn Fn() -> String) -> Result<(), NetlinkError> {
        let mut deadline = None;
        loop {
            match self.inner.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Documented of sockets in general; the kernel takes a request at once.
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && wait_for(
                            self.inner.as_raw_fd(),
                            PollFlags::POLLOUT,
                            *deadline.get_or_insert_with(|| Instant::now() + DEADLINE),
                        )
                        .is_ok() => {}
                Err(source) => return Err(NetlinkError::Socket { operation: operation(), source }),
            }
        }
    }

    /// Hands every message to `each` until that says it was the last. False if there was not room enough for all of them: there is now, for the next
    /// time.
    pub(super) fn receive(
        &mut self,
        operation: &dyn Fn() -> String,
        mut each: impl FnMut(Heard<'_>) -> bool,
    ) -> Result<bool, NetlinkError> {
        let failed = |source| NetlinkError::Socket { operation: operation(), source };
        let mut whole = true;
        let mut deadline = None;
        loop {
            self.buffer.clear();
            match self.inner.recv_from(&mut self.buffer, libc::MSG_TRUNC | libc::MSG_DONTWAIT) {
                // Not the kernel's. Who may change a namespace's network may send to any socket in it.
                Ok((_, sender)) if sender.port_number() != 0 => continue,
                Ok((length, _)) if length > self.buffer.len() => {
                    self.buffer.reserve(length.next_power_of_two());
                    whole = false;
                    continue;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // What says that it was the last has been among what was cut off.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !whole => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + DEADLINE);
                    wait_readable(self.inner.as_raw_fd(), deadline).map_err(|errno| match errno {
                        None => NetlinkError::Timeout { operation: operation(), waited: DEADLINE },
                        Some(errno) => failed(errno.into()),
                    })?;
                    continue;
                }
                Err(source) => return Err(failed(source)),
            }
            let mut rest = self.buffer.as_slice();
            while let Some((heard, next)) = split(rest) {
                if each(heard) {
                    return Ok(whole);
                }
                rest = next;
            }
        }
    }
}

/// Appends a message, whose content is appended by `fill`.
pub(super) fn message(
    into: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    into.extend_from_slice(&sequence.to_ne_bytes());
    into.extend_from_slice(&[0; 4]); // port id: the kernel knows it
    fill(into);
    let length = u32::try_from(into.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = into.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
    into.resize(into.len().next_multiple_of(4), 0);
}

pub(super) fn split(bytes: &[u8]) -> Option<(Heard<'_>, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let heard = Heard {
        kind: u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?),
        flags: u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?),
        sequence: u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?),
        payload: bytes.get(HEADER..length)?,
    };
    Some((heard, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Waits until the socket has something to read. `Err(None)` at the deadline.
pub(super) fn wait_readable(fd: i32, deadline: Instant) -> Result<(), Option<Errno>> {
    wait_for(fd, PollFlags::POLLIN, deadline)
}

/// Waits until the socket can do something. `Err(None)` at the deadline.
fn wait_for(fd: i32, what: PollFlags, deadline: Instant) -> Result<(), Option<Errno>> {
    let fd = crate::sys::borrow_fd(fd);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last fraction of a millisecond is not spent spinning.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, what)], timeout) {
            Ok(0) if left.is_zero() => return Err(None),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Some(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(socket: &mut Socket, padding: usize) -> Result<u16, NetlinkError> {
        const RTM_GETLINK: u16 = 18;
        let operation = || "look up link 1".to_owned();
        let (sequence, mut bytes) = (socket.next_sequence(), Vec::new());
        message(&mut bytes, RTM_GETLINK, 0, sequence, |into| {
            into.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            into.resize(into.len() + padding, 0);
        });
        socket.send(&bytes, &operation)?;
        let mut kind = 0;
        let whole = socket.receive(&operation, |heard| {
            kind = heard.kind;
            heard.sequence == sequence
        })?;
        Ok(if whole { kind } else { 0 })
    }

    #[test]
    fn a_request_that_could_not_be_sent_does_not_end_the_socket() {
        const RTM_NEWLINK: u16 = 16;
        let mut socket = Socket::open().unwrap();
        setsockopt(&socket.inner, sockopt::SndBuf, &4096).unwrap();
        let NetlinkError::Socket { source, operation } = lookup(&mut socket, 60_000).unwrap_err() else {
            panic!("another error")
        };
        assert_eq!(
            (source.raw_os_error(), operation.as_str()),
            (Some(Errno::EMSGSIZE as i32), "look up link 1")
        );
        // What a failed ADD has made is removed through the same socket.
        assert_eq!(lookup(&mut socket, 0).unwrap(), RTM_NEWLINK);
    }

    /// A container with `CAP_NET_ADMIN` may send to whoever has a socket in its namespace.
    #[test]
    fn an_answer_of_somebody_else_is_none() {
        const RTM_NEWLINK: u16 = 16;
        let mut socket = Socket::open().unwrap();
        lookup(&mut socket, 0).unwrap();
        let mut address = netlink_sys::SocketAddr::new(0, 0);
        socket.inner.get_address(&mut address).unwrap();
        let mut forged = Vec::new();
        message(&mut forged, NLMSG_ERROR, 0, 2, |into| {
            into.extend_from_slice(&(-(Errno::ENODEV as i32)).to_ne_bytes());
            into.extend_from_slice(&[0; HEADER]);
        });
        let somebody = netlink_sys::Socket::new(NETLINK_ROUTE).unwrap();
        somebody.send_to(&forged, &address, 0).unwrap();
        assert_eq!(lookup(&mut socket, 0).unwrap(), RTM_NEWLINK);
    }

    #[test]
    fn what_there_is_no_room_for_is_had_the_second_time() {
        const RTM_NEWLINK: u16 = 16;
        let mut socket = Socket::open().unwrap();
        socket.use_little_room();
        assert_eq!((lookup(&mut socket, 0).unwrap(), lookup(&mut socket, 0).unwrap()), (0, RTM_NEWLINK));
    }

    #[test]
    fn a_listing_that_fails_midway_says_so_where_it_ends() {
        let mut attributes = crate::nfnetlink::Attributes::new();
        attributes.string(NLMSGERR_ATTR_MSG, "no more");
        let heard = |number: i32, more: &[u8]| {
            let payload = [&number.to_ne_bytes(), more].concat();
            Heard { kind: NLMSG_DONE, flags: 0, sequence: 1, payload: &payload }.refusal()
        };
        assert_eq!(heard(0, &[]), None);
        let refused = heard(-16, attributes.as_bytes()).unwrap();
        assert_eq!((refused.errno, refused.text.as_deref()), (Errno::EBUSY, Some("no more")));
    }
}
