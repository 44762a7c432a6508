//! The side of a child process: one case, in a world of its own.

use std::io::{self, Read, Write};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::{Job, PROBE, WORLD};
use crate::cases;
use crate::lab::{Lab, world};
use crate::verdict::{CaseResult, Finding, Outcome, Stop, Verdict};

/// The child's side: reads a job from standard input, runs its case, prints the result.
///
/// # Errors
/// A job that does not parse, or a result that cannot be written.
pub fn child() -> Result<(), String> {
    // A harness that is killed must not leave cases running.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("cannot follow the harness: {error}"))?;
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
        Ok((_, exposed)) if job.case == WORLD => {
            let told = |message| Finding { verdict: Verdict::Info, message, step: None };
            findings.extend(exposed.into_iter().map(told));
        }
        Ok((mut lab, _)) if job.case == PROBE => {
            let outcome = cases::probe(&mut lab);
            end(outcome, Some(lab));
        }
        Ok((mut lab, _)) => {
            let outcome = match cases::find(&job.item, &job.case) {
                Some(case) => (case.run)(&mut lab),
                None => Err(Stop::Broken(format!("there is no case {}/{}", job.item, job.case))),
            };
            end(outcome.and_then(|()| lab.nothing_untold()), Some(lab));
        }
    }
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass);
    if verdict == Verdict::Pass {
        journal.clear();
    }
    CaseResult {
        item: job.item.clone(),
        case: job.case.clone(),
        verdict,
        findings,
        journal,
        millis: 0,
        known: None,
    }
}

/// The laboratory, and what its world leaves exposed.
fn enter(job: &Job) -> Outcome<(Lab, Vec<String>)> {
    let program = std::env::current_exe()?;
    let exposed = world::enter(&job.directory, &program, job.isolation)
        .map_err(|error| Stop::Broken(error.to_string()))?;
    // Delegates that a killed plugin leaves behind come to this process, which ends them.
    prctl::set_child_subreaper(true).map_err(|error| Stop::Broken(error.to_string()))?;
    let profile = job.profile.clone();
    if job.case == WORLD {
        // What a plugin needs on its host may be missing; that is not the world's fault.
        let bare = crate::profile::Profile { prepare: Vec::new(), ..profile };
        return Ok((Lab::new(bare, Vec::new(), job.level)?, exposed));
    }
    Ok((Lab::new(profile, job.versions.clone(), job.level)?, exposed))
}
