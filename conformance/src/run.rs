//! Plans the cases, runs each in a process and a world of its own, several side by side, and gathers what came out.

mod child;
mod worker;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use child::child;

use crate::cases::{self, Case};
use crate::catalogue::{self, Item, Level, Section};
use crate::lab::parse_version;
use crate::lab::world::Isolation;
use crate::profile::Profile;
use crate::verdict::{CaseResult, Verdict};
use worker::{Interrupt, Workers};

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
    /// Executables of the directory that no profile describes, and that were left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Everything that came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Of this structure: grows when a field changes its meaning or goes. A new field does not change it.
    pub schema: u32,
    /// The harness's version.
    pub harness: String,
    /// The kernel's release.
    pub kernel: String,
    /// When the run began, in universal time: `2026-03-01T12:00:00Z`.
    pub started: String,
    /// Wall-clock seconds of the whole run.
    pub seconds: f64,
    /// What of the host the plugins could see or change, because this place refuses to isolate it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
    /// Cases that were planned and not run, because the run was interrupted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_run: usize,
    /// The catalogue, for readers of the report.
    pub sections: Vec<Section>,
    /// The suites, in the order they were given.
    pub suites: Vec<SuiteReport>,
    /// Expected deviations that did not occur.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Report {
    /// The [`Report::schema`] this program writes.
    pub const SCHEMA: u32 = 1;

    /// Every item, in the order of reports.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.sections.iter().flat_map(|section| &section.item)
    }

    /// Every plugin with its suite.
    pub fn plugins(&self) -> impl Iterator<Item = (&Suite, &PluginReport)> {
        self.suites.iter().flat_map(|suite| suite.plugins.iter().map(|plugin| (&suite.suite, plugin)))
    }

    /// Every case with its suite and plugin.
    pub fn cases(&self) -> impl Iterator<Item = (&Suite, &PluginReport, &CaseResult)> {
        self.plugins().flat_map(|(suite, plugin)| plugin.cases.iter().map(move |case| (suite, plugin, case)))
    }
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
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    directory: PathBuf,
    profile: Profile,
    versions: Vec<String>,
    level: Level,
    item: String,
    case: String,
    /// [`Case::waits`].
    #[serde(skip)]
    waits: bool,
    isolation: Isolation,
}

/// The name under which the program runs one case, and not the whole plan.
pub const CASE_ARGUMENT: &str = "__case";
/// The pseudo-case that asks a plugin for its versions and tries its profile's needs.
const PROBE: &str = "__probe";
/// The pseudo-case that only enters a world, and tells what it cannot isolate.
const WORLD: &str = "__world";

/// Runs the plan, telling `progress` as it goes. SIGINT, SIGTERM and SIGHUP end it early, with what there is by then.
///
/// # Errors
/// A catalogue that does not parse, a program that cannot start itself, or a place where nobody may create namespaces.
pub fn run(plan: &Plan, progress: &(dyn Fn(Progress) + Sync)) -> Result<Report, String> {
    let (started, date) = (Instant::now(), SystemTime::now());
    let sections = catalogue::sections()?;
    let items: Vec<Item> = sections.iter().flat_map(|section| section.item.clone()).collect();
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let workers = Workers::new(program, Interrupt::listen()?);
    let (isolation, exposed) = isolate(&workers, plan)?;
    let mut jobs = Vec::new();
    let mut reports = Vec::new();
    for (index, suite) in plan.suites.iter().enumerate() {
        let mut plugins = Vec::new();
        for profile in plan.profiles_of(suite) {
            let (report, planned) = prepare(&workers, plan, &items, (suite, profile), isolation);
            jobs.extend(planned.into_iter().map(|job| (index, plugins.len(), job)));
            plugins.push(report);
        }
        reports.push(SuiteReport { suite: suite.clone(), plugins, unknown: plan.unknown(suite) });
    }
    let planned = jobs.len();
    progress(Progress::Planned(planned));
    let mut done = 0;
    for (suite, plugin, result) in workers.work(jobs, plan.jobs) {
        done += 1;
        let report = &mut reports[suite];
        progress(Progress::Done {
            suite: report.suite.label.clone(),
            plugin: report.plugins[plugin].plugin.clone(),
            result: result.clone(),
        });
        report.plugins[plugin].cases.push(result);
    }
    sort(&items, &mut reports);
    Ok(Report {
        schema: Report::SCHEMA,
        harness: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        started: timestamp(date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
        seconds: started.elapsed().as_secs_f64(),
        exposed,
        not_run: planned - done,
        sections,
        suites: reports,
        stale: Vec::new(),
    })
}

/// Runs single cases, for programs that decide after each which is next.
#[derive(Debug)]
pub struct Session {
    workers: Workers,
    isolation: Isolation,
    items: Vec<Item>,
}

impl Session {
    /// A session for plans like this one.
    ///
    /// # Errors
    /// As [`run`].
    pub fn new(plan: &Plan) -> Result<Self, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let workers = Workers::new(program, Interrupt::listen()?);
        let (isolation, _) = isolate(&workers, plan)?;
        Ok(Self { workers, isolation, items: catalogue::items()? })
    }

    /// Every item of the catalogue.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Whether somebody has interrupted the program: what is run from then on says nothing.
    pub fn stopped(&self) -> bool {
        self.workers.interrupt.stopped()
    }

    /// What the plugin of this profile says of itself, and whether it can be run. No case yet.
    pub fn probe(&self, suite: &Suite, profile: &Profile) -> PluginReport {
        probe(&self.workers, suite, profile, self.isolation)
    }

    /// Runs one case on the plugin of this profile, which says that it supports these `versions`.
    pub fn case(&self, suite: &Suite, profile: &Profile, versions: &[String], case: &Case) -> CaseResult {
        let item = self.items.iter().find(|item| item.id == case.item);
        let level = item.map_or(Level::Quality, |item| item.level);
        let job = job(suite, profile, versions, (case.item, case.name), level, self.isolation);
        self.workers.in_child(&job)
    }
}

