//! Kernel parameters below `/proc/sys/net`.
//!
//! By path. The `sysctl` crate turns every separator into a dot and every dot into a slash, so it can't name a parameter of an interface with a dot
//! in its name (`eth0.100`); and a value that it reads takes eleven system calls, of which three are needed. The tests read with it what is read here.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use cni::LinkName;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use thiserror::Error;

/// A parameter that can't be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// Reading.
    #[error("can't read sysctl {key}")]
    Read {
        /// The parameter, separated by slashes.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// Writing.
    #[error("can't set sysctl {key} to {value:?}")]
    Write {
        /// The parameter.
        key: String,
        /// The value.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// What is at the parameter's path is not the kernel's: something else is mounted there, or a link leads elsewhere. Nothing was written.
    #[error("sysctl {key} is not written: what is at {path} is not the kernel's", path = Key(key.clone()).path().display())]
    Redirected {
        /// The parameter.
        key: String,
    },
    /// Not below `net`.
    #[error("sysctl {key} is not a network parameter (net/...)")]
    Key {
        /// What was given.
        key: String,
    },
}

impl SysctlError {
    /// Whether the parameter has no value to be read: it can only be written (`net/ipv4/route/flush`), or has none until it is
    /// (`stable_secret`).
    pub(crate) fn has_no_value(&self) -> bool {
        let Self::Read { key, source } = self else { return false };
        match source.raw_os_error() {
            Some(libc::EACCES) => true,
            Some(libc::EIO) => key.ends_with("/stable_secret"),
            _ => false,
        }
    }

    /// Whether the parameter does not exist (no IPv6 in this kernel, interface gone).
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => source.kind() == ErrorKind::NotFound,
            Self::Redirected { .. } | Self::Key { .. } => false,
        }
    }
}

/// A network parameter, by path: `net/ipv4/ip_forward`, `net/ipv6/conf/eth0.100/accept_ra`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A key separated by slashes, below `net`. No component may be empty, `.` or `..`.
    pub fn new(path: &str) -> Result<Self, SysctlError> {
        let good = path.starts_with("net/")
            && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if good && !path.contains('\0') {
            Ok(Self(path.to_owned()))
        } else {
            Err(SysctlError::Key { key: path.to_owned() })
        }
    }

    /// A parameter of an interface: family `ipv4` or `ipv6`, then the name of the parameter.
    pub fn of_interface(family: &str, interface: &LinkName, parameter: &str) -> Self {
        Self(format!("net/{family}/conf/{interface}/{parameter}"))
    }

    /// A parameter of how an interface deals with its neighbours: family `ipv4` or `ipv6`, then the name of the parameter.
    pub fn of_neighbours(family: &str, interface: &LinkName, parameter: &str) -> Self {
        Self(format!("net/{family}/neigh/{interface}/{parameter}"))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, without the line end. The namespace is the calling thread's.
    pub fn read(&self) -> Result<String, SysctlError> {
        let failed = |source| SysctlError::Read { key: self.0.clone(), source };
        let bytes = File::open(self.path()).and_then(|file| whole(&file)).map_err(failed)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// Sets the value; not written if it is so already, because `/proc/sys` may be read-only where somebody else has set it right, and because of what
    /// the kernel does at each write: `all/disable_ipv6` changes every interface.
    pub fn write(&self, value: &str) -> Result<(), SysctlError> {
        if self.read().is_ok_and(|current| same(&current, value)) { Ok(()) } else { self.overwrite(value) }
    }

    /// The same for a parameter of one interface, where a write that changes nothing does nothing: written at once, and looked at only if that
    /// fails. One that does not exist is no error.
    pub fn put_if_present(&self, value: &str) -> Result<(), SysctlError> {
        match self.overwrite(value) {
            Err(error) if error.is_missing() => Ok(()),
            Err(_) if self.read().is_ok_and(|current| same(&current, value)) => Ok(()),
            other => other,
        }
    }

    fn overwrite(&self, value: &str) -> Result<(), SysctlError> {
        let failed = |source| SysctlError::Write { key: self.0.clone(), value: value.to_owned(), source };
        let mut file = OpenOptions::new().write(true).open(self.path()).map_err(failed)?;
        // Whoever can mount over a part of `/proc` must not have root write into a file of their choice (the class of CVE-2025-52881).
        if fstatfs(&file).map_err(|errno| failed(errno.into()))?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(SysctlError::Redirected { key: self.0.clone() });
        }
        // One write of the whole value: the kernel takes each write as a value of its own.
        file.write_all(value.as_bytes()).map_err(failed)
    }

    /// As [`Key::write`], but a parameter that does not exist is no error.
    pub fn write_if_present(&self, value: &str) -> Result<(), SysctlError> {
        match self.write(value) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/proc/sys").join(&self.0)
    }
}

/// Whether two values are the same to the kernel, which separates the parts of a list by tabs however they were written.
pub fn same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

/// What is in a file of the kernel's, which gives a value in one piece: from its beginning, with more room as long as there was too little. The rest of a list of
/// ranges (`net.ipv4.ip_local_reserved_ports`) can't be had by reading on.
fn whole(file: &File) -> io::Result<Vec<u8>> {
    /// More than any value has.
    const MOST: usize = 1 << 20;
    let mut room = 256;
    loop {
        let mut bytes = vec![0; room];
        match file.read_at(&mut bytes, 0) {
            Ok(read) if read < room || room == MOST => {
                bytes.truncate(read);
                return Ok(bytes);
            }
            Ok(_) => room *= 16,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use sysctl::Sysctl as _;

    use super::*;

    #[test]
    fn a_value_is_what_another_reads() {
        for (key, dotted) in [
            ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
            ("net/ipv6/conf/lo/accept_ra", "net.ipv6.conf.lo.accept_ra"),
            ("net/ipv4/tcp_rmem", "net.ipv4.tcp_rmem"),
        ] {
            let theirs = sysctl::Ctl::new(dotted).and_then(|ctl| ctl.value_string()).unwrap();
            assert_eq!(Key::new(key).unwrap().read().unwrap(), theirs);
        }
        assert!(Key::new("net/ipv4/nothing").unwrap().read().unwrap_err().is_missing());
    }

    #[test]
    fn a_value_longer_than_there_is_room_for_at_first_is_read_to_its_end() {
        let _host = testkit::Host::new();
        let ports = (0..3000).map(|number| (2000 + 20 * number).to_string()).collect::<Vec<_>>().join(",");
        let key = Key::new("net/ipv4/ip_local_reserved_ports").unwrap();
        key.write(&ports).unwrap();
        assert_eq!(key.read().unwrap(), ports);
    }
}
