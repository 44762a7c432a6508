//! Closing a netfilter socket without waiting for the kernel.
//!
//! When a netfilter netlink socket is closed, `nf_tables` waits for the objects that were deleted in its network namespace, by anybody, to be
//! freed: a grace period, 10 ms and more (`nft_rcv_nl_event` and `nf_tables_trans_destroy_flush_work` in the kernel's `nf_tables_api.c`). It would
//! take away tables that the socket owned; we own none. What was deleted is out of force before that, since the transaction, and nothing
//! that we still have to do depends on the memory.
//!
//! So the last reference to the socket is not ours: it travels in a message on a Unix socket that waits to be received by itself.
//! That is a cycle, which the kernel's collector of such sockets (`unix(7)`, `net/unix/garbage.c`) takes apart as soon as nobody else holds it. Since
//! Linux 6.9 it does so by itself, after we have gone on; before that, closing waits as it always did.
//!
//! The collector starts when any Unix socket of the host is closed. While it waits in our stead, it holds the mutex of `nf_tables`, which the deletion
//! of a link needs (`nf_tables_netdev_event`): the one of the attachment's own link, or of the next container's. So DEL and GC close
//! none of these Unix sockets and have it start later: [`leave`].

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

/// Whether closing is left to others.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Leaves the netfilter sockets that this process closes from here on to whoever closes a Unix socket next: on most hosts some program in a moment, at
/// the latest a plugin that has made something, when it closes its own. By then there is mostly nothing to wait for.
pub(crate) fn leave() {
    LEFT.store(true, Ordering::Relaxed);
}

/// A message under way to nobody. To be dropped after the socket that it carries; then the kernel has the last reference.
#[derive(Debug)]
pub(super) struct Farewell {
    /// Dropped first, so that the cycle has no other holder when the second one's end has the kernel look for such.
    _addressee: OwnedFd,
    _sender: OwnedFd,
}

impl Farewell {
    /// Sends a socket. `None` where the kernel has a limit in the way; closing it then waits.
    pub(super) fn to(socket: &impl AsFd) -> Option<Self> {
        let (addressee, sender) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .ok()?;
        // With the sender on its way as well, no Unix socket is closed here at all.
        let travellers = [socket.as_fd().as_raw_fd(), addressee.as_raw_fd(), sender.as_raw_fd()];
        let count = if LEFT.load(Ordering::Relaxed) { 3 } else { 2 };
        let control = [ControlMessage::ScmRights(&travellers[..count])];
        sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(b"-")], &control, MsgFlags::empty(), None).ok()?;
        Some(Self { _addressee: addressee, _sender: sender })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::super::Socket;

    /// The netfilter sockets of this network namespace, which is the test's own.
    fn sockets() -> usize {
        let listing = fs::read_to_string("/proc/net/netlink").unwrap();
        listing.lines().filter(|line| line.split_whitespace().nth(1) == Some("12")).count()
    }

    fn gone_by(deadline: Instant, before: usize) {
        while sockets() > before {
            assert!(Instant::now() < deadline, "{} sockets are left", sockets() - before);
            sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_kernel_takes_what_was_sent_away() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let before = sockets();
        let open: Vec<Socket> = (0..20).map(|_| Socket::open(deadline).unwrap()).collect();
        assert_eq!(sockets(), before + 20);
        drop(open);
        for _ in 0..200 {
            drop(Socket::open(deadline).unwrap());
        }
        gone_by(deadline, before);
    }

    #[test]
    fn what_is_left_to_others_goes_when_a_unix_socket_is_closed() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let before = sockets();
        super::leave();
        for _ in 0..20 {
            drop(Socket::open(deadline).unwrap());
        }
        drop(UnixDatagram::unbound().unwrap());
        gone_by(deadline, before);
    }
}
