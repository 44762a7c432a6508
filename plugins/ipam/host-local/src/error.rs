//! What can go wrong, and what a runtime is told about it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use cni::json::JsonError;
use cni::{Code, Failure};
use thiserror::Error;

use crate::range::RangeProblem;

/// Everything that fails in this plugin. Where the Go plugin has a message for the same condition the text is the same: tests and
/// tools match on it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration has keys of the wrong kind.
    #[error("invalid configuration: {problem}")]
    Undecodable {
        /// Path, value and reason.
        problem: JsonError,
    },
    /// There is no `ipam` object.
    #[error("IPAM config missing 'ipam' key")]
    MissingIpam,
    /// Neither `subnet` nor `ranges` nor the capability `ipRanges`.
    #[error("no IP ranges specified")]
    NoRanges,
    /// A range set that can't be allocated from.
    #[error("invalid range set {set}: {problem} ({path} = {value})")]
    InvalidRange {
        /// Index of the set, in the order of allocation.
        set: usize,
        /// What is wrong.
        problem: RangeProblem,
        /// JSON path of the value.
        path: String,
        /// The value, as JSON.
        value: String,
    },
    /// Two sets share addresses.
    #[error(
        "range set {first} overlaps with {second} ({first_path} = {first_ranges}, {second_path} = {second_ranges})"
    )]
    SetsOverlap {
        /// Index of a set.
        first: usize,
        /// Index of the other.
        second: usize,
        /// Where the first is written.
        first_path: String,
        /// Where the second is written.
        second_path: String,
        /// Its ranges.
        first_ranges: String,
        /// Its ranges.
        second_ranges: String,
    },
    /// Results before 0.3.0 carry one address of each family.
    #[error("CNI version {version} does not support more than 1 address per family")]
    TooManySets {
        /// The configuration's version.
        version: &'static str,
    },
    /// An address (or CIDR) that is none.
    #[error("{path}: {problem}")]
    Address {
        /// JSON path, or the variable.
        path: String,
        /// Value and reason.
        problem: cni::AddressError,
    },
    /// `resolvConf` can't be read.
    #[error("ipam.resolvConf: can't read {path:?}")]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `CNI_LOCK_TIMEOUT` is not a number of seconds.
    #[error("CNI_LOCK_TIMEOUT is invalid: {text:?} is not a number of seconds")]
    LockTimeout {
        /// Its value.
        text: String,
    },
    /// A set has no free address.
    #[error("failed to allocate for range {set}: no IP addresses available in range set: {ranges}")]
    Exhausted {
        /// Index of the set.
        set: usize,
        /// Its ranges.
        ranges: String,
    },
    /// The attachment has a lease of this set already.
    #[error(
        "failed to allocate for range {set}: {address} has been allocated to {container}, duplicate allocation is not allowed"
    )]
    Duplicate {
        /// Index of the set.
        set: usize,
        /// The address it has.
        address: IpAddr,
        /// The container's id.
        container: String,
    },
    /// A requested address belongs to somebody else.
    #[error(
        "failed to allocate for range {set}: requested IP address {address} is not available in range set {ranges}"
    )]
    Taken {
        /// Index of the set.
        set: usize,
        /// The address.
        address: IpAddr,
        /// The set's ranges.
        ranges: String,
        /// Who has it, as the lease says; empty if that can't be told.
        owner: String,
    },
    /// A requested address is a gateway.
    #[error("failed to allocate for range {set}: requested ip {address} is subnet's gateway")]
    Gateway {
        /// Index of the set.
        set: usize,
        /// The address.
        address: IpAddr,
    },
    /// A requested address is excluded.
    #[error("failed to allocate for range {set}: requested ip {address} is excluded by the configuration")]
    Excluded {
        /// Index of the set.
        set: usize,
        /// The address.
        address: IpAddr,
    },
    /// Requested addresses that no range set has room for.
    #[error("failed to allocate all requested IPs: {addresses}")]
    Unfulfilled {
        /// The addresses, separated by blanks.
        addresses: String,
    },
    /// CHECK: the attachment has no lease.
    #[error("host-local: Failed to find address added by container {container}")]
    NoLease {
        /// The container's id.
        container: String,
    },
    /// CHECK: an address of the previous result is not leased to the attachment.
    #[error("address {address} of prevResult is not leased to {attachment}")]
    NotLeased {
        /// The address.
        address: IpAddr,
        /// The attachment.
        attachment: String,
    },
    /// An operation on a file of the store failed.
    #[error("can't {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store is a symbolic link that anybody could have made.
    #[error("the store {path:?} is a symbolic link, in a directory that others than root can write")]
    Planted {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store's lock was not released in time.
    #[error("the lock {path:?} has been held by another process for {seconds} s")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this process waited.
        seconds: f64,
    },
    /// The store changed without its lock being held, again and again.
    #[error("the store {path:?} keeps changing although its lock is held")]
    Unsettled {
        /// The store's directory.
        path: PathBuf,
    },
}

