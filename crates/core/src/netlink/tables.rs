//! The kernel's forwarding tables, changed and listed in bulk.
//!
//! A request and its answer at a time cost two system calls and two copies each; five thousand peers are twenty thousand entries. Here many
//! requests go in one message, and only what failed is answered: the kernel works through a message before `sendmsg` returns, in order, and
//! reports errors unasked, so one acknowledgement at the end says that there are no more.

use nix::errno::Errno;

use super::entry::wire::{GET, RTM_NEWNEIGH, RTM_NEWNEXTHOP, RTM_NEWROUTE};
use super::entry::{Change, Fdb, Neighbour, Nexthop, PrefixRoute};
use super::socket::{Heard, NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, Socket, message};
use super::{KernelError, NetlinkError};

/// How many requests go in one message. Were all of them refused, their answers still fit the smallest usual receive buffer (208 KiB).
const CHUNK: usize = 128;
/// Asked of the kernel as `SO_RCVBUF`.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// How often a listing is repeated because entries changed under it.
const ATTEMPTS: usize = 5;

/// One of many changes that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of them, counted from 0.
    pub index: usize,
    /// The kernel's answer.
    pub error: KernelError,
}

/// The tables of the network namespace in which the calling thread opened this.
#[derive(Debug)]
pub struct Tables {
    socket: Socket,
}

impl Tables {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::open().map_err(|source| NetlinkError::Open { source })?;
        socket.enlarge(SOCKET_BUFFER);
        Ok(Self { socket })
    }

    /// Makes changes, in order. One that is refused does not keep the others from being made; all that were are returned. Removal of what
    /// is not there counts as done.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Vec<Refusal>, NetlinkError> {
        let mut refusals = Vec::new();
        for (number, chunk) in changes.chunks(CHUNK).enumerate() {
            let base = number * CHUNK;
            let mut bytes = Vec::with_capacity(chunk.len() * 96);
            let (mut first, mut last) = (None, 0);
            for (index, change) in chunk.iter().enumerate() {
                last = self.next_sequence();
                first.get_or_insert(last);
                let (kind, mut flags) = change.kind();
                if index + 1 == chunk.len() {
                    flags |= NLM_F_ACK;
                }
                message(&mut bytes, kind, flags, last, |into| change.encode(into));
            }
            let operation = || format!("make {} changes of forwarding tables", chunk.len());
            self.send(&bytes, &operation)?;
            let first = first.unwrap_or(last);
            self.receive(&operation, |heard| {
                let index = usize::try_from(heard.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if heard.kind != NLMSG_ERROR || index >= chunk.len() {
                    return false;
                }
                let error = heard.refusal();
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
                whole &= !heard.is_interrupted();
                match heard.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        failed = heard.refusal();
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
        self.socket.next_sequence()
    }

    pub(super) fn send(&mut self, bytes: &[u8], operation: &dyn Fn() -> String) -> Result<(), NetlinkError> {
        self.socket.send(bytes, operation)
    }

    pub(super) fn receive(
        &mut self,
        operation: &dyn Fn() -> String,
        each: impl FnMut(Heard<'_>) -> bool,
    ) -> Result<(), NetlinkError> {
        if self.socket.receive(operation, each)? {
            return Ok(());
        }
        Err(NetlinkError::Socket { operation: operation(), source: Errno::EMSGSIZE.into() })
    }
}

/// What the kernel says of an object that is not there, which differs from table to table.
fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV)
}
