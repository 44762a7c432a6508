//! Files of state: where they are, how they are locked, written and removed.
//!
//! Everything here describes kernel objects, which do not survive a reboot, so it lives on a tmpfs: `/run/ferrule`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use thiserror::Error;

/// The root of all state.
pub const ROOT: &str = "/run/ferrule";

/// How long a lock is waited for. Its holder does a few kernel operations at most; one that takes longer is stuck.
const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// How often something is made again whose directory others prune meanwhile.
const ATTEMPTS: u32 = 1000;

/// A state file that can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file operation failed.
    #[error("can't {operation} {}", path.display())]
    File {
        /// What was done: "create directory", "write".
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A lock was not released in time.
    #[error("{} is locked by another process for more than {} s", path.display(), limit.as_secs())]
    Locked {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// What is to be written has no JSON form.
    #[error("can't write a record")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
    /// The content is not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl StateError {
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }
}

/// Makes a directory and its parents, for root only.
pub fn make_directory(path: &Path) -> Result<(), StateError> {
    let mut attempts = 0;
    loop {
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            // What was empty has been pruned by somebody else between two steps of this: a parent, or what was just found to be there.
            Err(error) if error.kind() == ErrorKind::NotFound && attempts < ATTEMPTS => attempts += 1,
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists
                    && attempts < ATTEMPTS
                    && fs::symlink_metadata(path).map_or(true, |there| there.is_dir()) =>
            {
                attempts += 1;
            }
            other => return other.map_err(StateError::file("create directory", path)),
        }
    }
}

/// Writes a file, for root only. Its directory is made if need be.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut attempts = 0;
    let opened = loop {
        match options.open(path) {
            // It may be pruned by somebody else as soon as it is made.
            Err(error) if error.kind() == ErrorKind::NotFound && attempts < ATTEMPTS => {
                attempts += 1;
                make_directory(path.parent().unwrap_or(path))?;
            }
            other => break other,
        }
    };
    opened.and_then(|mut file| file.write_all(content)).map_err(StateError::file("write", path))
}

/// Opens a file for root only, made if need be with its directory, and leaves its content alone. One that is a link to another is refused.
pub fn open_private(path: &Path) -> Result<File, StateError> {
    make_directory(path.parent().unwrap_or(path))?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options.open(path).map_err(StateError::file("open", path))
}

/// Writes a file, for root only, so that it is there whole or not at all, also after a loss of power: under another name first, then renamed. Its
/// directory is made if need be.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), StateError> {
    make_directory(path.parent().unwrap_or(path))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let staged = path.with_file_name(name);
    // What a process with this number has left behind, or somebody has put there: a new file follows no link.
    let _ = fs::remove_file(&staged);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_data()));
    let outcome = written
        .map_err(StateError::file("write", path))
        .and_then(|()| fs::rename(&staged, path).map_err(StateError::file("replace", path)));
    if outcome.is_err() {
        let _ = fs::remove_file(&staged);
    }
    outcome
}

/// Adds to the end of a file that is there, in one write, and to the disk.
pub fn append(path: &Path, content: &[u8]) -> Result<(), StateError> {
    OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_data()))
        .map_err(StateError::file("add to", path))
}

/// Removes a directory if it is there and empty, and then its parents likewise, up to and including [`ROOT`].
pub(crate) fn prune(path: &Path) {
    let mut directory = Some(path);
    while let Some(current) = directory.filter(|current| current.starts_with(ROOT)) {
        match fs::remove_dir(current) {
            // Whoever was killed on the way up, or down, has left the parents.
            Err(error) if !missing(&error) => return,
            _ => {}
        }
        directory = current.parent();
    }
}

/// How files of state are opened.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// How long is waited, from the first time that there is something to wait for: a process that never waits need not know the time.
struct Patience {
    limit: Duration,
    until: Option<Instant>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, until: None }
    }

    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        now >= *self.until.get_or_insert(now + self.limit)
    }
}

