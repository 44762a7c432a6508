//! The side of the harness: children that each run one case, several side by side, and their end when somebody interrupts.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::{CASE_ARGUMENT, Job};
use crate::lab::exec::kill_tree;
use crate::verdict::{CaseResult, Finding, Verdict};

/// A case that takes longer than this is stopped, and broken.
const CASE_LIMIT: Duration = Duration::from_secs(180);

/// Whether somebody wants the run to end, and the children to end then.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    stopped: bool,
    children: BTreeSet<u32>,
}

impl Interrupt {
    /// The process's one: from now on SIGINT, SIGTERM and SIGHUP end the children, and no more are started.
    pub(super) fn listen() -> Result<Self, String> {
        static LISTENING: OnceLock<Interrupt> = OnceLock::new();
        if let Some(interrupt) = LISTENING.get() {
            return Ok(interrupt.clone());
        }
        let interrupt = LISTENING.get_or_init(Self::default).clone();
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        // Blocked here and in every thread to come; a thread waits for them. Programs that are executed start with none blocked.
        signals.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
        let listener = interrupt.clone();
        thread::spawn(move || {
            if signals.wait().is_ok() {
                listener.stop();
            }
        });
        Ok(interrupt)
    }

    fn stop(&self) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.stopped = true;
        running.children.iter().for_each(|pid| kill_tree(*pid));
    }

    pub(super) fn stopped(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }

    /// Starts a child, unless the run is to end.
    fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.stopped {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let child = command.spawn()?;
        running.children.insert(child.id());
        Ok(child)
    }

    /// A child has ended and is about to be waited for: after that its number may be somebody else's.
    fn ended(&self, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).children.remove(&pid);
    }
}

/// Starts children.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    program: PathBuf,
    pub(super) interrupt: Interrupt,
}

impl Workers {
    pub(super) fn new(program: PathBuf, interrupt: Interrupt) -> Self {
        Self { program, interrupt }
    }

    /// Runs the jobs on `width` threads, those that wait on as many more; the results come as they are ready, and end early on an interrupt.
    pub(super) fn work(
        &self,
        jobs: Vec<(usize, usize, Job)>,
        width: usize,
    ) -> impl Iterator<Item = (usize, usize, CaseResult)> + use<> {
        let (send, receive) = mpsc::channel();
        let (waiting, working): (VecDeque<_>, VecDeque<_>) =
            jobs.into_iter().partition(|(.., job)| job.waits);
        for queue in [waiting, working] {
            let workers = width.max(1).min(queue.len());
            let queue = Arc::new(Mutex::new(queue));
            for _ in 0..workers {
                let (queue, send, workers) = (queue.clone(), send.clone(), self.clone());
                thread::spawn(move || {
                    loop {
                        let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                        let Some((suite, plugin, job)) = next else { return };
                        let result = workers.in_child(&job);
                        if workers.interrupt.stopped() || send.send((suite, plugin, result)).is_err() {
                            return;
                        }
                    }
                });
            }
        }
        receive.into_iter()
    }

    /// Runs one job in a child of its own, and never longer than [`CASE_LIMIT`].
    pub(super) fn in_child(&self, job: &Job) -> CaseResult {
        let started = Instant::now();
        let outcome = self.converse(job);
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok((_, true)) => {
                broken(job, format!("the case did not end within {} s", CASE_LIMIT.as_secs()), millis)
            }
            Ok((bytes, false)) => match serde_json::from_slice::<CaseResult>(&bytes) {
                Ok(result) => CaseResult { millis, ..result },
                Err(error) => broken(job, format!("the case's process gave no result: {error}"), millis),
            },
            Err(error) => broken(job, format!("cannot run the case's process: {error}"), millis),
        }
    }

    /// What the child printed, and whether it had to be killed.
    fn converse(&self, job: &Job) -> io::Result<(Vec<u8>, bool)> {
        let mut command = Command::new(&self.program);
        // A group of its own: an interrupt from the keyboard comes to the harness alone, which then ends each child with all below it.
        command.arg(CASE_ARGUMENT).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = self.interrupt.start(&mut command)?;
        let pid = child.id();
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&serde_json::to_vec(job)?)?;
        }
        let (done, wait) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            let late = wait.recv_timeout(CASE_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                kill_tree(pid);
            }
            late
        });
        let mut bytes = Vec::new();
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_end(&mut bytes)?;
        }
        self.interrupt.ended(pid);
        child.wait()?;
        drop(done);
        Ok((bytes, watchdog.join().unwrap_or(false)))
    }
}

fn broken(job: &Job, message: String, millis: u64) -> CaseResult {
    CaseResult {
        item: job.item.clone(),
        case: job.case.clone(),
        verdict: Verdict::Broken,
        findings: vec![Finding { verdict: Verdict::Broken, message, step: None }],
        journal: Vec::new(),
        millis,
        known: None,
    }
}
