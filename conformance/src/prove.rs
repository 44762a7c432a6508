//! The proof of the harness: every check must be seen failing, on a mutant or on a real plugin with a known defect.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use clap::Parser;

use crate::catalogue::{self, Item};
use crate::expect::{self, Deviation, Expectations};
use crate::mutant::{self, Mutant};
use crate::profile::{self, Profile};
use crate::run::{self, Plan, PluginReport, Suite};
use crate::verdict::{CaseResult, Verdict};
use crate::{cases, glob};

/// The word that asks for the proof.
pub const ARGUMENT: &str = "prove";

/// Proves the harness: runs plugins with known faults, and tells which faults were noticed and which checks were never seen failing.
#[derive(Debug, Parser)]
#[command(name = "cni-conformance prove", version)]
pub struct Arguments {
    /// A directory of working plugins
    #[arg(long = "bin", value_name = "DIR")]
    pub binaries: PathBuf,
    /// The directory of mutants
    #[arg(long, value_name = "DIR", default_value = "conformance/mutants")]
    pub mutants: PathBuf,
    /// The directory of what is known of other suites: an item that one of them is known to break needs no mutant
    #[arg(long, value_name = "DIR", default_value = "conformance/expectations")]
    pub expectations: PathBuf,
    /// The list of items that were never seen failing; the run fails if it is out of date
    #[arg(long, value_name = "FILE", default_value = "conformance/UNPROVED.md")]
    pub unproved: PathBuf,
    /// Write that list instead of comparing it
    #[arg(long)]
    pub write: bool,
    /// Only these mutants, by pattern of their id; nothing is said about the items then
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Mutants side by side; 0: twice the number of processors
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub jobs: usize,
}

/// What came of a mutant and one thing that it must trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// These cases noticed.
    Caught(Vec<String>),
    /// None did; what they said instead.
    Missed(String),
}

