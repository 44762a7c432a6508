//! Network namespaces, by file descriptor.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use cni::Request;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, gettid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sys;

/// Why a namespace can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The path can't be opened.
    #[error("can't open network namespace {}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is not a network namespace but {what}", path.display())]
    NotNetwork {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It can't be entered.
    #[error("can't enter network namespace {}", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// No thread.
    #[error("can't start a thread to enter network namespace {}", path.display())]
    Thread {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<NetnsError> for io::Error {
    /// The kind stays that of the cause, so that it still shows what was not permitted.
    fn from(error: NetnsError) -> Self {
        let kind = match &error {
            NetnsError::Open { source, .. } | NetnsError::Thread { source, .. } => source.kind(),
            NetnsError::Enter { source, .. } => Self::from(*source).kind(),
            NetnsError::NotNetwork { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// What makes a namespace the same one, however it is named: device and inode of its file (`namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// Device number of nsfs.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// An open network namespace. It exists as long as this does.
pub struct Netns {
    file: Arc<File>,
    path: PathBuf,
    id: NetnsId,
    /// The namespace of the thread that has checked this one.
    own: Option<Home>,
    /// Where the thread that went there first has come from; `None` if there is no way back.
    home: OnceLock<Option<Home>>,
}

/// A thread's own network namespace.
#[derive(Clone)]
struct Home {
    file: Arc<File>,
    thread: Pid,
}

impl Netns {
    /// Opens a namespace and makes sure that it is one, and of the network kind.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let opening = |source| NetnsError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(opening)?;
        let metadata = file.metadata().map_err(opening)?;
        let id = NetnsId { device: metadata.dev(), inode: metadata.ino() };
        Self::verified(path, Arc::new(file), id, None)
    }

    /// The namespace of a call, which is open already; as [`Netns::open`] where it is not.
    pub fn of(request: &Request, path: &Path) -> Result<Self, NetnsError> {
        let Some(opened) = request.open_netns(path) else { return Self::open(path) };
        let (device, inode) = opened.id;
        let own = Home { file: Arc::clone(&opened.own), thread: opened.thread };
        Self::verified(path, Arc::clone(&opened.file), NetnsId { device, inode }, Some(own))
    }

    fn verified(path: &Path, file: Arc<File>, id: NetnsId, own: Option<Home>) -> Result<Self, NetnsError> {
        let what = match sys::namespace_type(file.as_fd()) {
            Ok(libc::CLONE_NEWNET) => None,
            Ok(libc::CLONE_NEWNS) => Some("a mount namespace"),
            Ok(libc::CLONE_NEWPID) => Some("a PID namespace"),
            Ok(libc::CLONE_NEWUSER) => Some("a user namespace"),
            Ok(libc::CLONE_NEWUTS) => Some("a UTS namespace"),
            Ok(libc::CLONE_NEWIPC) => Some("an IPC namespace"),
            Ok(_) => Some("another kind of namespace"),
            Err(_) => Some("no namespace at all"),
        };
        match what {
            Some(what) => Err(NetnsError::NotNetwork { path: path.to_owned(), what }),
            None => Ok(Self { file, path: path.to_owned(), id, own, home: OnceLock::new() }),
        }
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs something inside the namespace. What it opens (sockets, files below `/proc/sys/net`) belongs to the namespace.
    ///
    /// The calling thread goes there and comes back, to where it was when it went there first, or when it checked the namespace of the call
    /// ([`Netns::of`]). To start a thread that ends there, and to wait for it, takes 0.1 to 0.3 ms each time; this is done where there is no way
    /// back, in a user namespace whose processes are in a network namespace of somebody else, and for a second thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        match self.home.get_or_init(|| Home::of(self.own.as_ref())) {
            Some(home) if home.thread == gettid() => {
                self.enter()?;
                let _taken_at_the_end = WayBack { home: &home.file, from: &self.path }; // also of a panic
                Ok(work())
            }
            _ => self.run_on_a_thread(work),
        }
    }

    fn enter(&self) -> Result<(), NetnsError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|source| NetnsError::Enter { path: self.path.clone(), source })
    }

    fn run_on_a_thread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        thread::scope(|scope| {
            let inside = move || {
                self.enter()?;
                Ok(work())
            };
            let thread = thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, inside)
                .map_err(|source| NetnsError::Thread { path: self.path.clone(), source })?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Home {
    /// That of this thread, which is known already if this thread is the one that has looked. `None` where there is no way back. To go where one is
    /// already needs the same rights as to come back.
    fn of(known: Option<&Self>) -> Option<Self> {
        let thread = gettid();
        let home = match known.filter(|known| known.thread == thread) {
            Some(known) => known.clone(),
            None => Self { file: Arc::new(File::open("/proc/thread-self/ns/net").ok()?), thread },
        };
        setns(home.file.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
        Some(home)
    }
}

/// Takes the thread back into its own namespace, when dropped.
struct WayBack<'a> {
    home: &'a File,
    from: &'a Path,
}

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        // It can fail for want of memory only (`setns(2)`).
        const ATTEMPTS: u32 = 1000;
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..ATTEMPTS {
            match setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET) {
                Ok(()) => return,
                Err(_) => thread::sleep(PAUSE),
            }
        }
        // What comes next would be done to the container instead of the host. A DEL cleans up, as after any plugin that was killed.
        let message =
            format!("can't come back from network namespace {}; run DEL to clean up\n", self.from.display());
        _ = io::stderr().write_all(message.as_bytes());
        std::process::abort();
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netns").field("path", &self.path).field("id", &self.id).finish_non_exhaustive()
    }
}
