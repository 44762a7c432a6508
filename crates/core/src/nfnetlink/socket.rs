//! One `NETLINK_NETFILTER` socket: send a request, read its answers, know which of them failed and why.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::Error;
use super::attribute::{Attributes, find, text};
use super::farewell::Farewell;

/// Size of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// The kernel fills dump messages up to the size of the buffer it is offered, at most 32 KiB. Twice that never truncates.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Asked of the kernel as `SO_RCVBUF`; it grants what `net.core.rmem_max` allows, unless the caller is privileged.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// How often a read is repeated because the list changed under it or answers were dropped.
pub(crate) const ATTEMPTS: u32 = 5;
/// `enum nlmsgerr_attrs` in `linux/netlink.h`: the text, and the offset of the offending attribute in the request.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
/// Flags of an acknowledgement: the request is not echoed, extended-ACK attributes follow.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
/// Flag of a dump message: the list changed since the dump began, entries may be missing or doubled.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// The type of a netfilter message: the subsystem, and the message within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) subsystem: u8,
    pub(crate) message: u8,
}

impl From<Kind> for u16 {
    fn from(kind: Kind) -> Self {
        u16::from_be_bytes([kind.subsystem, kind.message])
    }
}

/// A request, complete but for its sequence number.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    /// `NLM_F_*`; `NLM_F_REQUEST` is added.
    pub(crate) flags: i32,
    /// `NFPROTO_*`.
    pub(crate) family: u8,
    /// Only the batch messages use it: the subsystem the batch is for.
    pub(crate) resource: u16,
    pub(crate) attributes: Attributes,
}

impl Message {
    pub(crate) fn new(kind: impl Into<u16>, flags: i32, family: u8) -> Self {
        Self { kind: kind.into(), flags, family, resource: 0, attributes: Attributes::new() }
    }

    /// Appends the message to `out`, with `extra` flags.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, sequence: u32, extra: i32) {
        let length = HEADER + GENERIC + self.attributes.as_bytes().len();
        let flags = self.flags | extra | libc::NLM_F_REQUEST;
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&u16::try_from(flags).unwrap_or(0).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&[0; 4]); // port id: the kernel knows it
        out.extend_from_slice(&[self.family, 0]);
        out.extend_from_slice(&self.resource.to_be_bytes());
        out.extend_from_slice(self.attributes.as_bytes());
    }
}

/// One data message of the kernel's answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// `NFPROTO_*` or `AF_*` of the object.
    pub(crate) family: u8,
    /// Its attributes, encoded.
    pub(crate) attributes: &'a [u8],
}

/// The kernel's refusal of one request.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    /// The explanation in words, where the kernel has one.
    pub(crate) text: Option<String>,
    /// Where in the request the offending attribute starts, counted from its netlink header.
    pub(crate) offset: Option<usize>,
}

impl Refusal {
    /// What to show beside the error code: the kernel's words, or else the name in the request it pointed at.
    ///
    /// `nf_tables` explains little in words but nearly always points; for a missing table, chain or set it points at the name.
    pub(crate) fn detail(&self, request: &Message) -> Option<String> {
        self.text.clone().or_else(|| {
            let at = self.offset?.checked_sub(HEADER + GENERIC)?;
            let (_, payload) = super::parse(request.attributes.as_bytes().get(at..)?).next()?;
            let (terminator, name) = payload.split_last()?;
            let printable = !name.is_empty() && *terminator == 0 && name.iter().all(u8::is_ascii_graphic);
            printable.then(|| format!("the kernel points at '{}'", text(name)))
        })
    }

    pub(crate) fn into_error(self, operation: &dyn Display, request: &Message) -> Error {
        let detail = self.detail(request);
        Error::Rejected { operation: operation.to_string(), detail, errno: self.errno }
    }
}

/// One message as it came from the kernel.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    Data(Answer<'a>),
    /// The end of a dump, or an acknowledgement.
    Done,
    Refused(Refusal),
}

/// Why a datagram could not be read whole.
enum Gap {
    /// The kernel dropped messages: the socket's receive buffer was full (`ENOBUFS`).
    Overrun,
    /// The datagram was longer than our buffer, which has been enlarged.
    Truncated,
}

/// A socket of the network namespace in which the calling thread opened it, and of that one only.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    /// Sent at the end; fields are dropped in this order.
    farewell: Option<Farewell>,
    deadline: Instant,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.farewell = Farewell::to(&self.inner);
    }
}

