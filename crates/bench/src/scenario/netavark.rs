//! Against netavark, which does the same for podman in one program.

use crate::error::Result;
use crate::job::{Job, V4};
use crate::scenario::{Bench, lifecycle};
use crate::site::Site;
use crate::suite::{Contender, netavark};

pub(super) fn run(scenario: &'static str, bench: &mut Bench) -> Result<()> {
    let Some(program) = netavark() else {
        bench
            .report
            .skip(scenario, "netavark is not here; `tools/bench --install-netavark` builds it, in minutes");
        return Ok(());
    };
    let mut contenders = bench.ours();
    contenders.push(Contender::Netavark { program });
    let site = |contender| Site::new(&bench.base, contender, &Job::published(V4));
    let sites: Vec<Site> = contenders.iter().map(site).collect::<Result<_>>()?;
    lifecycle::live(scenario, bench, &sites)
}
