//! What can go wrong in the agent, and what to do about it.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use ferrule_core::netlink::NetlinkError;
use thiserror::Error;

/// What went wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Something on the command line that can't be.
    #[error("{option}: {reason} (value: {value})")]
    Option {
        /// The option: `--block-size`.
        option: &'static str,
        /// What was given.
        value: String,
        /// Why it can't be.
        reason: String,
    },
    /// This program was built without what the option needs.
    #[error("{option}: this overlayd was built without etcd")]
    WithoutEtcd {
        /// The option.
        option: &'static str,
    },
    /// The description of the network, a file, the kernel.
    #[error(transparent)]
    Overlay(#[from] ferrule_overlay::Error),
    /// A file or a directory.
    #[error("can't {operation} {}", path.display())]
    File {
        /// What was done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket, or something else the system is asked for that has no path.
    #[error("can't {operation}")]
    System {
        /// What was done, with the object.
        operation: String,
        /// Why.
        source: io::Error,
    },
    /// Another agent works for this network already.
    #[error("another overlayd works for network {network} on this host ({})", path.display())]
    Running {
        /// The network.
        network: String,
        /// Its socket.
        path: PathBuf,
    },
    /// No agent to ask.
    #[error("no overlayd answers for network {network} at {}", path.display())]
    NotRunning {
        /// The network.
        network: String,
        /// Where it would listen.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent's answer is not one.
    #[error("the overlayd at {} gave an answer that is not understood: {reason}", path.display())]
    Answer {
        /// Its socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The network is off this host, and the source still has the node.
    #[error("can't withdraw node {node} from {from}: {reason}")]
    Withdraw {
        /// The node.
        node: String,
        /// The source.
        from: String,
        /// What it said.
        reason: String,
    },
    /// A source of peers refused or did not answer.
    #[error("can't {operation}: {reason}")]
    Source {
        /// What was asked of whom.
        operation: String,
        /// What it said.
        reason: String,
    },
}

impl From<NetlinkError> for Error {
    fn from(error: NetlinkError) -> Self {
        Self::Overlay(error.into())
    }
}

impl From<ferrule_overlay::Invalid> for Error {
    fn from(invalid: ferrule_overlay::Invalid) -> Self {
        Self::Overlay(invalid.into())
    }
}

impl Error {
    #[expect(clippy::needless_pass_by_value, reason = "numbers and literals are given as they are")]
    pub(crate) fn option(option: &'static str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Option { option, value: value.to_string(), reason: reason.into() }
    }

    pub(crate) fn system(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::System { operation, source }
    }

    /// What to do about it.
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Option { .. } => "`overlayd --help` lists the options",
            Self::WithoutEtcd { .. } => "build it with `make overlayd-etcd`, or give --peers-file",
            Self::Running { .. } => "one agent a network and host is enough; stop the other one first",
            Self::NotRunning { .. } => {
                "is it running? As a service: `systemctl status overlayd@NETWORK`; its directory is for root only"
            }
            Self::Withdraw { .. } => {
                "the network is off this host; repeat it once the source answers, or leave it: a node that is silent for --grace is removed"
            }
            _ => return None,
        })
    }

    /// The error, what caused it, and what to do: for a person.
    pub fn report(&self) -> String {
        let mut text = chain(self);
        if let Some(hint) = self.hint() {
            let _ = write!(text, "\n  {hint}");
        }
        text
    }
}

/// An error and what caused it, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
