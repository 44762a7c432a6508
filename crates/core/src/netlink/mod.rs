//! rtnetlink: one [`Netlink`] a network namespace, synchronous outside.
//!
//! Messages are written and read here (`message.rs` says why), and so is what goes over the socket: text of extended acknowledgements, dumps that
//! were interrupted, deadlines (`docs/adr/0014-half-the-calls-of-an-add.md`). `rtnetlink`'s own encoders and decoders are what the tests compare with.

use std::fmt;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;

mod address;
mod bridge;
mod connection;
mod entry;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod link;
mod message;
mod monitor;
mod path;
mod route;
mod socket;
mod solicit;
mod tables;
#[cfg(test)]
mod tests;
mod vxlan;

pub use address::{AddressState, InterfaceAddress};
pub use bridge::{BridgeSettings, PortSettings, Vlan, VlanRange};
pub use connection::Netlink;
pub use entry::{Change, Entry, Fdb, FdbTarget, Neighbour, Nexthop, NexthopKind, PrefixRoute, Way, is_echo};
pub use link::{Link, LinkChange, MacAddress, MacError, VethPairSpec};
pub use path::{Path, Standing};
pub use route::RouteEntry;
pub use tables::{Refusal, Tables};
pub use vxlan::VxlanSettings;

/// What the kernel answered to a request: the error number and, where it gave one, its own words (extended acknowledgement).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// The error number.
    pub errno: Errno,
    /// The kernel's words.
    pub text: Option<String>,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "kernel: {text} ({})", self.errno.desc()),
            None => write!(f, "kernel: {}", self.errno.desc()),
        }
    }
}

impl std::error::Error for KernelError {}

/// A request that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// No socket.
    #[error("can't open a netlink socket")]
    Open {
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("can't {operation}")]
    Refused {
        /// What was asked, with the object: "create bridge cni0".
        operation: String,
        /// The kernel's answer.
        source: KernelError,
    },
    /// No answer in time.
    #[error("can't {operation}: the kernel did not answer within {} s", waited.as_secs())]
    Timeout {
        /// What was asked.
        operation: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The socket failed.
    #[error("can't {operation}: the netlink socket failed")]
    Socket {
        /// What was asked.
        operation: String,
        /// Why.
        source: io::Error,
    },
    /// The object changed while it was being listed, five times in a row.
    #[error("can't {operation}: it changed while it was being read, again and again")]
    Interrupted {
        /// What was asked.
        operation: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, if the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => Some(source.errno),
            _ => None,
        }
    }

    /// Whether what was to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether an address, or a port, is somebody else's.
    pub fn is_in_use(&self) -> bool {
        self.errno() == Some(Errno::EADDRINUSE)
    }

    /// Whether what was to be changed or removed is not there. The kernel says so in different ways for different objects.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL))
    }
}
