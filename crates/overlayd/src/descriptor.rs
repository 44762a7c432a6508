//! Descriptors that the event loop waits for.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::unix::AsyncFd;

/// Registers something that owns its descriptor for as long as it lives.
#[allow(
    deprecated,
    reason = "the function that replaces it is unsafe, for types that may close or change their descriptor; those here never do"
)]
pub(crate) fn register<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(owner)
}
