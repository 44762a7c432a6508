//! Kills a plugin at a system call of one's choice, by ptrace(2): the call is not made any more.
//!
//! strace(1) counts calls a thread; here those of all threads are one sequence, so that every gap between two calls can be hit.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::{Container, plugin_dir};

/// How a traced plugin ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code, after so many system calls.
    Exited { code: i32, calls: usize },
    /// By us.
    Killed,
}

/// Whether this process may trace its children.
pub fn is_allowed() -> bool {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let allowed = ptrace::seize(pid, Options::empty()).is_ok();
    child.kill().unwrap();
    child.wait().unwrap();
    allowed
}

/// Runs `bridge` for `eth0` of a container, and kills it when it is about to make its system call number `nth` (the first is 1). What it
/// has started is waited for.
#[expect(clippy::zombie_processes, reason = "it is waited for, by number")]
pub fn run(verb: &str, container: &Container, config: &Value, nth: usize) -> End {
    // What the plugin leaves behind when it is killed becomes our child.
    prctl::set_child_subreaper(true).unwrap();
    let mut child = start(verb, container);
    let leader = Pid::from_raw(child.id().cast_signed());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).unwrap();
    ptrace::interrupt(leader).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The shell's line, then the plugin's configuration.
    stdin.write_all(format!("go\n{config}").as_bytes()).unwrap();
    drop(stdin);
    let end = follow(leader, nth);
    while waitpid(None, Some(WaitPidFlag::__WALL)) != Err(Errno::ECHILD) {}
    end
}

/// A shell that waits for a line, and then becomes the plugin: by then it is traced.
fn start(verb: &str, container: &Container) -> Child {
    Command::new("sh")
        .args(["-c", "read line; exec \"$0\""])
        .arg(plugin_dir().join("bridge"))
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container.name())
        .env("CNI_NETNS", container.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", plugin_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
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
