//! Many containers at once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::exec;
use crate::job::{Job, V4};
use crate::scenario::Bench;
use crate::site::{Site, Verb};

/// How many at a time, the target's last.
const PARALLEL: [u16; 5] = [1, 2, 4, 8, 16];

pub(super) fn run(scenario: &'static str, bench: &mut Bench) -> Result<()> {
    for parallel in PARALLEL {
        let last = Some(&parallel) == PARALLEL.last();
        let count = if last { bench.scale.storm } else { bench.scale.small_storm };
        if count == 0 {
            continue;
        }
        for contender in bench.contenders.clone() {
            let site = Site::new(&bench.base, &contender, &Job::chain(V4))?;
            site.create_containers(0..=count)?;
            // The bridge and the tables are there.
            site.run(Verb::Add, count)?;
            let add = all(&site, Verb::Add, count, parallel)?;
            let del = all(&site, Verb::Del, count, parallel)?;
            let rate = f64::from(count) / (add + del).as_secs_f64();
            let of = format!("{parallel} at a time");
            bench.report.add_figure(scenario, contender.name(), &of, "attachments/s", rate);
        }
    }
    Ok(())
}

/// A verb for all containers below `count`, so many at a time.
fn all(site: &Site, verb: Verb, count: u16, parallel: u16) -> Result<Duration> {
    let numbers = Mutex::new(0..count);
    let next = || numbers.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || {
        while let Some(number) = next() {
            site.steps(verb, number, &mut |step| {
                exec::run(&mut step.command(), &step.stdin, &step.what).map(|(_, stdout)| stdout)
            })?;
        }
        Ok(())
    };
    site.host().enter(|| {
        let start = Instant::now();
        // Threads are on the host that their parent is on.
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..parallel).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
        })?;
        Ok(start.elapsed())
    })
}
