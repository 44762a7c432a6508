//! Waiting for the kernel to get somewhere, by its own notifications.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::socket::wait_readable;
use super::{Netlink, NetlinkError};
use crate::netns::Netns;

/// Multicast groups of rtnetlink (`linux/rtnetlink.h`).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// A socket that becomes readable when a link or an IPv6 address changes.
struct Monitor(Socket);

impl Monitor {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.add_membership(RTNLGRP_LINK)?;
        socket.add_membership(RTNLGRP_IPV6_IFADDR)?;
        Ok(Self(socket))
    }

    /// Forgets what has been notified so far. An overflow is as good as a notification.
    fn drain(&self) {
        while self.0.recv_from_full().is_ok() {}
    }
}

impl Netlink {
    /// Waits until `done` returns something, looking again after every change of a link or an IPv6 address in this socket's namespace
    /// (`netns`; `None` for the calling thread's). `Ok(None)` after `limit`.
    pub fn wait_for<T>(
        &mut self,
        netns: Option<&Netns>,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> Result<Option<T>, NetlinkError>,
    ) -> Result<Option<T>, NetlinkError> {
        if let Some(found) = done(self)? {
            return Ok(Some(found));
        }
        let opened = match netns {
            None => Monitor::open(),
            Some(netns) => netns.run(Monitor::open).map_err(io::Error::other).and_then(|monitor| monitor),
        };
        let monitor = opened.map_err(|source| NetlinkError::Open { source })?;
        let deadline = Instant::now() + limit;
        loop {
            // Looked at after the monitor was opened, so that nothing falls in between.
            if let Some(found) = done(self)? {
                return Ok(Some(found));
            }
            match wait_readable(monitor.0.as_raw_fd(), deadline) {
                Ok(()) => monitor.drain(),
                Err(None) => return Ok(None),
                Err(Some(errno)) => {
                    return Err(NetlinkError::Socket {
                        operation: "wait for a change".to_owned(),
                        source: errno.into(),
                    });
                }
            }
        }
    }
}