/// Locks a file. flock(2) itself has no deadline.
fn lock(file: &File, path: &Path, patience: &mut Patience) -> Result<(), StateError> {
    let mut pause = Duration::from_micros(200);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if patience.is_over() => {
                return Err(StateError::Locked { path: path.to_owned(), limit: LOCK_LIMIT });
            }
            Err(TryLockError::WouldBlock) => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(StateError::file("lock", path)(error)),
        }
    }
}

/// A file held under an exclusive lock (`flock(2)`), which ends with the process whatever happens to it.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
    path: PathBuf,
    /// In bytes. Nobody else writes while it is locked.
    length: u64,
}

impl LockedFile {
    /// Opens and locks a file, made if need be with its directory.
    pub(crate) fn create(path: &Path) -> Result<Self, StateError> {
        let mut patience = Patience::new(LOCK_LIMIT);
        let mut attempts = 0;
        // In a directory that was pruned nothing can be made: ENOENT, or EPERM (ext4).
        let pruned = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EPERM));
        loop {
            match Self::attempt(path, true, &mut patience) {
                Ok(Some(locked)) => return Ok(locked),
                Ok(None) => {}
                Err(StateError::File { source, .. }) if pruned(&source) && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                Err(error) => {
                    // The directories, as far as they could be made.
                    path.parent().map(prune);
                    return Err(error);
                }
            }
        }
    }

    /// Opens and locks a file if it is there.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, StateError> {
        Self::open_within(path, LOCK_LIMIT)
    }

    /// Opens and locks a file if it is there and nobody holds it.
    pub(crate) fn open_free(path: &Path) -> Result<Option<Self>, StateError> {
        match Self::open_within(path, Duration::ZERO) {
            Err(StateError::Locked { .. }) => Ok(None),
            other => other,
        }
    }

    fn open_within(path: &Path, limit: Duration) -> Result<Option<Self>, StateError> {
        let mut patience = Patience::new(limit);
        loop {
            match Self::attempt(path, false, &mut patience) {
                Ok(Some(locked)) => return Ok(Some(locked)),
                Ok(None) => {}
                Err(StateError::File { source, .. }) if missing(&source) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// `None` if the file was removed between opening and locking, as its last user does, or has come meanwhile.
    fn attempt(path: &Path, create: bool, patience: &mut Patience) -> Result<Option<Self>, StateError> {
        match options().open(path) {
            Ok(file) => Self::take(file, path, patience),
            Err(error) if create && error.kind() == ErrorKind::NotFound => Self::make(path, patience),
            Err(error) => Err(StateError::file("open", path)(error)),
        }
    }

    /// Makes the file. It gets its name once it is locked: nobody meets it before, and where the lock is refused nothing is left.
    fn make(path: &Path, patience: &mut Patience) -> Result<Option<Self>, StateError> {
        let directory = path.parent().unwrap_or(path);
        let unnamed =
            || options().custom_flags(libc::O_TMPFILE | libc::O_NOFOLLOW | libc::O_CLOEXEC).open(directory);
        let made = match unnamed() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_directory(directory)?;
                unnamed()
            }
            other => other,
        };
        let file = match made {
            Ok(file) => file,
            // A file system without unnamed files (overlayfs before Linux 6.1). There, a file whose lock is refused stays, for somebody
            // else may hold it; DEL and GC take it for the record of an attachment that was never made.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                let named = options().create(true).open(path);
                return Self::take(named.map_err(StateError::file("create", path))?, path, patience);
            }
            Err(error) => return Err(StateError::file("create", path)(error)),
        };
        lock(&file, path, patience)?;
        let named = match linkat(&file, "", AT_FDCWD, path, AtFlags::AT_EMPTY_PATH) {
            // Not for everybody: before Linux 6.10 it takes CAP_DAC_READ_SEARCH.
            Err(Errno::ENOENT) => {
                let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
                linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)
            }
            other => other,
        };
        match named {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned(), length: 0 })),
            Err(Errno::EEXIST) => Ok(None),
            Err(errno) => Err(StateError::file("create", path)(errno.into())),
        }
    }

    /// Locks a file that others may have opened, too.
    fn take(file: File, path: &Path, patience: &mut Patience) -> Result<Option<Self>, StateError> {
        lock(&file, path, patience)?;
        let held = file.metadata().map_err(StateError::file("look at", path))?;
        // Who removes it has it locked, and takes it no other name.
        let is_there = held.nlink() > 0;
        Ok(is_there.then(|| Self { file, path: path.to_owned(), length: held.len() }))
    }

    /// The whole content.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>, StateError> {
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, 0).map_err(StateError::file("read", &self.path))?;
        Ok(bytes)
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds to the end, in one write.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let written = self.file.write_all(bytes);
        // Of a file system that is full a part may be there.
        self.length = match &written {
            Ok(()) => self.length + bytes.len() as u64,
            Err(_) => self.file.metadata().map_or(self.length, |now| now.len()),
        };
        written.map_err(StateError::file("write", &self.path))
    }

    /// Empties the file.
    pub(crate) fn clear(&mut self) -> Result<(), StateError> {
        if self.length > 0 {
            self.file.set_len(0).map_err(StateError::file("empty", &self.path))?;
            self.length = 0;
        }
        Ok(())
    }

    /// Removes the file, then its directories as far as they are empty.
    pub(crate) fn remove(self) -> Result<(), StateError> {
        match fs::remove_file(&self.path) {
            Err(error) if !missing(&error) => return Err(StateError::file("remove", &self.path)(error)),
            _ => {}
        }
        if let Some(directory) = self.path.parent() {
            prune(directory);
        }
        Ok(())
    }
}

