//! The socket and the loop that drives it.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::{Future, Stream};
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::proto::{Connection, ConnectionHandle, from_socket_with_codec};

use super::message::Message;
use super::{KernelError, NetlinkError};
use crate::netns::Netns;

/// How long one request may take. Most take microseconds; the deletion of a link waits for grace periods, and behind other deletions.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often an interrupted dump is repeated (the Go suite's number).
const DUMP_ATTEMPTS: usize = 5;

/// Set in a message of a dump whose objects changed meanwhile (`linux/netlink.h`); its parts may not fit together.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// An rtnetlink socket, bound to the network namespace it was opened in for good.
pub struct Netlink {
    connection: Pin<Box<Connection<Message, PollSocket>>>,
    handle: ConnectionHandle<Message>,
    fd: i32,
    waker: Arc<Flag>,
    failure: Failure,
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Netlink {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        open_socket().map(Self::from_socket).map_err(|source| NetlinkError::Open { source })
    }

    /// A socket in another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        let socket = netns.run(open_socket).map_err(|error| NetlinkError::Open { source: error.into() })?;
        socket.map(Self::from_socket).map_err(|source| NetlinkError::Open { source })
    }

    fn from_socket(socket: PollSocket) -> Self {
        let fd = socket.inner.as_raw_fd();
        let failure = socket.failure.clone();
        let (connection, handle, _events) = from_socket_with_codec(socket);
        Self { connection: Box::pin(connection), handle, fd, waker: Arc::new(Flag::default()), failure }
    }

    /// Sends a change and waits for its acknowledgement.
    pub(super) fn change(
        &mut self,
        message: Message,
        flags: u16,
        operation: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, &operation).map(|_| ())
    }

    /// Asks for one object. `None` if the kernel says there is no such thing.
    pub(super) fn get(
        &mut self,
        message: Message,
        operation: impl Fn() -> String,
    ) -> Result<Option<Message>, NetlinkError> {
        match self.exchange(message, NLM_F_REQUEST, &operation) {
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
            let answer = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, &operation)?;
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
            let answer = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, &operation)?;
            last = answer.messages;
            if !answer.interrupted {
                break;
            }
        }
        Ok(last)
    }

    fn exchange(
        &mut self,
        message: Message,
        flags: u16,
        operation: &dyn Fn() -> String,
    ) -> Result<Answer, NetlinkError> {
        let encodable = message.content.is_encodable();
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        let socket_failed = |source| NetlinkError::Socket { operation: operation(), source };
        if !encodable {
            return Err(socket_failed(Errno::EMSGSIZE.into()));
        }
        // Port 0 is the kernel.
        let request = self.handle.request(message, SocketAddr::new(0, 0));
        let stream = request.map_err(|error| socket_failed(io::Error::other(error.to_string())))?;
        let mut stream = Box::pin(stream);
        let mut answer = Answer::default();
        let deadline = Instant::now() + DEADLINE;
        // A request without acknowledgement and without dump is answered by one message, after which nothing ends the stream.
        let single = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        loop {
            let waker = Waker::from(Arc::clone(&self.waker));
            let mut context = Context::from_waker(&waker);
            self.waker.0.store(false, Ordering::Relaxed);
            if self.connection.as_mut().poll(&mut context).is_ready() {
                return Err(socket_failed(io::Error::from(io::ErrorKind::ConnectionAborted)));
            }
            if let Some(source) = self.failure.take() {
                return Err(socket_failed(source));
            }
            loop {
                match stream.as_mut().poll_next(&mut context) {
                    Poll::Ready(Some(message)) => {
                        answer.take(message, operation)?;
                        if single && !answer.messages.is_empty() {
                            return Ok(answer);
                        }
                    }
                    Poll::Ready(None) => return Ok(answer),
                    Poll::Pending => break,
                }
            }
            if !self.waker.0.load(Ordering::Relaxed) {
                wait_readable(self.fd, deadline).map_err(|errno| match errno {
                    None => NetlinkError::Timeout { operation: operation(), waited: DEADLINE },
                    Some(errno) => socket_failed(io::Error::from(errno)),
                })?;
            }
        }
    }
}

#[derive(Default)]
struct Answer {
    messages: Vec<Message>,
    interrupted: bool,
}

impl Answer {
    fn take(
        &mut self,
        message: NetlinkMessage<Message>,
        operation: &dyn Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(message) => self.messages.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(NetlinkError::Refused { operation: operation(), source: kernel_error(&error) });
            }
            _ => {}
        }
        Ok(())
    }
}

