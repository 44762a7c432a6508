//! Which jobs are done, how often, in which order.

mod lifecycle;

use std::time::Duration;

use crate::error::Result;
use crate::job::{DUAL, Job, V4};
use crate::report::Report;
use crate::suite::Contender;

/// Something that is measured by itself.
#[derive(Debug)]
pub struct Scenario {
    /// Its name, for `--only` and in the report.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    run: fn(&Scenario, &mut Bench) -> Result<()>,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "chain",
        about: "bridge with masquerading and host-local, portmap with two ports, firewall, tuning; IPv4",
        run: |scenario, bench| lifecycle::run(scenario.name, bench, &Job::chain(V4)),
    },
    Scenario {
        name: "chain-dual",
        about: "the same with IPv4 and IPv6",
        run: |scenario, bench| lifecycle::run(scenario.name, bench, &Job::chain(DUAL)),
    },
    Scenario {
        name: "bridge",
        about: "bridge with host-local and nothing else; IPv4",
        run: |scenario, bench| lifecycle::run(scenario.name, bench, &Job::bridge(V4)),
    },
];

impl Scenario {
    /// Measures it.
    ///
    /// # Errors
    /// If something failed that has nothing to do with speed.
    pub fn run(&self, bench: &mut Bench) -> Result<()> {
        (self.run)(self, bench)
    }
}

/// A run of the bench: who takes part, how long it may take, and what was measured.
#[derive(Debug)]
pub struct Bench {
    /// The process's own host, which none of the contenders is on.
    pub base: testkit::Host,
    /// Who takes part; ours is the first.
    pub contenders: Vec<Contender>,
    /// How many rounds.
    pub rounds: u16,
    /// What was measured so far.
    pub report: Report,
}

/// Between executions, so that what one leaves to the kernel's workers is not the next one's burden.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(3));
}
