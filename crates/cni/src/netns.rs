//! What a network namespace path names, found out without entering it and without a system call library.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is at a path.
#[derive(Debug)]
pub(crate) enum NetnsState {
    /// A namespace other than ours. (That it is of the network kind is found when it is opened.)
    Foreign,
    /// The namespace this process is in.
    Own,
    /// Nothing.
    Missing,
    /// Something else; says what.
    NotANamespace(&'static str),
    /// It can't be looked at.
    Unreadable(io::Error),
}

/// Looks at a path. All namespace files live on one kernel-internal file system (nsfs), so two of them share a device number;
/// device and inode together are the namespace's identity (`namespaces(7)`).
pub(crate) fn state(path: &Path) -> NetnsState {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            return match error.raw_os_error() {
                // ENOENT, ENOTDIR, ESRCH (a /proc entry of a process that has ended).
                Some(2 | 20 | 3) => NetnsState::Missing,
                _ => NetnsState::Unreadable(error),
            };
        }
    };
    // The thread's own entry: `/proc/self` is the main thread's.
    let own = match std::fs::metadata("/proc/thread-self/ns/net") {
        Ok(own) => own,
        Err(error) => return NetnsState::Unreadable(error),
    };
    if metadata.dev() != own.dev() {
        let kind = metadata.file_type();
        return NetnsState::NotANamespace(if kind.is_dir() {
            "a directory"
        } else if kind.is_file() {
            "a plain file"
        } else {
            "a special file"
        });
    }
    if metadata.ino() == own.ino() { NetnsState::Own } else { NetnsState::Foreign }
}