/// The result of most functions here.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    fn code(&self) -> Code {
        match self {
            Self::Undecodable { .. }
            | Self::MissingIpam
            | Self::NoRanges
            | Self::InvalidRange { .. }
            | Self::SetsOverlap { .. }
            | Self::TooManySets { .. }
            | Self::Gateway { .. }
            | Self::Excluded { .. }
            | Self::Unfulfilled { .. }
            | Self::Address { .. } => Code::InvalidConfig,
            Self::LockTimeout { .. } => Code::InvalidEnvironment,
            Self::ResolvConf { .. } | Self::Io { .. } => Code::Io,
            Self::Exhausted { .. } => Code::Exhausted,
            Self::Duplicate { .. } | Self::Taken { .. } | Self::Planted { .. } => Code::Conflict,
            Self::NoLease { .. } | Self::NotLeased { .. } => Code::CheckFailed,
            Self::Locked { .. } | Self::Unsettled { .. } => Code::TryAgainLater,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::MissingIpam => "add an object `ipam` with `type` and `subnet` or `ranges`".to_owned(),
            Self::NoRanges => {
                "set ipam.subnet, or ipam.ranges such as [[{\"subnet\": \"10.1.0.0/16\"}]]".to_owned()
            }
            Self::InvalidRange { problem, .. } => return problem.hint(),
            Self::SetsOverlap { .. } => {
                "each set gives every container one address; put ranges of one pool into one set".to_owned()
            }
            Self::TooManySets { .. } => {
                "set cniVersion to 0.3.0 or later, or put the ranges into one set".to_owned()
            }
            Self::ResolvConf { .. } => "correct the path, or leave resolvConf out".to_owned(),
            Self::Exhausted { .. } => {
                "remove containers, widen the range, or run GC to free leases nobody uses".to_owned()
            }
            Self::Duplicate { .. } => "run DEL for this container and interface first".to_owned(),
            Self::Taken { owner, .. } if owner.is_empty() => "ask for another address".to_owned(),
            Self::Taken { owner, .. } => {
                format!("it belongs to {owner}; ask for another address, or run DEL for that one")
            }
            Self::Gateway { .. } | Self::Excluded { .. } => "ask for another address".to_owned(),
            Self::Unfulfilled { .. } => {
                "each range set takes one requested address, and only one inside its ranges".to_owned()
            }
            Self::NoLease { .. } | Self::NotLeased { .. } => {
                "the lease is gone, so another container may get the address: recreate this one".to_owned()
            }
            Self::Locked { path, .. } => format!(
                "find the holder with `fuser -v {}`; CNI_LOCK_TIMEOUT sets how many seconds to wait",
                path.display()
            ),
            Self::Planted { .. } => {
                "keep ipam.dataDir where only root can write, and remove the link".to_owned()
            }
            Self::Unsettled { .. } => {
                "find the program that writes there without taking the file `lock`".to_owned()
            }
            Self::Io { source, .. } => return io_hint(source),
            // The mistake people make most: one pair of brackets too few.
            Self::Undecodable { problem } if problem.path().starts_with("ipam.ranges[") => {
                "ipam.ranges is a list of sets, each a list of ranges: [[{\"subnet\": \"10.1.0.0/16\"}]]"
                    .to_owned()
            }
            Self::Undecodable { .. } | Self::Address { .. } | Self::LockTimeout { .. } => return None,
        })
    }
}

fn io_hint(source: &io::Error) -> Option<String> {
    let text = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space (or inodes) on that file system"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the store must be on a writable file system; ipam.dataDir says where it is"
        }
        io::ErrorKind::PermissionDenied => {
            "run as the owner of the store, or set ipam.dataDir to a directory of your own"
        }
        io::ErrorKind::NotADirectory => "ipam.dataDir must be a directory",
        _ => return None,
    };
    Some(text.to_owned())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::from_error(error.code(), &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
