//! What can go wrong with a firewall change, and how to ask which it was.

use nix::errno::Errno;

use crate::nfnetlink;

/// Why a firewall could not be read or changed. After any of them but a lost or late answer, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused, or could not be reached.
    #[error(transparent)]
    Netlink(#[from] nfnetlink::Error),

    /// The ruleset changed since the generation that [`Transaction::expect_generation`](super::Transaction::expect_generation)
    /// named. Read again, decide again, and commit again.
    #[error("cannot commit: the ruleset changed since generation {generation}")]
    Conflict {
        /// The generation that was expected.
        generation: u32,
    },

    /// A request that `nf_tables` could not express, found before anything was sent.
    #[error("cannot {operation}: {reason}")]
    Unencodable {
        /// What was asked.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The kernel's error code, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Netlink(error) => error.errno(),
            Self::Conflict { .. } | Self::Unencodable { .. } => None,
        }
    }

    /// Something of that name or key is there already: an exclusive creation, or an element with another value.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// The object, or what it was to be put in, is not there.
    pub fn is_missing(&self) -> bool {
        self.errno() == Some(Errno::ENOENT)
    }

    /// The object is still referred to: a chain that a rule jumps to, a set that a rule looks up.
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(Errno::EBUSY)
    }

    /// The kernel has no `nf_tables`, or lacks the family, chain type or expression.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT))
            || matches!(self, Self::Netlink(nfnetlink::Error::Open { source, .. })
                if source.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32))
    }

    /// The caller lacks `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
    pub fn is_permission_denied(&self) -> bool {
        self.errno() == Some(Errno::EPERM)
    }

    /// Another change came in between: see [`Error::Conflict`].
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}
