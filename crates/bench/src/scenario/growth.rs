//! How long an ADD takes with more and more containers there already.

use crate::error::Result;
use crate::job::{Job, V4};
use crate::scenario::{Bench, lifecycle};
use crate::site::{Site, Verb};

pub(super) fn run(scenario: &'static str, bench: &mut Bench) -> Result<()> {
    let count = bench.scale.growth;
    if count == 0 {
        bench.report.skip(scenario, "not in a short run");
        return Ok(());
    }
    let site = |contender| Site::new(&bench.base, contender, &Job::chain(V4));
    let sites: Vec<Site> = bench.contenders.iter().map(site).collect::<Result<_>>()?;
    for site in &sites {
        site.create_containers(0..count)?;
    }
    let attempts = lifecycle::in_turns(&sites, Verb::Add, 0..count)?;
    for (site, attempts) in sites.iter().zip(&attempts) {
        bench.report.add_series(scenario, site.contender().name(), Verb::Add.name(), attempts);
    }
    // Their hosts go, and all that was made on them.
    Ok(())
}