/// Finds the strictest world this place lets us make: with a user namespace, else, for root, without. What it leaves exposed.
fn isolate(workers: &Workers, plan: &Plan) -> Result<(Isolation, Vec<String>), String> {
    let (Some(suite), Some(profile)) = (plan.suites.first(), plan.profiles.first()) else {
        return Err("no directory of plugins, or no profile".to_owned());
    };
    let mut refusals = Vec::new();
    for isolation in [Isolation::User, Isolation::Root] {
        if isolation == Isolation::Root && !nix::unistd::geteuid().is_root() {
            continue;
        }
        let result = workers.in_child(&job(suite, profile, &[], (WORLD, WORLD), Level::Must, isolation));
        if result.verdict != Verdict::Broken {
            return Ok((isolation, result.findings.into_iter().map(|finding| finding.message).collect()));
        }
        refusals.extend(result.findings.into_iter().map(|finding| finding.message));
    }
    if workers.interrupt.stopped() {
        return Err("interrupted before the first case".to_owned());
    }
    Err(format!("cannot make a private world for the plugins here:\n  {}\n{ALLOW}", refusals.join("\n  ")))
}

/// How to let a user create namespaces.
const ALLOW: &str = "Run it as root, or let users create namespaces:
  sysctl kernel.unprivileged_userns_clone=1               older Debian
  sysctl kernel.apparmor_restrict_unprivileged_userns=0   Ubuntu 23.10 and later
  sysctl user.max_user_namespaces=10000                   where it is 0
In a container: start it with --privileged.";

/// What a plugin says of itself, and its jobs.
fn prepare(
    workers: &Workers,
    plan: &Plan,
    items: &[Item],
    (suite, profile): (&Suite, &Profile),
    isolation: Isolation,
) -> (PluginReport, Vec<Job>) {
    let report = probe(workers, suite, profile, isolation);
    if report.skipped.is_some() {
        return (report, Vec::new());
    }
    let jobs = planned(items, profile, &plan.only).into_iter().map(|case| {
        let level = items.iter().find(|item| item.id == case.item).map_or(Level::Quality, |item| item.level);
        Job {
            waits: case.waits,
            ..job(suite, profile, &report.versions, (case.item, case.name), level, isolation)
        }
    });
    let jobs = jobs.collect();
    (report, jobs)
}

impl Plan {
    /// The profiles of the plugins that this suite has and the plan wants.
    pub fn profiles_of(&self, suite: &Suite) -> impl Iterator<Item = &Profile> {
        let directory = suite.directory.clone();
        self.profiles.iter().filter(move |profile| {
            let wanted =
                self.plugins.is_empty() || self.plugins.iter().any(|p| crate::glob(p, &profile.plugin));
            wanted && directory.join(&profile.plugin).is_file()
        })
    }

    /// The executables of a suite that no profile describes.
    fn unknown(&self, suite: &Suite) -> Vec<String> {
        let executable = |entry: &std::fs::DirEntry| {
            std::fs::metadata(entry.path())
                .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        };
        let entries = std::fs::read_dir(&suite.directory).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(executable)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !self.profiles.iter().any(|profile| profile.plugin == *name))
            .collect();
        names.sort();
        names
    }
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

fn job(
    suite: &Suite,
    profile: &Profile,
    versions: &[String],
    (item, case): (&str, &str),
    level: Level,
    isolation: Isolation,
) -> Job {
    Job {
        directory: suite.directory.clone(),
        profile: profile.clone(),
        versions: versions.to_vec(),
        level,
        item: item.to_owned(),
        case: case.to_owned(),
        waits: false,
        isolation,
    }
}

fn probe(workers: &Workers, suite: &Suite, profile: &Profile, isolation: Isolation) -> PluginReport {
    let result = workers.in_child(&job(suite, profile, &[], (PROBE, PROBE), Level::Must, isolation));
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

/// Catalogue order: the cases have come as they were ready.
fn sort(items: &[Item], reports: &mut [SuiteReport]) {
    let order: Vec<(&str, &str)> =
        items.iter().flat_map(|item| cases::of_item(&item.id)).map(|case| (case.item, case.name)).collect();
    for plugin in reports.iter_mut().flat_map(|report| &mut report.plugins) {
        plugin.cases.sort_by_key(|case| {
            order.iter().position(|(item, name)| *item == case.item && *name == case.case)
        });
    }
}

/// Seconds since 1970, universal time, as RFC 3339 writes it.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= if leap(year) { 366 } else { 365 } {
        day -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }
}
