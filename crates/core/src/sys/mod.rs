//! The only unsafe code: system calls that no safe library offers.
#![expect(unsafe_code, reason = "this module is where it is allowed; every block says why it is sound")]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;

pub(crate) mod xtables;

// linux/nsfs.h: #define NS_GET_NSTYPE _IO(0xb7, 0x3)
nix::ioctl_none_bad!(ns_get_nstype, nix::request_code_none!(0xb7, 0x3));

/// The kind of a namespace, as a `CLONE_NEW*` flag (`ioctl_ns(2)`, since Linux 4.11).
pub(crate) fn namespace_type(namespace: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: the request takes no argument and writes no memory; the descriptor is open for the duration of the borrow.
    unsafe { ns_get_nstype(namespace.as_raw_fd()) }
}

/// A descriptor of a socket that its owner keeps open, borrowed for a poll(2).
pub(crate) fn borrow_fd<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: only called with the descriptor of a socket held by the caller's `self` for the duration of the call; the result does not leave it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
