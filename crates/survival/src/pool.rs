//! Worlds side by side: a process each, in namespaces of its own, replaced when something went wrong in it.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::job::{Event, Failure, Job};

/// Where plugins are, and how many worlds there may be.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub bin: PathBuf,
    pub worlds: usize,
}

/// An event of a job.
#[derive(Debug)]
pub(crate) struct Report {
    pub job: Job,
    pub event: Event,
    /// Seconds since the job's previous event.
    pub took: f64,
}

impl Pool {
    /// Works off all jobs; `hear` gets every event as it comes.
    pub(crate) fn run(&self, jobs: Vec<Job>, mut hear: impl FnMut(Report)) {
        let queue = Mutex::new(VecDeque::from(jobs));
        let (sender, reports) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.worlds {
                let (queue, sender) = (&queue, sender.clone());
                scope.spawn(move || {
                    let mut world = None;
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(job) = next else { return };
                        self.work(&mut world, job, &sender);
                    }
                });
            }
            drop(sender);
            for report in reports {
                hear(report);
            }
        });
    }

    /// Works off a job, in as many worlds as that takes.
    fn work(&self, kept: &mut Option<Process>, mut job: Job, reports: &Sender<Report>) {
        loop {
            let network = job.network().to_owned();
            let usable = kept.take().filter(|process| process.network == network);
            let mut process = usable.unwrap_or_else(|| Process::start(self, &network));
            let (tried, clean) = process.work(&job, reports);
            if clean {
                *kept = Some(process);
            }
            // What is left after a failure is tried in a new world.
            let Job::Sweep(_, points) = &mut job else { return };
            points.drain(..tried.min(points.len()));
            if clean || points.is_empty() {
                return;
            }
        }
    }
}

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    network: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(pool: &Pool, network: &str) -> Self {
        let namespace = |kind: &str| {
            let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
            link.display().to_string()
        };
        let program = std::env::current_exe().expect("the path of this program");
        let mut child = Command::new("unshare")
            .args(["-rnm", "--propagation", "private", "--"])
            .arg(program)
            .args(["world", "--network", network, "--bin"])
            .arg(&pool.bin)
            // The test kit refuses to touch these.
            .env("FERRULE_OUTSIDE", format!("{} {}", namespace("net"), namespace("mnt")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting a world: unshare(1) is of util-linux");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, output, network: network.to_owned() }
    }

    /// Lets it do a job; how many points were tried, and whether the world is as good as new.
    fn work(&mut self, job: &Job, reports: &Sender<Report>) -> (usize, bool) {
        let line = serde_json::to_string(job).expect("a job has a JSON form");
        if let Some(stdin) = &mut self.child.stdin {
            let _ = writeln!(stdin, "{line}");
        }
        let (mut tried, mut clean, mut trying) = (0, true, None);
        let mut since = Instant::now();
        let mut tell = |event: Event| {
            let took = since.elapsed().as_secs_f64();
            since = Instant::now();
            let _ = reports.send(Report { job: job.clone(), event, took });
        };
        for line in (&mut self.output).lines() {
            let event = line.ok().and_then(|line| serde_json::from_str::<Event>(&line).ok());
            let Some(event) = event else { break };
            match &event {
                Event::Trying(point) => trying = Some(point.clone()),
                Event::Tried { failure, points, .. } => {
                    clean &= failure.is_none();
                    tried += points;
                    trying = None;
                }
                Event::Done => {
                    tell(event);
                    return (if clean { usize::MAX } else { tried }, clean);
                }
                _ => {}
            }
            tell(event);
        }
        // It is gone: a panic of the test kit says why on standard error.
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut said);
        }
        let count = usize::from(trying.is_some());
        tell(Event::Tried {
            point: trying.unwrap_or_else(|| job.part()),
            points: count,
            missed: false,
            message: None,
            failure: Some(Failure::new(format!("the world ended: {}", said.trim()))),
        });
        // Where not even a point was begun, another world would not get further.
        (if count == 0 { usize::MAX } else { tried + count }, false)
    }
}