/// Runs the proof. Returns the exit status: 0 every mutant was caught and the list is up to date, 1 not so.
///
/// # Errors
/// What kept the proof from being tried.
pub fn main(arguments: &Arguments) -> Result<u8, String> {
    let started = Instant::now();
    let items = catalogue::items()?;
    let mut mutants = mutant::load(&arguments.mutants)?;
    mutants.retain(|m| arguments.only.is_empty() || arguments.only.iter().any(|p| glob(p, &m.id)));
    let profiles: BTreeMap<String, Profile> =
        profile::shipped()?.into_iter().map(|p| (p.plugin.clone(), p)).collect();
    let bench = Bench::new(arguments, &mutants, profiles)?;
    let baseline = bench.baseline(&mutants)?;
    let trials = bench.trials(&mutants, &baseline)?;
    let mut text = String::new();
    let mut proof: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut missed = 0;
    for (mutant, trials) in mutants.iter().zip(&trials) {
        missed += usize::from(!describe(&mut text, mutant, trials));
        for (target, trial) in trials {
            let id =
                items.iter().find(|item| target == &item.id || target.starts_with(&format!("{}/", item.id)));
            if let (Some(item), Trial::Caught(_)) = (id, trial) {
                proof.entry(&item.id).or_default().push(format!("mutant {}", mutant.id));
            }
        }
    }
    let mut status = u8::from(missed > 0);
    if arguments.only.is_empty() {
        for (id, evidence) in findings(&arguments.expectations, &items)? {
            if let Some(item) = items.iter().find(|item| item.id == id) {
                proof.entry(&item.id).or_default().push(evidence);
            }
        }
        let unproved = tell_items(&mut text, &items, &proof);
        status |= settle(arguments, &unproved, &mut text)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let caught = mutants.len() - missed;
    let _ = writeln!(text, "{caught} of {} mutants caught, in {seconds:.1} s", mutants.len());
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(status)
}

/// The directories of plugins, made for this run and removed after it.
#[derive(Debug)]
struct Bench {
    home: PathBuf,
    profiles: BTreeMap<String, Profile>,
    jobs: usize,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Bench {
    /// Copies the working plugins, once: what is in each mutant's directory is a hard link to them.
    fn new(
        arguments: &Arguments,
        mutants: &[Mutant],
        profiles: BTreeMap<String, Profile>,
    ) -> Result<Self, String> {
        let home = std::env::temp_dir().join(format!("cni-mutants-{}", std::process::id()));
        let jobs = match arguments.jobs {
            0 => thread::available_parallelism().map_or(4, |number| number.get() * 2),
            number => number,
        };
        let bench = Self { home, profiles, jobs };
        let lay_out = || -> io::Result<()> {
            fs::create_dir_all(bench.plugins())?;
            for entry in fs::read_dir(&arguments.binaries)? {
                let entry = entry?;
                if entry.path().is_file() {
                    fs::copy(entry.path(), bench.plugins().join(entry.file_name()))?;
                }
            }
            fs::copy(std::env::current_exe()?, bench.program())?;
            for mutant in mutants {
                let directory = bench.home.join(&mutant.id);
                fs::create_dir(&directory)?;
                for entry in fs::read_dir(bench.plugins())? {
                    let entry = entry?;
                    fs::hard_link(entry.path(), directory.join(entry.file_name()))?;
                }
                let real = bench.plugins().join(&mutant.plugin);
                mutant::install(&directory, &mutant.plugin, &real, &bench.program(), &mutant.fault)?;
            }
            Ok(())
        };
        lay_out().map_err(|error| {
            format!("cannot lay out the mutants of {}: {error}", arguments.binaries.display())
        })?;
        Ok(bench)
    }

    fn plugins(&self) -> PathBuf {
        self.home.join(".plugins")
    }

    fn program(&self) -> PathBuf {
        self.home.join(".program")
    }

    fn profile(&self, mutant: &Mutant) -> Result<&Profile, String> {
        let name = &mutant.plugin;
        self.profiles.get(name).ok_or_else(|| format!("mutant {}: no profile of {name:?}", mutant.id))
    }

    /// What the cases say about the working plugins: a fault is noticed where they say worse.
    fn baseline(&self, mutants: &[Mutant]) -> Result<BTreeMap<String, PluginReport>, String> {
        let mut baseline = BTreeMap::new();
        for plugin in mutants.iter().map(|mutant| &mutant.plugin).collect::<BTreeSet<_>>() {
            let of_plugin = mutants.iter().filter(|mutant| mutant.plugin == *plugin);
            let only = of_plugin.clone().flat_map(|mutant| mutant.trips.clone()).collect();
            let Some(first) = of_plugin.clone().next() else { continue };
            let report = one(&self.plugins(), self.profile(first)?, only, self.jobs)?;
            if let Some(why) = &report.skipped {
                return Err(format!("the working {plugin} cannot be run: {why}"));
            }
            baseline.insert(plugin.clone(), report);
        }
        Ok(baseline)
    }

    /// Runs every mutant, several side by side.
    fn trials(
        &self,
        mutants: &[Mutant],
        baseline: &BTreeMap<String, PluginReport>,
    ) -> Result<Vec<Vec<(String, Trial)>>, String> {
        let next = Mutex::new(mutants.iter().enumerate());
        let done = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    loop {
                        let Some((number, mutant)) = next.lock().ok().and_then(|mut next| next.next()) else {
                            return;
                        };
                        let trial = self.trial(mutant, &baseline[&mutant.plugin]);
                        let Ok(mut done) = done.lock() else { return };
                        done.insert(number, trial);
                        if io::stderr().is_terminal() {
                            let _ = write!(
                                io::stderr(),
                                "\r\x1b[K{}/{} {}\r",
                                done.len(),
                                mutants.len(),
                                mutant.id
                            );
                        }
                    }
                });
            }
        });
        done.into_inner().map_err(|error| error.to_string())?.into_values().collect()
    }

    fn trial(&self, mutant: &Mutant, baseline: &PluginReport) -> Result<Vec<(String, Trial)>, String> {
        let report = one(&self.home.join(&mutant.id), self.profile(mutant)?, mutant.trips.clone(), 1)?;
        let trial = |target: &String| (target.clone(), judge(target, &report, baseline));
        Ok(mutant.trips.iter().map(trial).collect())
    }
}