/// Holds a lock file while something is done. The file stays.
pub fn locked<T, E: From<StateError>>(path: &Path, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let _lock = LockedFile::create(path)?;
    work()
}

pub(crate) fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// [`fs::read_dir`], which unlike the other functions there does not try again when a signal interrupts it.
pub(crate) fn entries(path: &Path) -> io::Result<fs::ReadDir> {
    loop {
        match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The names in a directory; none if there is no such directory.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, StateError> {
    let entries = match entries(path) {
        Ok(entries) => entries,
        Err(error) if missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(StateError::file("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StateError::file("list", path))?;
        names.extend(entry.file_name().to_str().map(ToOwned::to_owned));
    }
    names.sort();
    Ok(names)
}

/// A path below [`ROOT`].
pub(crate) fn path<S: AsRef<OsStr>>(parts: impl IntoIterator<Item = S>) -> PathBuf {
    let mut path = PathBuf::from(ROOT);
    path.extend(parts.into_iter().map(|part| PathBuf::from(part.as_ref())));
    path
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_replaced_is_roots_alone_and_no_link_is_followed() {
        let directory = std::env::temp_dir().join(format!("ferrule-state-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let path = directory.join("below/blue.json");
        replace(&path, b"one").unwrap();
        assert_eq!((mode(&directory), mode(&directory.join("below")), mode(&path)), (0o700, 0o700, 0o600));

        let victim = directory.join("victim");
        fs::write(&victim, "untouched").unwrap();
        let staged = path.with_file_name(format!("blue.json.{}", std::process::id()));
        symlink(&victim, &staged).unwrap();
        replace(&path, b"two").unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&victim, &path).unwrap();
        assert!(open_private(&path).is_err(), "a lock is not taken on another file");
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(names(&directory.join("below")).unwrap(), ["blue.json"]);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_that_comes_and_goes_is_held_by_one_at_a_time() {
        let directory = std::env::temp_dir().join(format!("ferrule-state-held-{}", std::process::id()));
        let (path, held) = (directory.join("a/record"), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..50 {
                        let mut file = LockedFile::create(&path).unwrap();
                        assert!(!held.swap(true, Ordering::SeqCst), "two hold it");
                        file.append(b"x").unwrap();
                        held.store(false, Ordering::SeqCst);
                        if round % 3 == 0 {
                            file.remove().unwrap();
                            let _ = fs::remove_dir(directory.join("a"));
                        }
                    }
                });
            }
        });
        let left: Vec<_> = fs::read_dir(directory.join("a")).into_iter().flatten().collect();
        assert!(left.len() <= 1, "{left:?}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