impl Socket {
    /// Opens the socket. Where a later call would have to wait beyond `deadline`, it fails with [`Error::TimedOut`].
    pub(crate) fn open(deadline: Instant) -> Result<Self, Error> {
        let step = |step| move |source| Error::Open { step, source };
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(step("socket"))?;
        socket.bind_auto().map_err(step("bind"))?;
        socket.set_non_blocking(true).map_err(step("set non-blocking"))?;
        socket.set_ext_ack(true).map_err(step("NETLINK_EXT_ACK"))?;
        socket.set_cap_ack(true).map_err(step("NETLINK_CAP_ACK"))?;
        // Larger than rmem_max needs CAP_NET_ADMIN in the initial user namespace; without it, take what is allowed.
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER))
            .map_err(|errno| Error::Open { step: "SO_RCVBUF", source: errno.into() })?;
        Ok(Self {
            inner: socket,
            farewell: None,
            deadline,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// Makes the receive buffer as small as the kernel allows, so that a few answers overflow it.
    #[cfg(test)]
    pub(crate) fn starve(&self) {
        setsockopt(&self.inner, sockopt::RcvBuf, &0).unwrap();
    }

    /// Reserves `count` sequence numbers and gives the first.
    pub(crate) fn reserve(&mut self, count: u32) -> u32 {
        // Zero marks unsolicited messages; a socket lives for one plugin call and never gets near wrapping.
        let first = self.sequence + 1;
        self.sequence += count;
        first
    }

    /// Asks one question and gives every answer that `read` understands, in the kernel's order.
    ///
    /// A dump that a concurrent change interrupted (`NLM_F_DUMP_INTR`), or of which answers were dropped, is repeated.
    pub(crate) fn query<T>(
        &mut self,
        request: &Message,
        operation: &dyn Display,
        mut read: impl FnMut(Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        // A dump ends with NLMSG_DONE; for anything else an acknowledgement marks the end of the answers.
        let dump = request.flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let acknowledge = if dump { 0 } else { libc::NLM_F_ACK };
        for _ in 0..ATTEMPTS {
            let sequence = self.reserve(1);
            let mut bytes = Vec::new();
            request.encode(&mut bytes, sequence, acknowledge);
            self.send(&bytes, operation)?;

            let mut answers = Vec::new();
            let mut refusal = None;
            let complete = self.receive(operation, |number, received| {
                if number != sequence {
                    return false;
                }
                match received {
                    Received::Data(answer) => answers.extend(read(answer)),
                    Received::Done => return true,
                    Received::Refused(refused) => {
                        refusal = Some(refused);
                        return true;
                    }
                }
                false
            })?;
            match refusal {
                Some(Refusal { errno: Errno::EINTR, .. }) => {}
                Some(refusal) => return Err(refusal.into_error(operation, request)),
                None if complete => return Ok(answers),
                None => {}
            }
        }
        Err(Error::Interrupted { operation: operation.to_string(), attempts: ATTEMPTS })
    }

    /// Hands `bytes` to the kernel, which works through them before it returns.
    pub(crate) fn send(&mut self, bytes: &[u8], operation: &dyn Display) -> Result<(), Error> {
        let mut enlarged = false;
        loop {
            let Err(source) = self.inner.send(bytes, 0) else { return Ok(()) };
            match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINTR) => {}
                Some(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT, operation)?,
                // A batch must go in one piece. The kernel doubles the value it is given, for its own bookkeeping.
                Some(Errno::EMSGSIZE) if !enlarged => {
                    enlarged = true;
                    let _ = setsockopt(&self.inner, sockopt::SndBufForce, &bytes.len())
                        .or_else(|_| setsockopt(&self.inner, sockopt::SndBuf, &bytes.len()));
                }
                _ => {
                    return Err(Error::Send {
                        operation: operation.to_string(),
                        length: bytes.len(),
                        source,
                    });
                }
            }
        }
    }

    /// Hands every message to `each`, with its sequence number, until it says that the last one has come.
    ///
    /// False if messages may be missing from what `each` has seen. The rest is read all the same, so that the socket is
    /// ready for the next question; but when answers were dropped and nothing more comes, there is no last one to wait for.
    pub(crate) fn receive(
        &mut self,
        operation: &dyn Display,
        mut each: impl FnMut(u32, Received<'_>) -> bool,
    ) -> Result<bool, Error> {
        let mut complete = true;
        loop {
            match self.datagram(operation, !complete)? {
                None => return Ok(false),
                Some(Err(Gap::Overrun | Gap::Truncated)) => {
                    complete = false;
                    continue;
                }
                Some(Ok(())) => {}
            }
            let mut rest = self.buffer.as_slice();
            while let Some((header, payload, next)) = split(rest) {
                complete &= header.flags & NLM_F_DUMP_INTR == 0;
                if each(header.sequence, interpret(&header, payload)) {
                    return Ok(complete);
                }
                rest = next;
            }
        }
    }

    /// Whether the kernel refused the request with this sequence number, which asked for no answer.
    pub(crate) fn refusal_of(
        &mut self,
        sequence: u32,
        operation: &dyn Display,
    ) -> Result<Option<Refusal>, Error> {
        // The kernel is done with a request when it has been sent: what it had to say has arrived.
        while let Some(arrived) = self.datagram(operation, true)? {
            if arrived.is_err() {
                continue;
            }
            let mut rest = self.buffer.as_slice();
            while let Some((header, payload, next)) = split(rest) {
                if let Received::Refused(refusal) = interpret(&header, payload)
                    && header.sequence == sequence
                {
                    return Ok(Some(refusal));
                }
                rest = next;
            }
        }
        Ok(None)
    }

    /// Reads one datagram into the buffer. `None` if there is none now and `only_if_ready`.
    fn datagram(
        &mut self,
        operation: &dyn Display,
        only_if_ready: bool,
    ) -> Result<Option<Result<(), Gap>>, Error> {
        loop {
            self.buffer.clear();
            let source = match self.inner.recv_from(&mut self.buffer, libc::MSG_TRUNC) {
                // Not the kernel's. Who may change a namespace's network may send to any socket in it.
                Ok((_, sender)) if sender.port_number() != 0 => continue,
                Ok((length, _)) if length > self.buffer.len() => {
                    self.buffer.reserve(length.next_power_of_two());
                    return Ok(Some(Err(Gap::Truncated)));
                }
                Ok(_) => return Ok(Some(Ok(()))),
                Err(source) => source,
            };
            match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINTR) => {}
                Some(Errno::EAGAIN) if only_if_ready => return Ok(None),
                Some(Errno::EAGAIN) => self.wait(PollFlags::POLLIN, operation)?,
                Some(Errno::ENOBUFS) => return Ok(Some(Err(Gap::Overrun))),
                _ => return Err(Error::Receive { operation: operation.to_string(), source }),
            }
        }
    }

    fn wait(&self, events: PollFlags, operation: &dyn Display) -> Result<(), Error> {
        let timed_out = || Error::TimedOut { operation: operation.to_string() };
        loop {
            let left = self.deadline.checked_duration_since(Instant::now()).ok_or_else(timed_out)?;
            // Rounded up: a timeout of zero would spin through the last millisecond.
            let timeout =
                PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.inner.as_fd(), events)], timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => {
                    let source = io::Error::from(errno);
                    return Err(Error::Receive { operation: operation.to_string(), source });
                }
            }
        }
    }
}