/// Runs the cases `only` of one plugin in `directory`.
fn one(directory: &Path, profile: &Profile, only: Vec<String>, jobs: usize) -> Result<PluginReport, String> {
    let plan = Plan {
        suites: vec![Suite { label: String::new(), directory: directory.to_owned() }],
        profiles: vec![profile.clone()],
        only,
        plugins: Vec::new(),
        jobs,
    };
    let report = run::run(&plan, &|_| {})?;
    let plugin = report.suites.into_iter().flat_map(|suite| suite.plugins).next();
    plugin.ok_or_else(|| format!("{} has no {}", directory.display(), profile.plugin))
}

/// Whether the cases of `target`, an item or `ITEM/case`, say worse of the mutant than of the working plugin.
fn judge(target: &str, mutant: &PluginReport, working: &PluginReport) -> Trial {
    if let Some(why) = &mutant.skipped {
        return Trial::Missed(why.clone());
    }
    let cases: Vec<&CaseResult> = mutant
        .cases
        .iter()
        .filter(|case| glob(target, &case.item) || glob(target, &format!("{}/{}", case.item, case.case)))
        .collect();
    if cases.is_empty() {
        return Trial::Missed(format!("no case of {target} applies to {}", mutant.plugin));
    }
    let worse = |case: &&&CaseResult| {
        let before = working.cases.iter().find(|other| other.item == case.item && other.case == case.case);
        before.is_none_or(|before| weight(case) > weight(before))
    };
    let caught: Vec<String> =
        cases.iter().filter(worse).map(|case| format!("{}/{}", case.item, case.case)).collect();
    if !caught.is_empty() {
        return Trial::Caught(caught);
    }
    let said: Vec<String> = cases
        .iter()
        .map(|case| {
            let why =
                case.findings.first().map(|finding| format!(" ({})", finding.message)).unwrap_or_default();
            format!("{}/{}: {}{why}", case.item, case.case, case.verdict.word())
        })
        .collect();
    Trial::Missed(said.join("; "))
}

/// How much a case blames the plugin: the worst it says, and how often. What the harness could not try blames nobody.
fn weight(case: &CaseResult) -> (Option<Verdict>, usize) {
    let blame = |verdict: &Verdict| matches!(verdict, Verdict::Info | Verdict::Warn | Verdict::Fail);
    let findings = case.findings.iter().filter(|finding| blame(&finding.verdict));
    (findings.clone().map(|finding| finding.verdict).max(), findings.count())
}

/// A line for each thing that the mutant had to trip; whether it tripped all.
fn describe(text: &mut String, mutant: &Mutant, trials: &[(String, Trial)]) -> bool {
    let missed: Vec<_> = trials.iter().filter(|(_, trial)| matches!(trial, Trial::Missed(_))).collect();
    let word = if missed.is_empty() { "caught" } else { "NOT caught" };
    let _ = writeln!(
        text,
        "{word:10} {} ({} {}): {}",
        mutant.id,
        mutant.plugin,
        mutant.about,
        mutant.trips.join(" ")
    );
    for (target, trial) in &missed {
        if let Trial::Missed(why) = trial {
            let _ = writeln!(text, "    {target} did not notice: {why}");
        }
    }
    missed.is_empty()
}

/// Tells of each item what proves it. Returns those that nothing does.
fn tell_items<'a>(
    text: &mut String,
    items: &'a [Item],
    proof: &BTreeMap<&str, Vec<String>>,
) -> Vec<&'a Item> {
    let mut unproved = Vec::new();
    let mut proved = 0;
    for item in items {
        let evidence = proof.get(item.id.as_str());
        let words = match evidence {
            Some(evidence) => {
                proved += 1;
                evidence.join(", ")
            }
            None if cases::of_item(&item.id).next().is_none() => "has no case".to_owned(),
            None => {
                unproved.push(item);
                "UNPROVED".to_owned()
            }
        };
        let _ = writeln!(text, "{:7} {words}", item.id);
    }
    let _ = writeln!(text, "{proved} items proved, {} unproved, of {}", unproved.len(), items.len());
    unproved
}