/// Number and text of a refusal. With `NETLINK_CAP_ACK` the payload of the error message is the header of the refused request (16 bytes),
/// then attributes; number 1 is the text (`NLMSGERR_ATTR_MSG`).
pub(super) fn kernel_error(error: &ErrorMessage) -> KernelError {
    const HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let errno = Errno::from_raw(error.raw_code().saturating_abs());
    let text = error.header.get(HEADER..).and_then(|attributes| {
        NlasIterator::new(attributes)
            .filter_map(Result::ok)
            .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
            .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned())
    });
    KernelError { errno, text }
}

/// Waits until the socket has something to read. `Err(None)` at the deadline.
pub(super) fn wait_readable(fd: i32, deadline: Instant) -> Result<(), Option<Errno>> {
    wait_for(fd, PollFlags::POLLIN, deadline)
}

/// Waits until the socket can do something. `Err(None)` at the deadline.
pub(super) fn wait_for(fd: i32, what: PollFlags, deadline: Instant) -> Result<(), Option<Errno>> {
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

fn open_socket() -> io::Result<PollSocket> {
    PollSocket::new(NETLINK_ROUTE)
}

/// Remembers that something asked to be polled again.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A non-blocking socket whose operations are pending when they would block; the loop above waits on the descriptor itself, so no waker
/// need be kept.
///
/// `netlink-proto` gives a socket up at its first error. But a kernel that was short of memory once takes the next request, and what a failed
/// ADD has made is removed through the same socket: so errors are put aside here for the loop above to find.
struct PollSocket {
    inner: Socket,
    failure: Failure,
}

/// The error of a socket that nobody has been told of yet.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn put(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl PollSocket {
    /// Sends. A request that can't be sent counts as sent: else it would be sent before the next one.
    fn sent(&self, length: usize, send: impl Fn() -> io::Result<usize>) -> usize {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let error = match send() {
                Ok(bytes) => return bytes,
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // Documented of sockets in general; the kernel takes a request at once.
                io::ErrorKind::WouldBlock
                    if wait_for(self.inner.as_raw_fd(), PollFlags::POLLOUT, deadline).is_ok() => {}
                _ => {
                    self.failure.put(error);
                    return length;
                }
            }
        }
    }

    /// Receives, or is pending. After an error, too: the answer that was lost is not waited for by anybody.
    fn received<T>(&self, mut receive: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
        loop {
            match receive() {
                Ok(value) => return Poll::Ready(Ok(value)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => {
                    self.failure.put(error);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncSocket for PollSocket {
    fn socket_ref(&self) -> &Socket {
        &self.inner
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.inner
    }

    fn new(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        // Older kernels (before 4.12) have neither; errors are then only numbers.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        // Since 4.20: filters of dumps are honoured.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { inner: socket, failure: Failure::default() })
    }

    fn poll_send(&self, _: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.sent(buffer.len(), || self.inner.send(buffer, 0))))
    }

    fn poll_send_to(
        &self,
        _: &mut Context<'_>,
        buffer: &[u8],
        address: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.sent(buffer.len(), || self.inner.send_to(buffer, address, 0))))
    }

    fn poll_recv<B: bytes::BufMut>(&self, _: &mut Context<'_>, buffer: &mut B) -> Poll<io::Result<()>> {
        self.received(|| self.inner.recv(buffer, 0).map(|_| ()))
    }

    fn poll_recv_from<B: bytes::BufMut>(
        &self,
        _: &mut Context<'_>,
        buffer: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        self.received(|| self.inner.recv_from(buffer, 0).map(|(_, address)| address))
    }

    fn poll_recv_from_full(&self, _: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.received(|| self.inner.recv_from_full())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;
    use crate::netlink::link::{IFLA_IFALIAS, IFLA_IFNAME};
    use crate::netlink::message::{LinkHeader, RTM_GETLINK, RTM_NEWLINK};
    use crate::sys::borrow_fd;

    fn lookup(alias: usize) -> Message {
        let mut message = Message::link(RTM_GETLINK, LinkHeader::default());
        message.content.string(IFLA_IFNAME, "lo");
        if alias > 0 {
            message.content.string(IFLA_IFALIAS, &"x".repeat(alias));
        }
        message
    }

    #[test]
    fn a_request_that_could_not_be_sent_does_not_end_the_socket() {
        let mut netlink = Netlink::open().unwrap();
        let fd: BorrowedFd<'_> = borrow_fd(netlink.fd);
        setsockopt(&fd, sockopt::SndBuf, &4096).unwrap();
        let error = netlink.get(lookup(60_000), || "look up link lo".to_owned()).unwrap_err();
        let NetlinkError::Socket { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.raw_os_error(), Some(Errno::EMSGSIZE as i32));
        // What a failed ADD has made is removed through the same socket.
        let found = netlink.get(lookup(0), || "look up link lo".to_owned()).unwrap();
        assert_eq!(found.map(|found| found.kind), Some(RTM_NEWLINK));
    }
}
