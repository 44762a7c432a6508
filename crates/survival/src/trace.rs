//! Runs a program and all it starts under ptrace(2), and at one system call of one's choice kills the process that makes it, or lets the
//! call fail unmade.
//!
//! strace(1) can do both, but counts calls a thread, so that those of a plugin's second thread and of its delegate would need runs of
//! their own, and one run costs several times as much (docs/adr/0010-own-injector.md).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::call::{Ended, Execution};
use crate::calls::{self, Names};
use crate::regs;
use crate::watchdog::Watchdog;

/// `PTRACE_SYSCALL_INFO_ENTRY` of `linux/ptrace.h`.
const ENTRY: u8 = 1;

/// A system call of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Its name.
    pub name: String,
    /// The how manieth of that name it is, of all threads and processes of its program.
    pub nth: usize,
    /// The program that makes it.
    pub program: String,
    /// What it is made on, where that is easily said.
    pub on: String,
}

/// What to do at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Kill the process that is about to make it.
    Kill,
    /// Let it fail.
    Fail(Errno),
}

/// A call by name and number, and what to do there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Injection<'a> {
    pub program: &'a str,
    pub name: &'a str,
    pub nth: usize,
    pub action: Action,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Traced {
    /// Every call up to the end; what they were made on is known only without an injection.
    pub calls: Vec<Call>,
    /// The call that the injection hit.
    pub hit: Option<Call>,
    /// The most memory that one of its processes had, in KiB; known only without an injection.
    pub peak: u64,
    /// How the program ended.
    pub ended: Ended,
}

/// Runs it to the end of everything it has started.
#[expect(clippy::zombie_processes, reason = "all children are waited for, by number")]
pub(crate) fn run(execution: &Execution, injection: Option<Injection<'_>>) -> Traced {
    // What a killed plugin leaves behind becomes our child.
    prctl::set_child_subreaper(true).expect("becoming a subreaper");
    let mut child = start(execution);
    let leader = Pid::from_raw(child.id().cast_signed());
    let mut stdout = child.stdout.take().expect("a pipe");
    // `spawn` returns a moment before the shell is one; its line says that it is. What it does from then on does not count.
    stdout.read_exact(&mut [0]).expect("a line of a shell");
    let mut options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    if injection.is_none() {
        // Else a process that is killed would stop once more.
        options |= Options::PTRACE_O_TRACEEXIT;
    }
    ptrace::seize(leader, options).expect("tracing a child: is ptrace(2) permitted here?");
    ptrace::interrupt(leader).expect("stopping a child");
    let mut stdin = child.stdin.take().expect("a pipe");
    // The shell's line, then the plugin's configuration.
    stdin.write_all(b"go\n").and_then(|()| stdin.write_all(&execution.stdin)).expect("writing to a child");
    drop(stdin);
    let (stdout, stderr) = (collect(Some(stdout)), collect(child.stderr.take()));

    let watchdog = Watchdog::start(leader);
    let mut follower = Follower { injection, ..Follower::new(leader) };
    follower.follow();
    let ended = Ended {
        code: follower.code,
        hung: watchdog.stop(),
        stdout: stdout.recv().unwrap_or_default(),
        stderr: String::from_utf8_lossy(&stderr.recv().unwrap_or_default()).into_owned(),
    };
    Traced { calls: follower.calls, hit: follower.hit, peak: follower.peak, ended }
}

