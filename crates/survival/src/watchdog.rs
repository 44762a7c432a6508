//! Ends what does not end by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long an execution may take. A plugin that waits for a lock or the kernel gives up before that, and says so.
const LIMIT: Duration = Duration::from_secs(90);

/// Kills a process group that takes too long.
#[derive(Debug)]
pub(crate) struct Watchdog {
    over: Sender<()>,
    hung: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Watches a process that leads its group.
    pub(crate) fn start(leader: Pid) -> Self {
        let (over, ended) = mpsc::channel();
        let hung = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&hung);
        let thread = std::thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                noted.store(true, Ordering::Relaxed);
                let _ = killpg(leader, Signal::SIGKILL);
            }
        });
        Self { over, hung, thread }
    }

    /// The process has ended; whether it had to be killed.
    pub(crate) fn stop(self) -> bool {
        drop(self.over);
        let _ = self.thread.join();
        self.hung.load(Ordering::Relaxed)
    }
}
