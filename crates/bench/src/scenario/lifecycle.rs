//! The life of containers: all are connected, then checked, then disconnected, each contender in its turn.

use crate::error::Result;
use crate::job::Job;
use crate::memory::{self, Peaks};
use crate::report::Attempt;
use crate::scenario::{Bench, pause};
use crate::site::{Site, Verb};
use crate::suite::Contender;
use crate::trace;

/// The first of them makes the bridge and the tables, so it is not counted.
const FIRST: u16 = 0;

pub(super) fn run(scenario: &str, bench: &mut Bench, job: impl Fn(&Contender) -> Job) -> Result<()> {
    let site = |contender: &Contender| Site::new(&bench.base, contender, &job(contender));
    let sites: Vec<Site> = bench.contenders.iter().map(site).collect::<Result<_>>()?;
    live(scenario, bench, &sites)
}

/// Whole lives on these sites.
pub(super) fn live(scenario: &str, bench: &mut Bench, sites: &[Site]) -> Result<()> {
    let rounds = bench.scale.rounds;
    // Two more: one that is traced, and one whose memory is looked at.
    let (traced, weighed) = (rounds + 1, rounds + 2);
    for site in sites {
        site.create_containers(FIRST..=weighed)?;
        site.run(Verb::Add, FIRST)?;
    }
    for verb in Verb::ALL {
        let attempts = in_turns(sites, verb, 1..=rounds)?;
        for (site, attempts) in sites.iter().zip(&attempts) {
            bench.report.add_series(scenario, site.contender().name(), verb.name(), attempts);
        }
    }
    for site in sites {
        counted(scenario, bench, site, traced)?;
        weigh(scenario, bench, site, weighed)?;
        site.run(Verb::Del, FIRST)?;
        site.delete_containers(FIRST..=weighed)?;
    }
    Ok(())
}

/// One verb for these containers, on one site after the other; what it cost, by site. Nobody always follows the same one.
pub(super) fn in_turns(
    sites: &[Site],
    verb: Verb,
    numbers: impl Iterator<Item = u16>,
) -> Result<Vec<Vec<Attempt>>> {
    let mut attempts: Vec<Vec<Attempt>> = sites.iter().map(|_| Vec::new()).collect();
    for number in numbers {
        for turn in 0..sites.len() {
            let index = (turn + usize::from(number)) % sites.len();
            if sites[index].knows(verb) {
                pause();
                attempts[index].push(sites[index].run(verb, number)?);
            }
        }
    }
    Ok(attempts)
}

/// Counts the system calls of one more life.
fn counted(scenario: &str, bench: &mut Bench, site: &Site, number: u16) -> Result<()> {
    for verb in Verb::ALL.into_iter().filter(|verb| site.knows(*verb)) {
        pause();
        let mut programs = Vec::new();
        site.run_by(verb, number, &mut |step| {
            let (stdout, traced) = trace::run(step)?;
            programs.push(traced);
            Ok(stdout)
        })?;
        bench.report.add_count(scenario, site.contender().name(), verb.name(), programs);
    }
    Ok(())
}

/// Looks at the memory of one more life.
fn weigh(scenario: &str, bench: &mut Bench, site: &Site, number: u16) -> Result<()> {
    let mut peaks = Peaks::new();
    for verb in Verb::ALL.into_iter().filter(|verb| site.knows(*verb)) {
        site.run_by(verb, number, &mut |step| memory::run(step, &mut peaks))?;
    }
    // Not iptables and the like.
    let own = |name: &str| match site.contender() {
        Contender::Suite(plugins) => plugins.has(name),
        Contender::Floor { .. } | Contender::Netavark { .. } => true,
    };
    let name = site.contender().name();
    for (program, peak) in &peaks {
        bench.report.add_figure(scenario, name, &format!("memory of {program}"), "KiB", kib(*peak));
    }
    let most = peaks.iter().filter(|(program, _)| own(program)).map(|(_, peak)| *peak).max();
    if let Some(most) = most {
        bench.report.add_figure(scenario, name, "peak memory", "KiB", kib(most));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn kib(size: u64) -> f64 {
    size as f64
}
