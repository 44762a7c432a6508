//! A network namespace by path, and work done inside it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, known by a path such as `/run/netns/c1`.
///
/// Only the path is held: an open descriptor would keep the namespace alive after it was deleted, and hide what a
/// plugin does when its container is gone.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
    path: PathBuf,
    /// Directories that whoever enters sees elsewhere: where, and what is there instead.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Netns {
    /// The namespace the process started in, called `host`.
    pub fn host() -> Self {
        // The process's own entry is the main thread's, which never changes its namespace: `enter` uses other threads.
        Self {
            name: "host".into(),
            path: format!("/proc/{}/ns/net", std::process::id()).into(),
            mounts: Vec::new(),
        }
    }

    /// Makes a namespace at `/run/netns/NAME`, as `ip netns add` does, with its loopback device down.
    pub fn create(name: &str) -> Self {
        let directory = Path::new("/run/netns");
        fs::create_dir_all(directory).expect("making /run/netns");
        let path = directory.join(name);
        File::create_new(&path).unwrap_or_else(|e| panic!("making {}: {e}", path.display()));
        let bound = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    let here = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
                    mount(Some(here.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                })
                .join()
                .expect("the thread making a namespace")
        });
        bound.unwrap_or_else(|e| panic!("making the network namespace {name}: {e}"));
        Self { name: name.into(), path, mounts: Vec::new() }
    }

    /// The same namespace, as that of a host with directories of its own: who enters sees `instead` at `at`, both of which exist, and
    /// nobody else does.
    pub(crate) fn with_mount(mut self, at: impl Into<PathBuf>, instead: impl Into<PathBuf>) -> Self {
        self.mounts.push((at.into(), instead.into()));
        self
    }

    /// Takes the name away, as `ip netns del` does. The kernel frees the namespace once no process, socket or
    /// descriptor is left in it. Succeeds when the name is gone already.
    pub fn delete(&self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path to give as `CNI_NETNS`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread inside this namespace and returns what it returned. Sockets opened and processes
    /// started there belong to the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(&self.path)
                    .unwrap_or_else(|e| panic!("opening the namespace {}: {e}", self.path.display()));
                setns(file, CloneFlags::CLONE_NEWNET)
                    .unwrap_or_else(|e| panic!("entering the namespace {}: {e}", self.name));
                self.mount();
                work()
            });
            thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// Shows this thread, and what it starts, the host's own directories. Containers' namespaces are mounts too: those that are there by now
    /// are taken along.
    fn mount(&self) {
        if self.mounts.is_empty() {
            return;
        }
        unshare(CloneFlags::CLONE_NEWNS)
            .unwrap_or_else(|e| panic!("a mount namespace for {}: {e}", self.name));
        for (at, instead) in &self.mounts {
            mount(Some(instead), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .unwrap_or_else(|e| panic!("showing {} at {}: {e}", instead.display(), at.display()));
        }
    }

    /// Runs a program inside this namespace to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run<S: AsRef<OsStr> + Sync>(&self, program: &str, arguments: &[S]) -> Ran {
        self.enter(|| {
            let output =
                Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap_or_else(|e| {
                    panic!("{program} cannot be started: {e} (tools/install-deps installs it)")
                });
            Ran {
                code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        })
    }
}

/// What a program that ended said.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Exit code, or 128 plus the signal that ended it.
    pub code: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}