/// A shell that waits for a line, and then becomes the plugin: by then it is traced.
fn start(execution: &Execution) -> Child {
    execution
        .command("/bin/sh")
        .args(["-c", "echo; read line; exec \"$0\""])
        .arg(&execution.program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("starting a shell")
}

fn collect(pipe: Option<impl std::io::Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

struct Follower<'a> {
    leader: Pid,
    injection: Option<Injection<'a>>,
    executed: bool,
    counts: BTreeMap<(String, String), usize>,
    programs: HashMap<Pid, String>,
    /// Threads whose call is to end with an error.
    failing: HashMap<Pid, Errno>,
    calls: Vec<Call>,
    hit: Option<Call>,
    peak: u64,
    code: Option<i32>,
}

impl Follower<'_> {
    fn new(leader: Pid) -> Self {
        Self {
            leader,
            injection: None,
            executed: false,
            counts: BTreeMap::new(),
            programs: HashMap::new(),
            failing: HashMap::new(),
            calls: Vec::new(),
            hit: None,
            peak: 0,
            code: None,
        }
    }

    /// Until no child is left.
    fn follow(&mut self) {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            let resumed = match status {
                WaitStatus::Exited(pid, code) => {
                    if pid == self.leader {
                        self.code = Some(code);
                    }
                    None
                }
                WaitStatus::PtraceSyscall(pid) => self.stopped(pid).then_some((pid, None)),
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if event == nix::libc::PTRACE_EVENT_EXEC {
                        self.executed = true;
                        self.programs.clear();
                        if pid == self.leader {
                            // Until then it was the shell's.
                            self.peak = 0;
                        }
                    }
                    if event == nix::libc::PTRACE_EVENT_EXIT {
                        self.peak = self.peak.max(memory_peak(pid));
                    }
                    Some((pid, None))
                }
                WaitStatus::Stopped(pid, signal) => Some((pid, Some(signal))),
                _ => None,
            };
            if let Some((pid, signal)) = resumed {
                // It may be dying by now.
                let _ = ptrace::syscall(pid, signal);
            }
        }
    }

    /// A thread is about to make a call, or has made it. Whether it may go on.
    fn stopped(&mut self, pid: Pid) -> bool {
        let Ok(info) = ptrace::syscall_info(pid) else { return true };
        if info.op != ENTRY {
            if let Some(error) = self.failing.remove(&pid) {
                let _ = regs::answer(pid, error);
            }
            return true;
        }
        if !self.executed {
            return true;
        }
        let Ok((number, arguments)) = regs::call(pid) else { return true };
        let name = calls::name(number);
        let program = self.programs.entry(pid).or_insert_with(|| program(pid)).clone();
        let key = (program.clone(), name.clone());
        let nth = *self.counts.entry(key).and_modify(|count| *count += 1).or_insert(1);
        let aimed = self.injection.filter(|at| at.program == program && at.name == name && at.nth == nth);
        let on = if self.injection.is_none() || aimed.is_some() {
            describe(pid, &name, arguments)
        } else {
            String::new()
        };
        let call = Call { name, nth, program, on };
        self.calls.push(call.clone());
        match aimed.map(|at| at.action) {
            None => true,
            Some(Action::Kill) => {
                self.hit = Some(call);
                let _ = kill(process(pid), Signal::SIGKILL);
                false
            }
            Some(Action::Fail(error)) => {
                if regs::skip(pid).is_ok() {
                    self.hit = Some(call);
                    self.failing.insert(pid, error);
                }
                true
            }
        }
    }
}

/// The process a thread belongs to.
fn process(thread: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|number| number.trim().parse().ok()).map_or(thread, Pid::from_raw)
}

/// The most memory a process has had since it executed its program, in KiB.
fn memory_peak(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|size| size.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn program(thread: Pid) -> String {
    let path = fs::read_link(format!("/proc/{thread}/exe")).unwrap_or_default();
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn describe(thread: Pid, call: &str, arguments: [u64; 4]) -> String {
    let descriptor = |number: u64| {
        let path = fs::read_link(format!("/proc/{thread}/fd/{number}"));
        path.map(|path| path.display().to_string()).unwrap_or_default()
    };
    match calls::arguments(call) {
        Names::Path(at) => text(thread, arguments[at]),
        Names::Descriptor => descriptor(arguments[0]),
        Names::Message => {
            // The length, then the type, of a netlink message.
            let header = memory(thread, arguments[1], 6);
            let kind = header.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
            kind.map(|kind| format!("{} type {kind}", descriptor(arguments[0]))).unwrap_or_default()
        }
        Names::Nothing => String::new(),
    }
}

fn text(thread: Pid, address: u64) -> String {
    let bytes = memory(thread, address, 256);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn memory(thread: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = File::open(format!("/proc/{thread}/mem")).and_then(|file| file.read_at(&mut bytes, address));
    bytes.truncate(read.unwrap_or(0));
    bytes
}
