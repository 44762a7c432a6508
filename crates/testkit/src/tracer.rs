//! Kills a plugin at a system call of one's choice, by ptrace(2): the call is not made any more.
//!
//! strace(1) counts calls a thread; here those of all threads are one sequence, so that every gap between two calls can be hit.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Child, Stdio};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::plugin::Invocation;

/// How a plugin that was to be killed ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// How many system calls it made.
        calls: usize,
    },
    /// By us.
    Killed,
}

/// Whether this process may trace its children, as [`Invocation::kill_at`] does.
///
/// # Panics
/// If there is no `sleep` to try it on.
pub fn may_trace() -> bool {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let allowed = ptrace::seize(pid, Options::empty()).is_ok();
    child.kill().unwrap();
    child.wait().unwrap();
    allowed
}

/// Every how many system calls a plugin is killed: `FERRULE_KILL_EVERY`, which takes minutes with 1, else what is given.
pub fn kill_every(default: usize) -> usize {
    let given = std::env::var("FERRULE_KILL_EVERY").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default).max(1)
}

/// Makes attempts that are killed at system call 1, and every so many further on, until one is over before it comes to that.
///
/// # Panics
/// If the last one fails, or fewer than six were killed: then nothing was tried.
pub fn kill_everywhere(every: usize, mut attempt: impl FnMut(usize) -> End) {
    let mut kills = 0;
    for nth in (1..).step_by(every) {
        match attempt(nth) {
            End::Killed => kills += 1,
            End::Exited { code, calls } => {
                assert!(code == 0, "not killed, it ended with {code} after {calls} calls");
                assert!(calls < nth && kills > 5, "{calls} calls, {kills} kills");
                return;
            }
        }
    }
}

impl Invocation {
    /// Runs it, and kills it when it is about to make its system call number `nth` (the first is 1). What it has started is waited for.
    ///
    /// # Panics
    /// If it can't be started, or this process [may not trace](may_trace).
    #[expect(clippy::zombie_processes, reason = "it is waited for, by number")]
    pub fn kill_at(&self, nth: usize) -> End {
        // What the plugin leaves behind when it is killed becomes our child.
        prctl::set_child_subreaper(true).unwrap();
        let mut child = self.start();
        let leader = Pid::from_raw(child.id().cast_signed());
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(leader, options).unwrap();
        ptrace::interrupt(leader).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The shell's line, then the plugin's configuration.
        stdin.write_all(b"go\n").and_then(|()| stdin.write_all(self.input())).unwrap();
        drop(stdin);
        let end = follow(leader, nth);
        while waitpid(None, Some(WaitPidFlag::__WALL)) != Err(Errno::ECHILD) {}
        end
    }

    /// A shell that waits for a line, and then becomes the plugin: by then it is traced.
    fn start(&self) -> Child {
        self.command("sh")
            .args(["-c", "read line; exec \"$0\""])
            .arg(self.program())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn follow(leader: Pid, nth: usize) -> End {
    let mut calls = 0;
    let mut executed = false;
    // Threads that are inside a call: their next stop is its end.
    let mut inside: HashSet<Pid> = HashSet::new();
    loop {
        let resumed = match waitpid(None, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Exited(pid, code) if pid == leader => return End::Exited { code, calls },
            WaitStatus::Signaled(pid, ..) if pid == leader => return End::Killed,
            WaitStatus::PtraceSyscall(pid) => {
                if !inside.remove(&pid) {
                    inside.insert(pid);
                    calls += usize::from(executed);
                    if executed && calls == nth {
                        kill(leader, Signal::SIGKILL).unwrap();
                        continue;
                    }
                }
                Some((pid, None))
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                executed |= event == nix::libc::PTRACE_EVENT_EXEC;
                Some((pid, None))
            }
            WaitStatus::Stopped(pid, signal) => Some((pid, Some(signal))),
            // A thread, or a process that the plugin started.
            _ => None,
        };
        if let Some((pid, signal)) = resumed {
            // It may be dying by now.
            let _ = ptrace::syscall(pid, signal);
        }
    }
}
