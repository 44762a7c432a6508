//! No block is ever given to two nodes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use testkit::{Fabric, FabricHost, eventually};

use crate::lab::{Agent, overlayd};
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

/// Packets for containers of the last owner may still be under way, and other nodes may not have heard yet.
#[test]
fn a_block_that_was_given_back_rests() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[2..]);
    // Two blocks, of which the first is spared.
    let rest = Duration::from_secs(2);
    let options = |name: &str| {
        let (urls, rest) = (etcd.urls(), rest.as_secs());
        format!("--etcd {urls} --node {name} --cluster-cidr 10.40.0.0/23 --grace {rest}")
    };
    let leave = |agent: &mut Agent<'_>| {
        agent.stop();
        let (name, urls) = (agent.host.name(), etcd.urls());
        let words = format!(
            "cleanup --network blue --vni 100 --etcd {urls} --node {name} --cluster-cidr 10.40.0.0/23 --grace {} --state-dir /run/overlayd-test/{name}",
            rest.as_secs()
        );
        let (code, _, said) = overlayd(agent.host, &words);
        assert_eq!(code, 0, "{said}");
    };
    let mut first = Agent::start(hosts[0], &options("h1"));
    let block = first.settled(0)["own"]["blocks"].clone();
    assert_eq!(block[0], "10.40.1.0/24");

    // Whoever had it may have it again at once.
    leave(&mut first);
    first.restart();
    assert_eq!(first.settled(0)["own"]["blocks"], block);

    let second = Agent::start(hosts[1], &options("h2"));
    let left = Instant::now();
    leave(&mut first);
    let reason = eventually("the second to be refused", || {
        second.status()["source"]["reason"].as_str().map(str::to_owned)
    });
    assert!(
        reason.contains("1 of 1 are taken, or were given back a moment ago"),
        "{reason}\n{}",
        second.log()
    );
    assert_eq!(second.settled(0)["own"]["blocks"], block, "in the end it is free");
    assert!(left.elapsed() >= rest, "not before it has rested: {:?}", left.elapsed());
}
