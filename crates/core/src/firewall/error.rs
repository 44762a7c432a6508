//! What can go wrong with a firewall.

use std::io;

use cni::Code;
use thiserror::Error;

use crate::dbus::BusError;
use crate::netlink::NetlinkError;
use crate::nft;
use crate::state::StateError;

/// An operation on the firewall that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// A host port that somebody else has published.
    #[error("host port {port} is already published by {owner}")]
    PortTaken {
        /// Protocol, address and port, such as `tcp 0.0.0.0:8080`.
        port: String,
        /// The owner, as far as it can be told.
        owner: String,
    },
    /// Something that `verify` looked for is not there or is different.
    #[error("{what} is missing from the {backend} firewall")]
    Missing {
        /// What.
        what: String,
        /// Where.
        backend: &'static str,
    },
    /// A program said that it had made something, and it is not there.
    #[error("iptables-restore succeeded, and {what} is still missing")]
    Ineffective {
        /// The change.
        what: String,
    },
    /// An entry that this backend can't express.
    #[error("the {backend} backend can't do {what}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// Of whom.
        backend: &'static str,
    },
    /// nftables refused, or can't be reached.
    #[error(transparent)]
    Nftables(#[from] nft::Error),
    /// The register of users of a shared table or chain.
    #[error(transparent)]
    State(#[from] StateError),
    /// firewalld refused, or can't be reached.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// There is no firewalld.
    #[error("firewalld is not running")]
    NotRunning,
    /// The links of the host can't be listed.
    #[error(transparent)]
    Links(#[from] NetlinkError),
    /// What decides about forwarded packets can't be told.
    #[error("can't read {what}")]
    Inspect {
        /// What was looked at.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A program of the iptables family can't be run.
    #[error("can't run {program}")]
    Run {
        /// Which program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program of the iptables family failed.
    #[error("{program} failed ({status})")]
    Program {
        /// Which program.
        program: String,
        /// How it ended.
        status: String,
        /// What it printed on standard error.
        stderr: String,
        /// What it was given.
        input: String,
    },
    /// A program of the iptables family is not installed.
    #[error("{program} is neither on PATH nor in the usual directories")]
    ProgramMissing {
        /// Which program.
        program: String,
    },
    /// Somebody else kept a lock for too long; trying again later may do.
    #[error("{what} was not free within {seconds} s")]
    Busy {
        /// Which lock.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// No answer in time.
    #[error("{what} did not answer within {seconds} s")]
    TimedOut {
        /// Who.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Rules made with nft stand in a table of iptables, which iptables can neither show nor change.
    #[error("table `{table}` has rules that iptables does not understand")]
    Incompatible {
        /// The table.
        table: &'static str,
    },
    /// Output that is not in the format it should be in.
    #[error("{program} printed a line that is not understood: {line:?}")]
    Output {
        /// Which program.
        program: String,
        /// The line.
        line: String,
    },
    /// A word that no line of `iptables-restore` can have, such as a condition with a line break.
    #[error("{word:?} can't be written as an iptables rule")]
    Unwritable {
        /// The rule's words.
        word: String,
    },
}

impl FirewallError {
    /// The class of the error, for the runtime.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::PortTaken { .. } => Code::Conflict,
            Self::Missing { .. } => Code::CheckFailed,
            Self::Unsupported { .. } | Self::Unwritable { .. } => Code::InvalidConfig,
            Self::Nftables(error) if error.is_permission_denied() => Code::NotPermitted,
            Self::Inspect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::NotPermitted
            }
            Self::State(StateError::Locked { .. }) | Self::Busy { .. } => Code::TryAgainLater,
            Self::State(_) => Code::Io,
            Self::Bus(error) if error.is_absent() => Code::NotAvailable,
            Self::Bus(error) if error.is_timeout() => Code::TryAgainLater,
            Self::ProgramMissing { .. } | Self::NotRunning => Code::NotAvailable,
            Self::Nftables(_)
            | Self::Links(_)
            | Self::Bus(_)
            | Self::Run { .. }
            | Self::Inspect { .. }
            | Self::Program { .. }
            | Self::TimedOut { .. }
            | Self::Incompatible { .. }
            | Self::Ineffective { .. }
            | Self::Output { .. } => Code::Kernel,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::PortTaken { owner, .. } => {
                return Some(format!("remove {owner} first, or publish another port or host address"));
            }
            Self::Missing { .. } => {
                "somebody has changed the firewall; run DEL, then ADD, to set the attachment up again"
            }
            Self::Ineffective { .. } => {
                "something else removes it, or iptables can't make it; the nftables backend needs no iptables"
            }
            Self::Unsupported { .. } => "choose another backend",
            Self::Run { .. } | Self::ProgramMissing { .. } => {
                "install the iptables package, or choose the nftables backend"
            }
            Self::NotRunning => "start firewalld, or choose another backend",
            Self::Bus(error) if error.message().is_none() => {
                "firewalld must be running and reachable over the system bus; or choose another backend"
            }
            Self::Bus(_) => "look at the zones: `firewall-cmd --get-active-zones`",
            Self::Incompatible { .. } => "choose the nftables backend",
            Self::Busy { .. } => "something changes iptables all the time, or hangs while it does",
            Self::Unwritable { .. } => "a word of a rule must not have a line break",
            Self::Nftables(error) if error.is_permission_denied() => "CAP_NET_ADMIN is needed",
            Self::Nftables(error) if error.is_unsupported() => {
                "this kernel has no nftables; choose the iptables backend (for the senders of an overlay: anySender)"
            }
            Self::State(_) => "the directory must be writable, with space left",
            Self::Nftables(_)
            | Self::Links(_)
            | Self::Inspect { .. }
            | Self::Program { .. }
            | Self::TimedOut { .. }
            | Self::Output { .. } => return None,
        };
        Some(text.to_owned())
    }

    /// What a program printed, if one was run.
    pub(crate) fn evidence(&self) -> String {
        match self {
            Self::Program { stderr, .. } => stderr.trim().to_owned(),
            _ => String::new(),
        }
    }
}