/// Writes the list of items that nothing proves, or compares it with what is written.
fn settle(arguments: &Arguments, unproved: &[&Item], text: &mut String) -> Result<u8, String> {
    let mut list = "# Checks that were never seen failing\n\n\
        Written by `make conformance-proof WRITE=1`, compared by CI. No mutant (`mutants/`) and no known defect of another suite\n\
        (`expectations/`, `findings/`) trips a case of these items, so nothing shows that the cases can fail.\n\n"
        .to_owned();
    for item in unproved {
        let _ = writeln!(list, "- {}: {}", item.id, item.statement);
    }
    if unproved.is_empty() {
        list.push_str("None.\n");
    }
    let file = arguments.unproved.display();
    if arguments.write {
        fs::write(&arguments.unproved, list).map_err(|error| format!("{file}: {error}"))?;
        return Ok(0);
    }
    if fs::read_to_string(&arguments.unproved).unwrap_or_default() == list {
        return Ok(0);
    }
    let _ = writeln!(text, "{file} is out of date: `make conformance-proof WRITE=1` writes it");
    Ok(1)
}

/// The items that another suite is known to break, and which. What nobody has judged yet proves nothing.
fn findings(directory: &Path, items: &[Item]) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return Ok(found) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    for file in files {
        let known = Expectations::load(&file)?;
        let suite = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let judged = |deviation: &&Deviation| {
            deviation.verdict != Verdict::Skip && !deviation.why.starts_with(expect::NOT_JUDGED)
        };
        for deviation in known.deviation.iter().filter(judged) {
            let pattern = deviation.item.split('/').next().unwrap_or_default();
            for item in items.iter().filter(|item| glob(pattern, &item.id)) {
                let evidence = (item.id.clone(), format!("{suite} {}", deviation.plugin));
                if !found.contains(&evidence) {
                    found.push(evidence);
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Finding;

    fn report(cases: &[(&str, &str, &[Verdict])]) -> PluginReport {
        let case = |(item, case, verdicts): &(&str, &str, &[Verdict])| CaseResult {
            item: (*item).to_owned(),
            case: (*case).to_owned(),
            verdict: verdicts.iter().copied().max().unwrap_or(Verdict::Pass),
            findings: verdicts
                .iter()
                .map(|verdict| Finding { verdict: *verdict, message: "why".to_owned(), step: None })
                .collect(),
            journal: Vec::new(),
            millis: 0,
            known: None,
        };
        PluginReport {
            plugin: "bridge".to_owned(),
            about: String::new(),
            versions: Vec::new(),
            skipped: None,
            cases: cases.iter().map(case).collect(),
        }
    }

    #[test]
    fn a_mutant_is_caught_only_by_a_case_that_says_worse_than_of_the_working_plugin() {
        let working =
            report(&[("ADD-03", "a", &[]), ("ADD-03", "b", &[Verdict::Warn]), ("ADD-04", "c", &[])]);
        let tried =
            |target: &str, cases: &[(&str, &str, &[Verdict])]| judge(target, &report(cases), &working);
        let caught = |case: &str| Trial::Caught(vec![case.to_owned()]);
        assert_eq!(tried("ADD-03", &[("ADD-03", "a", &[Verdict::Info])]), caught("ADD-03/a"));
        assert_eq!(tried("ADD-03/b", &[("ADD-03", "b", &[Verdict::Fail])]), caught("ADD-03/b"));
        assert_eq!(tried("ADD-03", &[("ADD-03", "b", &[Verdict::Warn, Verdict::Warn])]), caught("ADD-03/b"));
        for unblamed in [&[Verdict::Skip][..], &[Verdict::Broken], &[]] {
            assert!(
                matches!(tried("ADD-03", &[("ADD-03", "a", unblamed)]), Trial::Missed(_)),
                "{unblamed:?}"
            );
        }
        assert!(matches!(tried("ADD-03", &[("ADD-03", "b", &[Verdict::Warn])]), Trial::Missed(_)));
        assert!(matches!(tried("ADD-03", &[("ADD-04", "c", &[Verdict::Fail])]), Trial::Missed(_)));
    }

    #[test]
    fn the_shipped_mutants_trip_what_the_catalogue_has() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let items = catalogue::items().unwrap();
        let profiles = profile::shipped().unwrap();
        for mutant in mutant::load(&home.join("mutants")).unwrap() {
            let id = &mutant.id;
            assert!(
                profiles.iter().any(|p| p.plugin == mutant.plugin),
                "{id}: no profile of {}",
                mutant.plugin
            );
            for target in &mutant.trips {
                let item = target.split('/').next().unwrap();
                assert!(items.iter().any(|known| known.id == item), "{id}: no item {target}");
            }
        }
    }
}
