//! What can go wrong with a firewall.

use std::io;

use thiserror::Error;

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
    /// An entry that this backend can't express.
    #[error("the {backend} backend can't do {what}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// Of whom.
        backend: &'static str,
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
}
