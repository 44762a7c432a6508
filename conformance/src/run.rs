//! Plans the cases, runs each in a process and a world of its own, several side by side, and gathers what came out.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cases::{self, Case};
use crate::catalogue::{self, Item, Level};
use crate::lab::{Lab, parse_version, world};
use crate::profile::Profile;
use crate::verdict::{CaseResult, Finding, Outcome, Stop, Verdict};

/// A directory of plugins under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// Its name in reports.
    pub label: String,
    /// Where its executables are.
    pub directory: PathBuf,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The directories.
    pub suites: Vec<Suite>,
    /// The profiles; of plugins that a directory does not have, none is run.
    pub profiles: Vec<Profile>,
    /// Items, or `ITEM/case`, by pattern; empty: all.
    pub only: Vec<String>,
    /// Plugins by pattern; empty: all.
    pub plugins: Vec<String>,
    /// Cases side by side.
    pub jobs: usize,
}

/// What came out for one plugin of one suite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PluginReport {
    /// The executable's name.
    pub plugin: String,
    /// What the profile says about it.
    pub about: String,
    /// The versions it says it supports.
    pub versions: Vec<String>,
    /// Why none of its cases was run, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The cases, in catalogue order.
    pub cases: Vec<CaseResult>,
}

impl PluginReport {
    /// The worst verdict of an item's cases; `None` if no case applied to this plugin.
    pub fn item(&self, id: &str) -> Option<Verdict> {
        self.cases.iter().filter(|case| case.item == id).map(|case| case.verdict).max()
    }
}

/// What came out for one suite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SuiteReport {
    /// The suite.
    #[serde(flatten)]
    pub suite: Suite,
    /// Its plugins.
    pub plugins: Vec<PluginReport>,
}

/// Everything that came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The harness's version.
    pub harness: String,
    /// The kernel's release.
    pub kernel: String,
    /// Wall-clock seconds of the whole run.
    pub seconds: f64,
    /// The catalogue, for readers of the report.
    pub items: Vec<Item>,
    /// The suites, in the order they were given.
    pub suites: Vec<SuiteReport>,
}

/// What a worker tells while it runs.
#[derive(Debug, Clone)]
pub enum Progress {
    /// So many cases will be run.
    Planned(usize),
    /// One has come to its end.
    Done {
        /// The suite's label.
        suite: String,
        /// The plugin.
        plugin: String,
        /// What came out.
        result: CaseResult,
    },
}

/// The work of one child process, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    directory: PathBuf,
    profile: Profile,
    versions: Vec<String>,
    level: Level,
    item: String,
    case: String,
}

/// The name under which the program runs one case, and not the whole plan.
pub const CASE_ARGUMENT: &str = "__case";
/// The pseudo-case that asks a plugin for its versions and tries its profile's needs.
const PROBE: &str = "__probe";
/// A case that takes longer than this is stopped, and broken.
const CASE_LIMIT: Duration = Duration::from_secs(180);

/// Runs the plan, telling `progress` as it goes.
///
/// # Errors
/// A catalogue that does not parse, or a program that cannot start itself.
pub fn run(plan: &Plan, progress: &(dyn Fn(Progress) + Sync)) -> Result<Report, String> {
    let started = Instant::now();
    let items = catalogue::items()?;
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut reports = Vec::new();
    let mut jobs = Vec::new();
    for (suite_index, suite) in plan.suites.iter().enumerate() {
        let mut plugins = Vec::new();
        for profile in &plan.profiles {
            let wanted =
                plan.plugins.is_empty() || plan.plugins.iter().any(|p| crate::glob(p, &profile.plugin));
            if !wanted || !suite.directory.join(&profile.plugin).is_file() {
                continue;
            }
            let mut report = probe(&program, suite, profile);
            if report.skipped.is_none() {
                for case in planned(&items, profile, &plan.only) {
                    let level =
                        items.iter().find(|item| item.id == case.item).map_or(Level::Quality, |i| i.level);
                    jobs.push((
                        suite_index,
                        plugins.len(),
                        job(suite, profile, &report.versions, case, level),
                    ));
                }
            }
            report.cases.clear();
            plugins.push(report);
        }
        reports.push(SuiteReport { suite: suite.clone(), plugins });
    }
    progress(Progress::Planned(jobs.len()));
    let order: Vec<(String, String)> = items
        .iter()
        .flat_map(|i| cases::of_item(&i.id))
        .map(|c| (c.item.to_owned(), c.name.to_owned()))
        .collect();
    for (suite, plugin, result) in work(&program, jobs, plan.jobs) {
        let report = &mut reports[suite];
        progress(Progress::Done {
            suite: report.suite.label.clone(),
            plugin: report.plugins[plugin].plugin.clone(),
            result: result.clone(),
        });
        report.plugins[plugin].cases.push(result);
    }
    for plugin in reports.iter_mut().flat_map(|report| &mut report.plugins) {
        plugin.cases.sort_by_key(|case| {
            order.iter().position(|(item, name)| *item == case.item && *name == case.case)
        });
    }
    Ok(Report {
        harness: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        items,
        suites: reports,
    })
}

/// The cases that apply to a plugin, in catalogue order.
pub fn planned<'a>(items: &'a [Item], profile: &'a Profile, only: &'a [String]) -> Vec<&'static Case> {
    items
        .iter()
        .flat_map(|item| cases::of_item(&item.id))
        .filter(|case| case.applies(profile))
        .filter(|case| {
            let whole = format!("{}/{}", case.item, case.name);
            only.is_empty() || only.iter().any(|p| crate::glob(p, case.item) || crate::glob(p, &whole))
        })
        .collect()
}

