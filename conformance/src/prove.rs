//! The proof of the harness: every check must be seen failing, on a mutant or on a real plugin with a known defect.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use clap::Parser;

use crate::cases::{self, Case};
use crate::catalogue::Item;
use crate::expect::{self, Deviation, Expectations};
use crate::glob;
use crate::mutant::{self, Mutant};
use crate::profile::{self, Profile};
use crate::run::{self, Plan, Session, Suite};
use crate::verdict::{CaseResult, Verdict};

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
    /// This case noticed.
    Caught(String),
    /// None did; what they said instead.
    Missed(String),
}

/// Runs the proof. Returns the exit status: 0 every mutant was caught and the list is up to date, 1 not so.
///
/// # Errors
/// What kept the proof from being tried.
pub fn main(arguments: &Arguments) -> Result<u8, String> {
    let started = Instant::now();
    let mut mutants = mutant::load(&arguments.mutants)?;
    mutants.retain(|m| arguments.only.is_empty() || arguments.only.iter().any(|p| glob(p, &m.id)));
    let profiles: BTreeMap<String, Profile> =
        profile::shipped()?.into_iter().map(|p| (p.plugin.clone(), p)).collect();
    let bench = Bench::new(arguments, &mutants, profiles)?;
    let items = bench.session.items();
    let trials = bench.trials(&mutants)?;
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
        for (id, evidence) in findings(&arguments.expectations, items)? {
            if let Some(item) = items.iter().find(|item| item.id == id) {
                proof.entry(&item.id).or_default().push(evidence);
            }
        }
        let unproved = tell_items(&mut text, items, &proof);
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
    session: Session,
    /// How much the cases blame the working plugins, by plugin and case, as far as somebody wanted to know.
    working: Mutex<BTreeMap<(String, String), Weight>>,
}

/// How much a case blames a plugin: the worst it says, and how often.
type Weight = (Option<Verdict>, usize);

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
        let plan = Plan {
            suites: vec![Suite { label: String::new(), directory: arguments.binaries.clone() }],
            profiles: profiles.values().cloned().collect(),
            only: Vec::new(),
            plugins: Vec::new(),
            jobs,
        };
        let session = Session::new(&plan)?;
        let bench = Self { home, profiles, jobs, session, working: Mutex::default() };
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

    /// Runs every mutant, several side by side.
    fn trials(&self, mutants: &[Mutant]) -> Result<Vec<Vec<(String, Trial)>>, String> {
        let next = Mutex::new(mutants.iter().enumerate());
        let done = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    loop {
                        let Some((number, mutant)) = next.lock().ok().and_then(|mut next| next.next()) else {
                            return;
                        };
                        let trial = self.trial(mutant);
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

    /// Runs the cases that must notice, of each item only until one has.
    fn trial(&self, mutant: &Mutant) -> Result<Vec<(String, Trial)>, String> {
        let profile = self.profile(mutant)?;
        let suite = Suite { label: String::new(), directory: self.home.join(&mutant.id) };
        let probe = self.session.probe(&suite, profile);
        let mut seen: BTreeMap<String, CaseResult> = BTreeMap::new();
        let mut trials = Vec::new();
        for target in &mutant.trips {
            let cases = run::planned(self.session.items(), profile, std::slice::from_ref(target));
            let mut trial = match &probe.skipped {
                Some(why) => Trial::Missed(why.clone()),
                None if cases.is_empty() => {
                    Trial::Missed(format!("no case of it applies to {}", profile.plugin))
                }
                None => Trial::Missed(String::new()),
            };
            for case in cases.iter().filter(|_| probe.skipped.is_none()) {
                let name = format!("{}/{}", case.item, case.name);
                let run = || self.session.case(&suite, profile, &probe.versions, case);
                let result = seen.entry(name.clone()).or_insert_with(run);
                if weight(result).0.is_some() && weight(result) > self.of_working(profile, case)? {
                    trial = Trial::Caught(name);
                    break;
                }
                if let Trial::Missed(said) = &mut trial {
                    let _ = write!(said, "{}{}", if said.is_empty() { "" } else { "; " }, outcome(result));
                }
            }
            trials.push((target.clone(), trial));
        }
        if self.session.stopped() { Err("interrupted".to_owned()) } else { Ok(trials) }
    }

    /// How much this case blames the working plugin: a fault is noticed where it says worse.
    fn of_working(&self, profile: &Profile, case: &Case) -> Result<Weight, String> {
        let key = (profile.plugin.clone(), format!("{}/{}", case.item, case.name));
        let known = |bench: &Self| bench.working.lock().ok().and_then(|working| working.get(&key).copied());
        if let Some(weight) = known(self) {
            return Ok(weight);
        }
        let suite = Suite { label: String::new(), directory: self.plugins() };
        let probe = self.session.probe(&suite, profile);
        if let Some(why) = &probe.skipped {
            return Err(format!("the working {} cannot be run: {why}", profile.plugin));
        }
        let weight = weight(&self.session.case(&suite, profile, &probe.versions, case));
        if let Ok(mut working) = self.working.lock() {
            working.insert(key, weight);
        }
        Ok(weight)
    }
}

/// What a case that did not notice said.
fn outcome(case: &CaseResult) -> String {
    let why = case.findings.first().map(|finding| format!(" ({})", finding.message)).unwrap_or_default();
    format!("{}/{}: {}{why}", case.item, case.case, case.verdict.word())
}

/// How much a case blames the plugin. What the harness could not try blames nobody.
fn weight(case: &CaseResult) -> Weight {
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
        Written by `make conformance-proof WRITE=1`, compared by `make conformance-proof`. No mutant (`mutants/`) and no known defect of another suite\n\
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
    use crate::catalogue;
    use crate::verdict::Finding;

    fn case(verdicts: &[Verdict]) -> CaseResult {
        let finding =
            |verdict: &Verdict| Finding { verdict: *verdict, message: "why".to_owned(), step: None };
        CaseResult {
            item: "ADD-03".to_owned(),
            case: "a".to_owned(),
            verdict: verdicts.iter().copied().max().unwrap_or(Verdict::Pass),
            findings: verdicts.iter().map(finding).collect(),
            journal: Vec::new(),
            millis: 0,
            known: None,
        }
    }

    #[test]
    fn a_case_blames_by_its_worst_finding_and_then_by_their_number() {
        let order = [
            &[][..],
            &[Verdict::Info],
            &[Verdict::Info, Verdict::Info],
            &[Verdict::Warn],
            &[Verdict::Warn, Verdict::Info],
            &[Verdict::Fail],
        ];
        for pair in order.windows(2) {
            assert!(weight(&case(pair[0])) < weight(&case(pair[1])), "{pair:?}");
        }
        for nobody in [&[Verdict::Skip][..], &[Verdict::Broken], &[Verdict::Pass]] {
            assert_eq!(weight(&case(nobody)), (None, 0), "{nobody:?}");
        }
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
