//! The error of this crate, and the one place where it becomes an answer to the runtime.

use std::io::ErrorKind;

use cni::{Code, Failure, LinkName};
use nix::errno::Errno;
use thiserror::Error;

use crate::conntrack;
use crate::firewall::FirewallError;
use crate::netlink::NetlinkError;
use crate::netns::NetnsError;
use crate::state::StateError;
use crate::sysctl::SysctlError;

/// What went wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Links, addresses, routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A kernel parameter.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The firewall.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Tracked connections.
    #[error(transparent)]
    Conntrack(#[from] conntrack::Error),
    /// A state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// A name that is taken.
    #[error("{what} exists already")]
    Exists {
        /// What, with its name and where.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A name held by something else.
    #[error("link {name} exists but is a {found}, not a {wanted}")]
    Kind {
        /// The name.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A name that is a link's second (`ip link property`), by which it can't be used: its sysctls go by its own.
    #[error("{name} is an alternative name of the link {link}: use that")]
    AlternativeName {
        /// The name.
        name: String,
        /// The link's own name.
        link: String,
    },
    /// A link that should be there.
    #[error("link {name} is missing {place}")]
    LinkMissing {
        /// The name.
        name: String,
        /// "on the host", "in the container".
        place: &'static str,
    },
    /// An address of the bridge is not the one that was asked for.
    #[error("{link} already has an IP address different from {wanted}")]
    OtherAddress {
        /// The link.
        link: String,
        /// The address asked for.
        wanted: String,
        /// The address that is there.
        found: String,
    },
    /// A verification that failed.
    #[error("{what}: expected {expected}, found {found}")]
    Different {
        /// Which property of which object.
        what: String,
        /// As ADD left it.
        expected: String,
        /// As it is.
        found: String,
    },
    /// Waited in vain.
    #[error("{what} after {seconds} s")]
    NotReady {
        /// What is not ready.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A resource of the container, where no namespace was given.
    #[error("the container's network namespace is needed to {operation}")]
    NoContainer {
        /// For what.
        operation: &'static str,
    },
    /// A delegate.
    #[error("{0}")]
    Delegate(Box<Failure>),
}

impl Error {
    /// A link that must be there is not.
    pub(crate) fn missing_link(name: &LinkName, place: &'static str) -> Self {
        Self::LinkMissing { name: name.to_string(), place }
    }

    fn code(&self) -> Code {
        match self {
            Self::Netlink(error) => match error.errno() {
                Some(Errno::EPERM | Errno::EACCES) => Code::NotPermitted,
                Some(Errno::EBUSY | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => Code::TryAgainLater,
                _ if matches!(error, NetlinkError::Timeout { .. } | NetlinkError::Interrupted { .. }) => {
                    Code::TryAgainLater
                }
                _ if matches!(error, NetlinkError::Open { source } if source.kind() == ErrorKind::PermissionDenied) => {
                    Code::NotPermitted
                }
                _ => Code::Kernel,
            },
            Self::Netns(NetnsError::Enter { source: Errno::EPERM, .. }) => Code::NotPermitted,
            Self::Netns(NetnsError::Open { .. } | NetnsError::NotNetwork { .. }) => Code::InvalidEnvironment,
            Self::Netns(_) | Self::NoContainer { .. } => Code::Netns,
            Self::Sysctl(SysctlError::Key { .. }) => Code::InvalidConfig,
            Self::Sysctl(SysctlError::Read { source, .. } | SysctlError::Write { source, .. }) => {
                match source.kind() {
                    std::io::ErrorKind::PermissionDenied => Code::NotPermitted,
                    _ => Code::Kernel,
                }
            }
            Self::Firewall(error) => error.code(),
            Self::Conntrack(error) if error.is_permission_denied() => Code::NotPermitted,
            Self::Conntrack(_) => Code::Kernel,
            Self::State(StateError::Locked { .. }) | Self::NotReady { .. } => Code::TryAgainLater,
            Self::State(_) => Code::Io,
            Self::Exists { .. }
            | Self::Kind { .. }
            | Self::OtherAddress { .. }
            | Self::AlternativeName { .. }
            | Self::Sysctl(SysctlError::Redirected { .. }) => Code::Conflict,
            Self::LinkMissing { .. } | Self::Different { .. } => Code::CheckFailed,
            Self::Delegate(failure) => failure.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Exists { hint, .. } => hint,
            Self::Kind { .. } => "choose another name, or remove the link that holds this one",
            Self::OtherAddress { .. } => "set forceAddress to replace it, or use another bridge or subnet",
            Self::LinkMissing { .. } | Self::Different { .. } => {
                "run DEL, then ADD, to set the attachment up again"
            }
            Self::State(StateError::File { .. }) => "the directory must be writable, with space left",
            Self::State(StateError::Locked { .. }) => "another call is at work on the same object; try again",
            Self::Firewall(error) => return error.hint(),
            Self::Netlink(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::EACCES)) => {
                "CAP_NET_ADMIN is needed, here and in the container's namespace"
            }
            Self::Netlink(NetlinkError::Open { source }) if source.kind() != ErrorKind::PermissionDenied => {
                "the host may be short of memory, or of open files"
            }
            Self::Netns(NetnsError::Enter { .. }) | Self::Netlink(NetlinkError::Open { .. }) => {
                "CAP_SYS_ADMIN is needed to enter a network namespace"
            }
            Self::Netlink(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                "this kernel lacks the feature, or the module is not loaded"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Error::Delegate(failure) = error {
            return *failure;
        }
        let failure = Self::from_error(error.code(), &error);
        let failure = match &error {
            Error::OtherAddress { found, .. } => failure.detail(format!("it has {found}")),
            Error::Netns(NetnsError::Open { .. } | NetnsError::NotNetwork { .. }) => {
                failure.detail("CNI_NETNS names the container's network namespace")
            }
            Error::Firewall(error) => failure.detail(error.evidence()),
            _ => failure,
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Errors of the parts, as answers.
macro_rules! failure_from {
    ($($part:ty),*) => {$(
        impl From<$part> for Failure {
            fn from(error: $part) -> Self {
                Error::from(error).into()
            }
        }
    )*};
}

failure_from!(NetlinkError, NetnsError, SysctlError, FirewallError, StateError);

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Delegate(Box::new(failure))
    }
}