/// The fields of a netlink header that matter here.
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Splits the first message off a datagram: its header, its payload, and what follows.
fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let header = Header {
        kind: u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?),
        flags: u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?),
        sequence: u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?),
    };
    let payload = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header, payload, next))
}

fn interpret<'a>(header: &Header, payload: &'a [u8]) -> Received<'a> {
    match i32::from(header.kind) {
        libc::NLMSG_ERROR | libc::NLMSG_DONE => {
            // The code is negative; zero is an acknowledgement. A dump that fails midway says so in its NLMSG_DONE.
            let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
            if code == 0 {
                return Received::Done;
            }
            let extended = extended_ack(header, payload);
            Received::Refused(Refusal {
                errno: Errno::from_raw(code.saturating_neg()),
                text: find(extended, NLMSGERR_ATTR_MSG).map(text),
                offset: find(extended, NLMSGERR_ATTR_OFFS)
                    .and_then(|bytes| usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()),
            })
        }
        _ => Received::Data(Answer {
            family: payload.first().copied().unwrap_or_default(),
            attributes: payload.get(GENERIC..).unwrap_or_default(),
        }),
    }
}

/// The messages of a datagram, for a fuzz target.
#[cfg(fuzzing)]
pub(crate) fn messages(mut bytes: &[u8], mut each: impl FnMut(Received<'_>)) {
    while let Some((header, payload, next)) = split(bytes) {
        assert!(next.len() < bytes.len(), "the same message again and again");
        each(interpret(&header, payload));
        bytes = next;
    }
}

/// The extended-ACK attributes: behind the error code, and behind the request or its header, which the kernel echoes.
fn extended_ack<'a>(header: &Header, payload: &'a [u8]) -> &'a [u8] {
    if header.flags & NLM_F_ACK_TLVS == 0 {
        return &[];
    }
    let start = match i32::from(header.kind) {
        libc::NLMSG_DONE => 4,
        _ if header.flags & NLM_F_CAPPED != 0 => 4 + HEADER,
        _ => {
            let echoed =
                payload.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
            4 + usize::try_from(echoed).unwrap_or(usize::MAX - 8).next_multiple_of(4)
        }
    };
    payload.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Kind = Kind { subsystem: 10, message: 6 };

    fn request() -> Message {
        let mut request = Message::new(RULE, libc::NLM_F_CREATE, 1);
        request.attributes.string(1, "table").string(2, "chain").be32(3, 7);
        request
    }

    /// An `NLMSG_ERROR` as the kernel sends it: code, header of the request, extended-ACK attributes.
    fn refusal(code: i32, flags: u16, echoed: &[u8], extended: &Attributes) -> Vec<u8> {
        let payload = [&code.to_ne_bytes(), echoed, extended.as_bytes()].concat();
        let mut bytes = u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(u16::try_from(libc::NLMSG_ERROR).unwrap().to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(9_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    fn received(bytes: &[u8]) -> Refusal {
        let (header, payload, rest) = split(bytes).unwrap();
        assert_eq!((header.sequence, rest.len()), (9, 0));
        match interpret(&header, payload) {
            Received::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_has_both_headers() {
        let mut bytes = Vec::new();
        request().encode(&mut bytes, 5, libc::NLM_F_ACK);
        let (header, payload, rest) = split(&bytes).unwrap();
        assert_eq!((header.kind, header.sequence, rest.len()), (0x0a06, 5, 0));
        assert_eq!(i32::from(header.flags), libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_ACK);
        assert_eq!(payload[..4], [1, 0, 0, 0]);
        assert_eq!(&payload[4..], request().attributes.as_bytes());
    }

    #[test]
    fn the_kernels_words_are_shown() {
        let mut extended = Attributes::new();
        extended.string(NLMSGERR_ATTR_MSG, "Chain of type \"nat\" is not supported");
        for (flags, echoed) in [(NLM_F_CAPPED, vec![0; 16]), (0, [24_u32.to_ne_bytes(); 6].concat())] {
            let refusal = received(&refusal(-95, flags | NLM_F_ACK_TLVS, &echoed, &extended));
            assert_eq!(refusal.errno, Errno::EOPNOTSUPP);
            assert_eq!(refusal.detail(&request()).as_deref(), Some("Chain of type \"nat\" is not supported"));
        }
    }

    #[test]
    fn where_the_kernel_only_points_the_name_there_is_shown() {
        let detail_at = |offset: u32| {
            let mut extended = Attributes::new();
            extended.bytes(NLMSGERR_ATTR_OFFS, &offset.to_ne_bytes());
            received(&refusal(-2, NLM_F_CAPPED | NLM_F_ACK_TLVS, &[0; 16], &extended)).detail(&request())
        };
        assert_eq!(detail_at(20).as_deref(), Some("the kernel points at 'table'"));
        assert_eq!(detail_at(32).as_deref(), Some("the kernel points at 'chain'"));
        assert_eq!(detail_at(44), None, "a number");
        assert_eq!(detail_at(2), None, "the header");
        assert_eq!(detail_at(u32::MAX), None, "beyond the end");
    }

    #[test]
    fn nobody_waits_beyond_the_deadline() {
        let mut socket = Socket::open(Instant::now()).unwrap();
        let unasked = socket.receive(&"hear what nobody says", |_, _| true).unwrap_err();
        assert_eq!(
            unasked.to_string(),
            "cannot hear what nobody says: no answer from the kernel before the deadline"
        );
    }

    #[test]
    fn damaged_answers_do_no_harm() {
        let mut extended = Attributes::new();
        extended.string(NLMSGERR_ATTR_MSG, "words");
        let whole = refusal(-2, NLM_F_ACK_TLVS, &[0xff; 16], &extended);
        assert!(received(&whole).text.is_none(), "an echoed length that cannot be");
        for cut in 0..whole.len() {
            assert!(split(&whole[..cut]).is_none(), "cut at {cut}");
        }
        let too_short = [3_u32.to_ne_bytes(); 5].concat();
        assert!(split(&too_short).is_none(), "a length below the header's own would loop for ever");
    }
}
