//! The lock every user of a store takes: `flock(2)` on the file `lock`, as the Go plugin does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Takes the lock, creating its file if there is none; waits at most `patience`. It is held until the file is dropped.
///
/// Errors: [`Error::Io`], [`Error::Locked`].
pub(super) fn acquire(path: &Path, patience: Duration) -> Result<File> {
    loop {
        // Opened for reading, so that the owner's umask does not matter to others; created like Go's `filemutex` does.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .mode(0o750)
            .open(path)
            .map_err(Error::io("open", path))?;
        let file = match file.try_lock() {
            Ok(()) => file,
            Err(TryLockError::WouldBlock) => wait(file, path, patience)?,
            Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Interrupted => continue,
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
        };
        // Whoever removed the directory meanwhile removed the lock with it: this one excludes nobody any more.
        if file.metadata().map_err(Error::io("look at", path))?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// `flock` has no timeout of its own, so a thread waits in it. If it gets the lock too late, dropping the file gives it back.
fn wait(file: File, path: &Path, patience: Duration) -> Result<File> {
    let (sender, receiver) = mpsc::channel::<io::Result<File>>();
    let waiting = thread::Builder::new().spawn(move || {
        let locked = loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        sender.send(locked.map(|()| file))
    });
    waiting.map_err(Error::io("wait in a thread for", path))?;
    match receiver.recv_timeout(patience) {
        Ok(locked) => locked.map_err(Error::io("lock", path)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(Error::Locked { path: path.to_owned(), seconds: patience.as_secs_f64() })
        }
    }
}
