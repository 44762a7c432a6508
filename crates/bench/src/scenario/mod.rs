//! Which jobs are done, how often, in which order.

mod growth;
mod leases;
mod lifecycle;
mod netavark;
mod ports;
mod size;
mod storm;

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::host::settle;
use crate::job::{DUAL, Job, V4, V6};
use crate::report::Report;
use crate::suite::{Contender, REFERENCE, Suite};

/// Something that is measured by itself.
#[derive(Debug)]
pub struct Scenario {
    /// Its name, for `--only` and in the report.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    run: fn(&'static str, &mut Bench) -> Result<()>,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "chain",
        about: "bridge with masquerading and host-local, portmap with two ports, firewall, tuning; IPv4",
        run: |name, bench| lifecycle::run(name, bench, |_| Job::chain(V4)),
    },
    Scenario {
        name: "chain-dual",
        about: "the same with IPv4 and IPv6",
        run: |name, bench| lifecycle::run(name, bench, |_| Job::chain(DUAL)),
    },
    Scenario {
        name: "bridge",
        about: "bridge with host-local and nothing else; IPv4",
        run: |name, bench| lifecycle::run(name, bench, |_| Job::bridge(V4)),
    },
    Scenario {
        name: "dad",
        about: "the same with IPv6; the reference waits for duplicate address detection (`enabledad`), ours gives the address without",
        run: duplicate_address_detection,
    },
    Scenario { name: "size", about: "installed size of the plugins that both suites have", run: size::run },
    Scenario {
        name: "leases",
        about: "host-local by itself, with 50,000 leases in its store and with none",
        run: leases::run,
    },
    Scenario {
        name: "ports",
        about: "portmap with 5,000 published ports and with 10, and connections through them",
        run: ports::run,
    },
    Scenario {
        name: "netavark",
        about: "bridge with masquerading, one TCP and one UDP port, against netavark with nftables",
        run: netavark::run,
    },
    Scenario { name: "storm", about: "the chain for 200 containers, 16 at a time", run: storm::run },
    Scenario {
        name: "growth",
        about: "ADD of the chain, container after container; for the plot, no target",
        run: growth::run,
    },
];

impl Scenario {
    /// Measures it.
    ///
    /// # Errors
    /// If something failed that has nothing to do with speed.
    pub fn run(&self, bench: &mut Bench) -> Result<()> {
        settle(&bench.base)?;
        (self.run)(self.name, bench)
    }
}

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Scale {
    /// How many times each thing is done.
    pub rounds: u16,
    /// The same where one attempt takes seconds.
    pub slow_rounds: u16,
    /// Leases in a full store.
    pub leases: u32,
    /// Containers that publish a hundred ports each.
    pub crowd: u16,
    /// Connections through a mapping.
    pub connections: u16,
    /// Containers that come at once.
    pub storm: u16,
    /// The same where it is only for the plot.
    pub small_storm: u16,
    /// Containers that come one after the other.
    pub growth: u16,
}

impl Scale {
    /// What the targets are about; minutes.
    pub const FULL: Self = Self {
        rounds: 40,
        slow_rounds: 8,
        leases: 50_000,
        crowd: 50,
        connections: 10_000,
        storm: 200,
        small_storm: 24,
        growth: 200,
    };
    /// About a minute.
    pub const SHORT: Self = Self {
        rounds: 5,
        slow_rounds: 2,
        leases: 50_000,
        crowd: 50,
        connections: 4000,
        storm: 32,
        small_storm: 0,
        growth: 0,
    };
}

/// A run of the bench: who takes part, how long it may take, and what was measured.
#[derive(Debug)]
pub struct Bench {
    /// The process's own host, which none of the contenders is on.
    pub base: testkit::Host,
    /// Who takes part; ours is the first.
    pub contenders: Vec<Contender>,
    /// How much of everything.
    pub scale: Scale,
    /// What was measured so far.
    pub report: Report,
    /// One program of all plugins that both suites have.
    pub multi_call: Option<PathBuf>,
}

impl Bench {
    /// Our suite.
    pub(crate) fn ours(&self) -> Vec<Contender> {
        self.contenders.iter().take(1).cloned().collect()
    }

    /// All that are directories of plugins.
    pub(crate) fn suites(&self) -> Vec<Suite> {
        let suite = |contender: &Contender| match contender {
            Contender::Suite(suite) => Some(suite.clone()),
            _ => None,
        };
        self.contenders.iter().filter_map(suite).collect()
    }
}

/// Between executions, so that what one leaves to the kernel's workers is not the next one's burden.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(3));
}

fn duplicate_address_detection(name: &'static str, bench: &mut Bench) -> Result<()> {
    let rounds = std::mem::replace(&mut bench.scale.rounds, bench.scale.slow_rounds);
    let done = lifecycle::run(name, bench, |contender| {
        let job = Job::bridge(V6);
        if contender.name() == REFERENCE { job.with("enabledad", true) } else { job }
    });
    bench.scale.rounds = rounds;
    done
}
