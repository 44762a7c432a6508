//! No block is ever given to two nodes.

use std::collections::BTreeSet;
use std::time::Instant;

use testkit::{Fabric, FabricHost, eventually};

use crate::lab::Agent;
use crate::server::{Etcd, need_etcd};

/// Starts an agent that takes its block from a network with this prefix length.
fn follow<'f>(etcd: &Etcd<'_>, host: &'f FabricHost, prefix: u8) -> Agent<'f> {
    let (urls, name) = (etcd.urls(), host.name());
    let options =
        format!("--etcd {urls} --node {name} --cluster-cidr 10.40.0.0/{prefix} --underlay-interface eth0");
    Agent::start(host, &options)
}

#[test]
fn twenty_agents_that_start_together_have_twenty_blocks() {
    need_etcd!();
    let fabric = Fabric::switched(21);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[20..]);
    let since = Instant::now();
    let agents: Vec<Agent<'_>> = hosts[..20].iter().map(|host| follow(&etcd, host, 19)).collect();
    let mut blocks = BTreeSet::new();
    for agent in &agents {
        let status = agent.settled(19);
        blocks.insert(status["own"]["blocks"][0].as_str().unwrap().to_owned());
    }
    println!("20 agents of 32 blocks: all settled after {:?}", since.elapsed());
    assert_eq!(blocks.len(), 20, "{blocks:?}");
    assert_eq!(etcd.keys("blocks/").len(), 20, "no block without a node");
}

#[test]
fn the_node_that_finds_no_block_is_told_so() {
    need_etcd!();
    let fabric = Fabric::switched(5);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[4..]);
    // Four blocks, of which the first is spared.
    let agents: Vec<Agent<'_>> = hosts[..4].iter().map(|host| follow(&etcd, host, 22)).collect();
    let poor = eventually("one of four to find no block", || {
        let statuses: Vec<_> = agents.iter().map(Agent::status).collect();
        let rich = statuses.iter().filter(|status| !status["own"].is_null()).count();
        let poor =
            statuses.iter().find(|status| status["own"].is_null() && !status["source"]["reason"].is_null());
        (rich == 3).then_some(poor?["source"]["reason"].as_str()?.to_owned())
    });
    assert!(poor.contains("no block of 10.40.0.0/22 is free: 3 of 3 are taken"), "{poor}");
}
