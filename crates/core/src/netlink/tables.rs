//! The kernel's forwarding tables, changed and listed in bulk.
//!
//! A request and its answer at a time cost two system calls and two copies each; five thousand peers are twenty thousand entries. Here many
//! requests go in one message, and only what failed is answered: the kernel works through a message before `sendmsg` returns, in order, and
//! reports errors unasked, so one acknowledgement at the end says that there are no more.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};

use super::connection::{wait_for, wait_readable};
use super::entry::wire::{GET, RTM_NEWNEIGH, RTM_NEWNEXTHOP, RTM_NEWROUTE};
use super::entry::{Change, Fdb, Neighbour, Nexthop, PrefixRoute};
use super::{KernelError, NetlinkError};
use crate::nfnetlink::{find, text};

/// How many requests go in one message. Were all of them refused, their answers still fit the smallest usual receive buffer (208 KiB).
const CHUNK: usize = 128;
/// Twice the most that the kernel puts into one message of a listing.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Asked of the kernel as `SO_RCVBUF`.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a listing is repeated because entries changed under it.
const ATTEMPTS: usize = 5;

const HEADER: usize = 16;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// One of many changes that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of them, counted from 0.
    pub index: usize,
    /// The kernel's answer.
    pub error: KernelError,
}

/// The tables of the network namespace in which the calling thread opened this.
pub struct Tables {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("fd", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}

/// One message of an answer.
pub(super) struct Heard<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Tables {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            socket.bind_auto()?;
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            // Since 4.20: the kernel sends only what was asked for.
            let _ = socket.set_netlink_get_strict_chk(true);
            // Larger than rmem_max needs privilege in the initial user namespace; without it, take what is allowed.
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
                .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER));
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError::Open { source })?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// Makes changes, in order. One that is refused does not keep the others from being made; all that were are returned. Removal of what
    /// is not there counts as done.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Vec<Refusal>, NetlinkError> {
        let mut refusals = Vec::new();
        for (number, chunk) in changes.chunks(CHUNK).enumerate() {
            let base = number * CHUNK;
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::with_capacity(chunk.len() * 96);
            for (index, change) in chunk.iter().enumerate() {
                self.sequence = self.sequence.wrapping_add(1);
                let (kind, mut flags) = change.kind();
                if index + 1 == chunk.len() {
                    flags |= NLM_F_ACK;
                }
                message(&mut bytes, kind, flags, self.sequence, |into| change.encode(into));
            }
            let operation = || format!("make {} changes of forwarding tables", chunk.len());
            self.send(&bytes, &operation)?;
            let last = self.sequence;
            self.receive(&operation, |heard| {
                let index = usize::try_from(heard.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if heard.kind != NLMSG_ERROR || index >= chunk.len() {
                    return false;
                }
                let error = refusal(heard.payload);
                let removal = chunk.get(index).is_some_and(|change| matches!(change, Change::Remove(_)));
                refusals.extend(
                    error
                        .filter(|error| !(removal && is_missing(error.errno)))
                        .map(|error| Refusal { index: base + index, error }),
                );
                heard.sequence == last
            })?;
        }
        Ok(refusals)
    }

    /// The permanent neighbours on a link.
    pub fn neighbours(&mut self, link: u32, ipv4: bool) -> Result<Vec<Neighbour>, NetlinkError> {
        let request = Neighbour::list(link, ipv4);
        // Kernels before 4.20 do not filter.
        let decode = |payload: &[u8]| Neighbour::decode(payload).filter(|neighbour| neighbour.link == link);
        self.list(RTM_NEWNEIGH, &request, "neighbours", true, decode)
    }

    /// The static FDB entries of a VXLAN device, and those of its bridge for it, each as one of its own.
    pub fn fdb(&mut self, link: u32) -> Result<Vec<Fdb>, NetlinkError> {
        let decode = |payload: &[u8]| Fdb::decode(payload).filter(|fdb| fdb.link == link);
        self.list(RTM_NEWNEIGH, &Fdb::list(link), "FDB entries", true, decode)
    }

    /// All nexthop objects; `None` where the kernel has none (before 5.3).
    pub fn nexthops(&mut self) -> Result<Option<Vec<Nexthop>>, NetlinkError> {
        self.known(&Nexthop::list())
    }

    /// Whether FDB entries can point at nexthop objects (since Linux 5.8, where it is built in).
    pub fn has_fdb_nexthops(&mut self) -> Result<bool, NetlinkError> {
        Ok(self.known(&Nexthop::list_of_none())?.is_some())
    }

    /// The nexthop objects that a request is for; `None` where the kernel does not know what is asked.
    fn known(&mut self, request: &[u8]) -> Result<Option<Vec<Nexthop>>, NetlinkError> {
        match self.list(RTM_NEWNEXTHOP, request, "nexthops", false, Nexthop::decode) {
            Ok(all) => Ok(Some(all)),
            Err(error) if matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EINVAL)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The routes of the main table with a protocol number.
    pub fn routes(&mut self, ipv4: bool, protocol: u8) -> Result<Vec<PrefixRoute>, NetlinkError> {
        let request = PrefixRoute::list(ipv4, protocol);
        let decode = |payload: &[u8]| PrefixRoute::decode(payload).filter(|route| route.protocol == protocol);
        self.list(RTM_NEWROUTE, &request, "routes", true, decode)
    }

    /// All routes of the main table, whoever has made them: there may be a million.
    pub(super) fn all_routes(&mut self, ipv4: bool) -> Result<Vec<PrefixRoute>, NetlinkError> {
        self.list(RTM_NEWROUTE, &PrefixRoute::list(ipv4, 0), "routes", true, PrefixRoute::decode)
    }

    fn list<T>(
        &mut self,
        kind: u16,
        request: &[u8],
        what: &str,
        loose: bool,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let operation = || format!("list {what}");
        for attempt in 1..=ATTEMPTS {
            let sequence = self.next_sequence();
            let mut bytes = Vec::new();
            message(&mut bytes, kind + GET, NLM_F_DUMP, sequence, |into| into.extend_from_slice(request));
            self.send(&bytes, &operation)?;
            let mut found = Vec::new();
            let mut failed = None;
            let mut whole = true;
            self.receive(&operation, |heard| {
                if heard.sequence != sequence {
                    return false;
                }
                whole &= heard.flags & NLM_F_DUMP_INTR == 0;
                match heard.kind {
                    NLMSG_DONE => return true,
                    NLMSG_ERROR => {
                        failed = refusal(heard.payload);
                        return true;
                    }
                    _ if heard.kind == kind => found.extend(decode(heard.payload)),
                    _ => {}
                }
                false
            })?;
            match failed {
                Some(source) => return Err(NetlinkError::Refused { operation: operation(), source }),
                // What interrupts these again and again are changes of other links, whose entries were not asked for.
                None if whole || (loose && attempt > 1) => return Ok(found),
                None => {}
            }
        }
        Err(NetlinkError::Interrupted { operation: operation() })
    }

    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    pub(super) fn send(&mut self, bytes: &[u8], operation: &dyn Fn() -> String) -> Result<(), NetlinkError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && wait_for(self.socket.as_raw_fd(), PollFlags::POLLOUT, deadline).is_ok() => {}
                Err(source) => return Err(NetlinkError::Socket { operation: operation(), source }),
            }
        }
    }

    /// Hands every message to `each` until that says it was the last.
    pub(super) fn receive(
        &mut self,
        operation: &dyn Fn() -> String,
        mut each: impl FnMut(Heard<'_>) -> bool,
    ) -> Result<(), NetlinkError> {
        let deadline = Instant::now() + DEADLINE;
        let failed = |source| NetlinkError::Socket { operation: operation(), source };
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_readable(self.socket.as_raw_fd(), deadline).map_err(|errno| match errno {
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
                    return Ok(());
                }
                rest = next;
            }
        }
    }
}

/// What the kernel says of an object that is not there, which differs from table to table.
fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV)
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
    into.extend_from_slice(&[0; 4]);
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

/// The refusal in a message of type `NLMSG_ERROR`; `None` if it is an acknowledgement. Behind the number is the header of the request, cut off
/// there, and then attributes.
pub(super) fn refusal(payload: &[u8]) -> Option<KernelError> {
    let number = i32::from_ne_bytes(*payload.first_chunk()?);
    if number == 0 {
        return None;
    }
    let explained =
        payload.get(4 + HEADER..).and_then(|attributes| find(attributes, NLMSGERR_ATTR_MSG)).map(text);
    Some(KernelError { errno: Errno::from_raw(number.saturating_abs()), text: explained })
}
