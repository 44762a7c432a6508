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

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

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
        let travellers = [addressee.as_raw_fd(), socket.as_fd().as_raw_fd()];
        let control = [ControlMessage::ScmRights(&travellers)];
        sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(b"-")], &control, MsgFlags::empty(), None).ok()?;
        Some(Self { _addressee: addressee, _sender: sender })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::super::Socket;

    /// The netfilter sockets of this network namespace, which is the test's own.
    fn sockets() -> usize {
        let listing = fs::read_to_string("/proc/net/netlink").unwrap();
        listing.lines().filter(|line| line.split_whitespace().nth(1) == Some("12")).count()
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
        while sockets() > before {
            assert!(Instant::now() < deadline, "{} sockets are left", sockets() - before);
            sleep(Duration::from_millis(5));
        }
    }
}
