//! A store with many leases against an empty one.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::error::{Doing as _, Result};
use crate::job::Job;
use crate::scenario::{Bench, lifecycle};
use crate::site::{Site, Verb};

/// Of the network that [`Job::leases`] hands out.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
const STORE: &str = "/var/lib/cni/networks/bench";

pub(super) fn run(scenario: &'static str, bench: &mut Bench) -> Result<()> {
    let (rounds, leases) = (bench.scale.rounds, bench.scale.leases);
    let ours = bench.ours();
    let site = |contender| Site::new(&bench.base, contender, &Job::leases());
    let [empty, full] =
        [ours.iter().map(site).collect::<Result<Vec<_>>>()?, ours.iter().map(site).collect::<Result<_>>()?];
    let sites: Vec<Site> = empty.into_iter().chain(full).collect();
    let full = sites.iter().skip(ours.len());
    for site in full {
        site.host().enter(|| fill(leases))?;
    }
    for site in &sites {
        site.create_containers(0..=rounds)?;
        // Reads the store once, because somebody else has written to it.
        site.run(Verb::Add, 0)?;
    }
    for verb in Verb::ALL {
        let attempts = lifecycle::in_turns(&sites, verb, 1..=rounds)?;
        for (who, attempts) in ["ours, no leases", "ours, full store"].iter().zip(&attempts) {
            bench.report.add_series(scenario, who, verb.name(), attempts);
        }
    }
    Ok(())
}

/// Writes leases as the Go suite has them, a file each.
fn fill(count: u32) -> Result<()> {
    let store = Path::new(STORE);
    fs::create_dir_all(store).doing("make", store)?;
    for number in 0..count {
        let address = Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + number);
        let lease = store.join(address.to_string());
        fs::write(&lease, format!("somebody{number}\r\neth0")).doing("write", &lease)?;
    }
    Ok(())
}