fn job(suite: &Suite, profile: &Profile, versions: &[String], case: &Case, level: Level) -> Job {
    Job {
        directory: suite.directory.clone(),
        profile: profile.clone(),
        versions: versions.to_vec(),
        level,
        item: case.item.to_owned(),
        case: case.name.to_owned(),
    }
}

fn probe(program: &Path, suite: &Suite, profile: &Profile) -> PluginReport {
    let job = Job {
        directory: suite.directory.clone(),
        profile: profile.clone(),
        versions: Vec::new(),
        level: Level::Must,
        item: PROBE.to_owned(),
        case: PROBE.to_owned(),
    };
    let result = in_child(program, &job);
    let note = |verdict| result.findings.iter().find(|f| f.verdict == verdict).map(|f| f.message.clone());
    let mut versions: Vec<String> =
        note(Verdict::Pass).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    versions.sort_by_key(|version| parse_version(version));
    PluginReport {
        plugin: profile.plugin.clone(),
        about: profile.about.clone(),
        versions,
        skipped: note(Verdict::Skip).or_else(|| note(Verdict::Broken)),
        cases: Vec::new(),
    }
}

/// Runs the jobs on `width` threads; the results come as they are ready.
fn work(
    program: &Path,
    jobs: Vec<(usize, usize, Job)>,
    width: usize,
) -> impl Iterator<Item = (usize, usize, CaseResult)> {
    let queue = std::sync::Arc::new(Mutex::new(VecDeque::from(jobs)));
    let (send, receive) = mpsc::channel();
    for _ in 0..width.max(1) {
        let (queue, send, program) = (queue.clone(), send.clone(), program.to_owned());
        thread::spawn(move || {
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                let Some((suite, plugin, job)) = next else { return };
                if send.send((suite, plugin, in_child(&program, &job))).is_err() {
                    return;
                }
            }
        });
    }
    receive.into_iter()
}

fn broken(job: &Job, message: String, millis: u64) -> CaseResult {
    CaseResult {
        item: job.item.clone(),
        case: job.case.clone(),
        verdict: Verdict::Broken,
        findings: vec![Finding { verdict: Verdict::Broken, message, step: None }],
        journal: Vec::new(),
        millis,
    }
}

/// Runs one job in a child of its own, and never longer than [`CASE_LIMIT`].
fn in_child(program: &Path, job: &Job) -> CaseResult {
    let started = Instant::now();
    let millis = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = || -> io::Result<(Vec<u8>, bool)> {
        let mut child = Command::new(program)
            .arg(CASE_ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&serde_json::to_vec(job)?)?;
        }
        let mut stdout = child.stdout.take();
        let (done, wait) = mpsc::channel::<()>();
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let watchdog = thread::spawn(move || {
            let late = wait.recv_timeout(CASE_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            late
        });
        let mut bytes = Vec::new();
        if let Some(pipe) = stdout.as_mut() {
            pipe.read_to_end(&mut bytes)?;
        }
        child.wait()?;
        drop(done);
        Ok((bytes, watchdog.join().unwrap_or(false)))
    }();
    match outcome {
        Ok((_, true)) => {
            broken(job, format!("the case did not end within {} s", CASE_LIMIT.as_secs()), millis())
        }
        Ok((bytes, false)) => match serde_json::from_slice::<CaseResult>(&bytes) {
            Ok(mut result) => {
                result.millis = millis();
                result
            }
            Err(error) => broken(job, format!("the case's process gave no result: {error}"), millis()),
        },
        Err(error) => broken(job, format!("cannot run the case's process: {error}"), millis()),
    }
}

/// The child's side: reads a job from standard input, runs its case, prints the result.
///
/// # Errors
/// A job that does not parse, or a result that cannot be written.
pub fn child() -> Result<(), String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| format!("cannot read the job: {error}"))?;
    let job: Job = serde_json::from_str(&text).map_err(|error| format!("cannot read the job: {error}"))?;
    let result = perform(&job);
    let bytes = serde_json::to_vec(&result).map_err(|error| format!("cannot write the result: {error}"))?;
    io::stdout().write_all(&bytes).map_err(|error| format!("cannot write the result: {error}"))
}

fn perform(job: &Job) -> CaseResult {
    let mut findings = Vec::new();
    let mut journal = Vec::new();
    let mut end = |outcome: Outcome, lab: Option<Lab>| {
        if let Some(lab) = lab {
            (findings, journal) = lab.into_parts();
        }
        if let Err(stop) = outcome {
            let verdict = match stop {
                Stop::Skip(_) => Verdict::Skip,
                Stop::Fail(_) => Verdict::of_breaking(job.level),
                Stop::Broken(_) => Verdict::Broken,
            };
            findings.push(Finding { verdict, message: stop.to_string(), step: None });
        }
    };
    match enter(job) {
        Err(stop) => end(Err(stop), None),
        Ok(mut lab) if job.case == PROBE => {
            let outcome = cases::probe(&mut lab);
            end(outcome, Some(lab));
        }
        Ok(mut lab) => {
            let outcome = match cases::find(&job.item, &job.case) {
                Some(case) => (case.run)(&mut lab),
                None => Err(Stop::Broken(format!("there is no case {}/{}", job.item, job.case))),
            };
            end(outcome, Some(lab));
        }
    }
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass);
    if verdict == Verdict::Pass {
        journal.clear();
    }
    CaseResult { item: job.item.clone(), case: job.case.clone(), verdict, findings, journal, millis: 0 }
}

fn enter(job: &Job) -> Outcome<Lab> {
    let program = std::env::current_exe()?;
    world::enter(&job.directory, &program).map_err(|error| Stop::Broken(error.to_string()))?;
    // Delegates that a killed plugin leaves behind come to this process, which ends them.
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| Stop::Broken(error.to_string()))?;
    Lab::new(job.profile.clone(), job.versions.clone(), job.level)
}
