//! Which points are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use testkit::RunningFirewalld;

use crate::job::{Event, Job, Point, Sweep, Verb};
use crate::networks;
use crate::pool::Pool;
use crate::regs;
use crate::report::Tally;
use crate::storm::STORMS;
use crate::trace::Call;
use crate::{calls, churn, damage};

/// How many points a world tries before it proves in words that it is as good as new.
const POINTS_A_JOB: usize = 40;

/// How much is tried.
#[derive(Debug)]
pub(crate) struct Form {
    pub short: bool,
    pub every: Option<usize>,
    pub offset: usize,
    pub only: Option<String>,
    pub network: Option<String>,
}

/// The number of today.
pub(crate) fn day() -> usize {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    usize::try_from(since.as_secs() / 86400).unwrap_or(0)
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct Plan {
    form: Form,
}

impl Plan {
    pub(crate) fn new(form: Form) -> Self {
        Self { form }
    }

    /// Lists the calls of every verb, then tries them.
    pub(crate) fn run(&self, pool: &Pool, tally: &mut Tally) {
        let sweeps = self.sweeps();
        let wanted = |what: &str, sweep: &Sweep| {
            let part = format!("{what} {} {} ({})", sweep.plugin, sweep.verb, sweep.network);
            self.form.only.as_deref().is_none_or(|only| part.contains(only))
        };
        let listed: Vec<Job> = sweeps
            .iter()
            .filter(|sweep| wanted("kill", sweep) || wanted("error", sweep))
            .flat_map(|sweep| [Job::Calls(sweep.clone()), Job::Calls(sweep.clone())])
            .collect();
        let mut calls: BTreeMap<Sweep, Vec<Call>> = BTreeMap::new();
        pool.run(listed, |report| {
            if let (Job::Calls(sweep), Event::Calls(found)) = (&report.job, &report.event) {
                // The shorter of two: while a plugin waits for a busy host it makes calls that it need not make the next time.
                let shortest = calls.entry(sweep.clone()).or_insert_with(|| found.clone());
                if found.len() < shortest.len() {
                    shortest.clone_from(found);
                }
            }
            tally.hear(&report);
        });
        let mut jobs = Vec::new();
        for (sweep, calls) in &calls {
            // A plugin of somebody else's may be made of programs.
            let foreign =
                if self.form.network.is_some() { BTreeSet::new() } else { foreign(calls, &pool.bin) };
            if wanted("kill", sweep) {
                jobs.extend(self.jobs(sweep, kills(calls, &foreign), self.every(41)));
            }
            // An error is put right in one way only, and seen as well where nobody else is.
            if wanted("error", sweep) && regs::CAN_FAIL && sweep.repair == Verb::Del && is_plain(sweep) {
                jobs.extend(self.jobs(sweep, errors(calls, &foreign), self.every(53)));
            }
        }
        let (others, impossible): (Vec<Job>, Vec<Job>) = self
            .others()
            .into_iter()
            .partition(|job| !networks::named(job.network()).firewalld || RunningFirewalld::is_installed());
        for job in impossible {
            tally.note(&format!("{}: firewalld or dbus-daemon is not installed: not tried", job.part()));
        }
        jobs.extend(others);
        let chosen = self.form.short || self.form.every.is_some();
        tally.expect(&jobs, chosen.then_some(self.form.offset));
        pool.run(jobs, |report| tally.hear(&report));
    }

    /// Each verb of each plugin, put right by DEL and by GC, alone and in company.
    fn sweeps(&self) -> Vec<Sweep> {
        let networks: Vec<String> = match &self.form.network {
            Some(path) => vec![path.clone()],
            None => networks::NAMES.map(str::to_owned).into(),
        };
        let mut sweeps = Vec::new();
        for name in networks {
            let network = networks::named(&name);
            if self.form.short && !network.short {
                continue;
            }
            for plugin in network.list["plugins"].as_array().into_iter().flatten() {
                let plugin = plugin["type"].as_str().unwrap_or_default();
                // The variants of a network go through the half that kills and fails every verb.
                let kinds = if network.short { 6 } else { 3 };
                for (verb, repair, company) in [
                    (Verb::Add, Verb::Del, false),
                    (Verb::Del, Verb::Del, false),
                    (Verb::Gc, Verb::Del, true),
                    (Verb::Add, Verb::Gc, true),
                    (Verb::Del, Verb::Gc, true),
                    (Verb::Gc, Verb::Gc, true),
                ]
                .into_iter()
                .take(kinds)
                {
                    sweeps.push(Sweep {
                        network: name.clone(),
                        plugin: plugin.to_owned(),
                        verb,
                        repair,
                        company,
                    });
                }
            }
        }
        sweeps
    }

    /// Storms, churn and damage.
    fn others(&self) -> Vec<Job> {
        if self.form.network.is_some() {
            return Vec::new();
        }
        let (size, cycles) = if self.form.short { (50, 100) } else { (200, 10_000) };
        let networks = if self.form.short { &["chain"][..] } else { &["chain", "dual", "iptables"] };
        let storms = networks.iter().flat_map(|network| {
            // Each call starts programs there, which wait for each other.
            let size = if *network == "iptables" { size / 4 } else { size };
            STORMS
                .iter()
                .map(move |(name, part)| Job::Storm((*name).to_owned(), (*network).to_owned(), size / part))
        });
        let damage = damage::CASES.iter().flat_map(|(case, networks)| {
            networks.iter().map(|network| Job::Damage((*case).to_owned(), (*network).to_owned()))
        });
        let churn = (0..cycles / cycles.min(churn::CYCLES_A_JOB))
            .map(|_| Job::Churn(cycles.min(churn::CYCLES_A_JOB)));
        let wanted = |job: &Job| self.form.only.as_deref().is_none_or(|only| job.part().contains(only));
        churn.chain(storms).chain(damage).filter(wanted).collect()
    }

    fn every(&self, short: usize) -> usize {
        self.form.every.unwrap_or(if self.form.short { short } else { 1 })
    }

    fn jobs(&self, sweep: &Sweep, points: Vec<Point>, every: usize) -> Vec<Job> {
        // Each sweep begins elsewhere, else all would try the start of a process on the same day.
        let start = (self.form.offset + sweep.plugin.len() + points.len()) % every;
        let points: Vec<Point> = points.into_iter().skip(start).step_by(every).collect();
        points.chunks(POINTS_A_JOB).map(|chunk| Job::Sweep(sweep.clone(), chunk.to_vec())).collect()
    }
}

fn is_plain(sweep: &Sweep) -> bool {
    sweep.company == (sweep.verb == Verb::Gc)
}

/// Programs of others that a plugin runs (`iptables-restore`). How they load their libraries is not what is tried here.
fn foreign(calls: &[Call], bin: &Path) -> BTreeSet<String> {
    let programs = calls.iter().map(|call| call.program.as_str());
    programs.filter(|program| !bin.join(program).exists()).map(str::to_owned).collect()
}

/// The calls with which a program of others begins, changes something, or answers.
const OUTWARD: [&str; 7] = ["execve", "sendto", "sendmsg", "recvmsg", "write", "flock", "exit_group"];

fn kills(calls: &[Call], foreign: &BTreeSet<String>) -> Vec<Point> {
    calls
        .iter()
        .filter(|call| !foreign.contains(&call.program) || OUTWARD.contains(&call.name.as_str()))
        .map(|call| Point {
            program: call.program.clone(),
            call: call.name.clone(),
            nth: call.nth,
            error: None,
        })
        .collect()
}

/// Every error of every call, but for what can't be: a pipe that fails to take what is written to it; and what programs of others need not
/// survive.
fn errors(calls: &[Call], foreign: &BTreeSet<String>) -> Vec<Point> {
    let mut points = Vec::new();
    for call in calls {
        let to_pipe = call.name == "write" && call.on.starts_with("pipe:");
        let foreign = foreign.contains(&call.program);
        if foreign && !OUTWARD.contains(&call.name.as_str()) {
            continue;
        }
        for error in calls::errors(&call.name) {
            let passing = calls::is_passing(*error);
            if (!to_pipe || passing) && !(foreign && passing) {
                points.push(Point {
                    program: call.program.clone(),
                    call: call.name.clone(),
                    nth: call.nth,
                    error: Some(format!("{error:?}")),
                });
            }
        }
    }
    points
}
