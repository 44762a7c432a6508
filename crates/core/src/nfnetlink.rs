//! What every netfilter subsystem shares on its netlink socket: attributes, requests, acknowledgements.
//!
//! netfilter speaks netlink with two habits of its own: all integers in attributes are big-endian, and every message starts
//! with a four-byte `nfgenmsg` (address family, version, resource id) behind the netlink header.
//! See `include/uapi/linux/netfilter/nfnetlink.h` and <https://docs.kernel.org/userspace-api/netlink/intro.html>.
//!
//! The users are [`crate::nft`] and [`crate::conntrack`]; nothing here knows tables or connections.

mod attribute;
mod farewell;
mod socket;

pub(crate) use attribute::{Attributes, be16, be32, be64, find, ip, ne32, parse, text};
pub(crate) use farewell::leave;
#[cfg(fuzzing)]
pub(crate) use socket::messages;
pub(crate) use socket::{ATTEMPTS, Answer, Kind, Message, Received, Refusal, Socket};

use std::io;

use nix::errno::Errno;

/// What can go wrong between this process and netfilter.
///
/// `operation` is always a verb phrase naming the object, such as `add element 'tcp . 8080' to map 'inet ferrule ports4'`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No netlink socket for netfilter could be set up in this network namespace.
    #[error("cannot open a netfilter netlink socket ({step})")]
    Open {
        /// The step that failed.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// The request could not be handed to the kernel.
    #[error("cannot {operation}: sending {length} bytes to the kernel failed")]
    Send {
        /// What was asked.
        operation: String,
        /// Size of the request in bytes; the socket's send buffer limits it.
        length: usize,
        /// What the kernel said.
        source: io::Error,
    },

    /// The answer could not be read.
    #[error("cannot {operation}: reading the kernel's answer failed")]
    Receive {
        /// What was asked.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },

    /// The deadline passed before the kernel had answered. A change may or may not have been made.
    #[error("cannot {operation}: no answer from the kernel before the deadline")]
    TimedOut {
        /// What was asked.
        operation: String,
    },

    /// The kernel refused. Nothing was changed: a batch is applied as a whole or not at all.
    #[error("cannot {operation}{}", Detail(detail.as_deref()))]
    Rejected {
        /// What was asked.
        operation: String,
        /// The kernel's own explanation (extended ACK), where it gave one.
        detail: Option<String>,
        /// The kernel's error code.
        #[source]
        errno: Errno,
    },

    /// The kernel dropped its answers because the receive buffer was full. A change may or may not have been made.
    #[error(
        "cannot tell whether the kernel did this: {operation}: its answer did not fit the receive buffer"
    )]
    Lost {
        /// What was asked.
        operation: String,
    },

    /// Each attempt to read a list was interrupted by a concurrent change.
    #[error("cannot {operation}: the list kept changing while it was read ({attempts} attempts)")]
    Interrupted {
        /// What was asked.
        operation: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl Error {
    /// The kernel's error code, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Rejected { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// `: text` where there is a text.
struct Detail<'a>(Option<&'a str>);

impl std::fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |text| write!(f, ": {text}"))
    }
}
