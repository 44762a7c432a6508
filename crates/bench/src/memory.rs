//! The most memory a program had at any moment.
//!
//! `ru_maxrss` is no use for small programs: the kernel starts it at what the parent had before the child called execve(2). So the program is
//! stopped at its end, by ptrace(2), and `VmHWM` of its own address space is read.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use nix::errno::Errno;
use nix::libc::PTRACE_EVENT_EXIT;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Doing as _, Result};
use crate::site::Step;

/// The most resident memory of each program that ran, in KiB, by the name the kernel knows it by.
pub type Peaks = BTreeMap<String, u64>;

/// Runs a program to its end and adds the peaks of it and what it started; returns what it printed.
///
/// Waits for any child of this process: nothing else may have one meanwhile.
///
/// # Errors
/// If it can't be started or traced.
pub fn run(step: &Step, peaks: &mut Peaks) -> Result<Vec<u8>> {
    // A shell that waits for a line, and then becomes the program: by then it is traced.
    let mut command = step.command_under(&["sh", "-c", "read line; exec \"$0\" \"$@\""]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().doing("start", &step.what)?;
    let leader = Pid::from_raw(child.id().cast_signed());
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).doing("trace", &step.what)?;
    if let Some(mut stdin) = child.stdin.take() {
        let given = stdin.write_all(b"go\n").and_then(|()| stdin.write_all(&step.stdin));
        given.doing("give its configuration to", &step.what)?;
    }
    let stdout = child.stdout.take();
    follow(leader, peaks).doing("follow", &step.what)?;
    let mut printed = Vec::new();
    if let Some(mut stdout) = stdout {
        stdout.read_to_end(&mut printed).doing("read the output of", &step.what)?;
    }
    Ok(printed)
}

fn follow(leader: Pid, peaks: &mut Peaks) -> nix::Result<()> {
    let mut alive = HashSet::from([leader]);
    while !alive.is_empty() {
        let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                alive.remove(&pid);
                continue;
            }
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                if event == PTRACE_EVENT_EXIT {
                    note(pid, peaks);
                }
                (pid, None)
            }
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(_) => continue,
            Err(Errno::ECHILD) => break,
            Err(error) => return Err(error),
        };
        alive.insert(pid);
        // It may be dying by now.
        let _ = ptrace::cont(pid, signal);
    }
    Ok(())
}

fn note(pid: Pid, peaks: &mut Peaks) {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()
    };
    if let (Some(name), Some(Ok(peak))) = (field("Name:"), field("VmHWM:").map(str::parse::<u64>)) {
        let known = peaks.entry(name.to_owned()).or_default();
        *known = peak.max(*known);
    }
}
