//! etcd away, without its leader, compacted, empty.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use testkit::{Attachment, Fabric, FabricHost, eventually};

use crate::lab::{Agent, Connected, Probe, kernel, sh};
use crate::server::{Etcd, follow, follow_all, need_etcd};

fn current(agent: &Agent<'_>) -> bool {
    agent.status()["source"]["current"] == true
}

#[test]
fn nothing_is_lost_while_etcd_is_away() {
    need_etcd!();
    let fabric = Fabric::switched(4);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut etcd = Etcd::start(&hosts[3..]);
    let mut agents = follow_all(&etcd, &hosts[..2], "");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let probe = Probe::start(&c1, c2.address);
    etcd.members[0].kill();
    eventually("the agents to miss etcd", || agents.iter().all(|agent| !current(agent)).then_some(()));

    // An agent that is started again works from what it knew.
    agents[0].kill();
    agents[0].restart();
    agents[0].settled(1);
    // What is altered is repaired.
    let repairs = agents[1].repairs();
    sh(hosts[1], "nft flush ruleset");
    eventually("a repair without etcd", || (agents[1].repairs() > repairs).then_some(()));
    // Containers come and go.
    let c3 = Connected::add(&fabric, hosts[0], "c3");
    c3.until_reached(c2.address, Instant::now());

    let since = Instant::now();
    etcd.members[0].run(2379);
    eventually("the agents to have etcd again", || agents.iter().all(current).then_some(()));
    println!("etcd back: noticed after {:?}", since.elapsed());
    agents.push(follow(&etcd, hosts[2], ""));
    agents[0].settled(2);
    let flow = probe.end();
    println!(
        "outage of etcd: lost {} of {}, longest time without an answer {:?}",
        flow.lost, flow.sent, flow.gap
    );
    assert_eq!(flow.lost, 0, "{flow:?}");
}

/// No refusal comes back, nor an answer: a firewall in between, a server that is frozen.
#[test]
fn an_etcd_that_does_not_answer_is_missed_and_found_again() {
    need_etcd!();
    let fabric = Fabric::switched(4);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[3..]);
    let mut agents = follow_all(&etcd, &hosts[..2], "");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let probe = Probe::start(&c1, c2.address);
    sh(
        hosts[0],
        "nft add table inet apart; nft add chain inet apart out '{ type filter hook output priority 0; }'; \
         nft add rule inet apart out tcp dport 2379 drop",
    );
    // An idle connection is asked for a sign of life every ten seconds, and given three for the answer.
    let since = Instant::now();
    std::thread::sleep(Duration::from_secs(8));
    eventually("the agent to miss etcd", || (!current(&agents[0])).then_some(()));
    println!("etcd silent: missed after {:?}", since.elapsed());
    agents.push(follow(&etcd, hosts[2], ""));
    agents[1].settled(2);
    assert_eq!(agents[0].status()["peers"].as_array().unwrap().len(), 1);

    sh(hosts[0], "nft delete table inet apart");
    let since = Instant::now();
    agents[0].settled(2);
    println!("etcd answers: what was missed is known after {:?}", since.elapsed());
    let flow = probe.end();
    assert_eq!(flow.lost, 0, "{flow:?}");
    eventually("etcd to be heard again", || current(&agents[0]).then_some(()));
}

/// The host boots: nothing is left of the kernel's state, nor of `/run`, and its address comes after the agent.
#[test]
fn a_host_that_boots_during_an_outage_comes_back() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut etcd = Etcd::start(&hosts[2..]);
    let mut agents: Vec<_> = hosts[..2].iter().map(|host| follow(&etcd, host, "")).collect();
    let blocks = agents[0].settled(1)["own"]["blocks"].clone();
    agents[1].settled(1);
    let c2 = Connected::add(&fabric, hosts[1], "c2");
    eventually("a snapshot", || {
        std::fs::exists("/run/overlayd-test/h1/blue.snapshot.jsonl").unwrap().then_some(())
    });
    etcd.members[0].kill();
    agents[0].kill();
    sh(
        hosts[0],
        "ip link del vx-blue; ip nexthop flush proto 70; ip route flush proto 70; nft flush ruleset; rm -rf /run/ferrule/*; \
         ip addr del 192.0.2.1/24 dev eth0",
    );
    agents[0].restart();
    eventually("the agent to miss its address", || agents[0].status()["trouble"].as_str().map(|_| ()));
    let since = Instant::now();
    sh(hosts[0], "ip addr add 192.0.2.1/24 dev eth0");
    assert_eq!(agents[0].settled(1)["own"]["blocks"], blocks);
    println!("boot during an outage: works {:?} after the address came", since.elapsed());
    assert!(!current(&agents[0]));
    let c1 = Connected::add(&fabric, hosts[0], "c1");
    c1.until_reached(c2.address, since);
    etcd.members[0].run(2379);
    eventually("etcd to be heard again", || current(&agents[0]).then_some(()));
    assert_eq!(agents[0].settled(1)["own"]["blocks"], blocks);
}

/// Nor do they need the agent: it is killed when half of them are there.
#[test]
fn three_hundred_containers_come_and_go_without_etcd() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut etcd = Etcd::start(&hosts[2..]);
    // A block with room for them.
    let options = |name| {
        format!(
            "--etcd {} --node {name} --cluster-cidr 10.40.0.0/16 --block-size 22 --underlay-interface eth0",
            etcd.urls()
        )
    };
    let mut agents = [Agent::start(hosts[0], &options("h1")), Agent::start(hosts[1], &options("h2"))];
    for agent in &agents {
        agent.settled(1);
    }
    let far = Connected::add(&fabric, hosts[1], "far");
    etcd.members[0].kill();
    let before = hosts[0].enter(testkit::Snapshot::take);
    let list =
        json!({"cniVersion": "1.1.0", "name": "blue", "plugins": [{"type": "vxlan", "source": "agent"}]});
    let containers: Vec<_> = (0..300).map(|number| fabric.container(&format!("c{number}"))).collect();
    let since = Instant::now();
    let each = |containers: &[testkit::Container], work: &(dyn Fn(&testkit::Container) + Sync)| {
        std::thread::scope(|scope| {
            for part in containers.chunks(containers.len().div_ceil(16)) {
                scope.spawn(move || part.iter().for_each(work));
            }
        });
    };
    let (with_agent, without) = containers.split_at(150);
    let connect = |container: &testkit::Container| {
        let attachment = Attachment::new(container.name(), container, "eth0");
        hosts[0].runtime().chain(&list).add(&attachment).unwrap();
    };
    each(with_agent, &connect);
    agents[0].kill();
    each(without, &connect);
    println!("300 ADD without etcd: {:?}", since.elapsed());
    for container in [&with_agent[0], &without[149]] {
        assert!(testkit::ping(container, far.address), "{}", container.name());
    }
    let since = Instant::now();
    each(&containers, &|container| {
        let attachment = Attachment::new(container.name(), container, "eth0");
        hosts[0].runtime().chain(&list).del(&attachment).unwrap();
    });
    println!("300 DEL without etcd: {:?}", since.elapsed());
    let ignored = ["/last_reserved_ip", "/networks/.ferrule/", "/lock "];
    before.without(&ignored).assert_same(&hosts[0].enter(testkit::Snapshot::take).without(&ignored));
}

#[test]
fn a_cluster_that_loses_its_leader_loses_no_packet() {
    need_etcd!();
    let fabric = Fabric::switched(6);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut etcd = Etcd::start(&hosts[3..]);
    let mut agents = follow_all(&etcd, &hosts[..2], "");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let probe = Probe::start(&c1, c2.address);
    let leader = etcd.leader();
    let since = Instant::now();
    etcd.members[leader].kill();
    agents.push(follow(&etcd, hosts[2], ""));
    for agent in &agents {
        agent.settled(2);
    }
    println!("leader lost: a node that joins then is known after {:?}", since.elapsed());
    let flow = probe.end();
    println!(
        "leader lost: lost {} of {}, longest time without an answer {:?}",
        flow.lost, flow.sent, flow.gap
    );
    assert_eq!(flow.lost, 0, "{flow:?}");
    eventually("every agent to be current", || agents.iter().all(current).then_some(()));
}

#[test]
fn what_happened_before_a_compaction_is_not_missed() {
    need_etcd!();
    let fabric = Fabric::switched(4);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut etcd = Etcd::start(&hosts[3..]);
    let agents = follow_all(&etcd, &hosts[..3], "");
    // Where no agent looks, a node leaves and the history is thrown away.
    etcd.members[0].kill();
    etcd.members[0].run(2380 + 99);
    let server = &etcd.members[0];
    server.try_ctl("del /ferrule/blue/nodes/h3", 2479).unwrap();
    for number in 0..20 {
        server.try_ctl(&format!("put /x {number}"), 2479).unwrap();
    }
    let text = server.try_ctl("get /x -w json", 2479).unwrap();
    let revision =
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["header"]["revision"].as_u64().unwrap();
    server.try_ctl(&format!("compact {revision}"), 2479).unwrap();
    let mut agents = agents;
    agents[2].kill();
    etcd.members[0].kill();
    etcd.members[0].run(2379);
    agents[0].settled(1);
    assert!(agents[0].log().contains("compacted"), "{}", agents[0].log());
    eventually("the node that left to be gone", || (!kernel(hosts[0]).contains("192.0.2.3")).then_some(()));
}

#[test]
fn an_etcd_that_comes_back_empty_takes_nothing_away() {
    need_etcd!();
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let mut etcd = Etcd::start(&hosts[2..]);
    let agents = follow_all(&etcd, &hosts[..2], "");
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let blocks = etcd.keys("blocks/");

    let probe = Probe::start(&c1, c2.address);
    etcd.members[0].kill();
    etcd.members[0].wipe();
    etcd.members[0].run(2379);
    etcd.settled();
    eventually("both to write their records again", || (etcd.keys("nodes/").len() == 2).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    let flow = probe.end();
    assert_eq!(flow.lost, 0, "{flow:?}");
    assert_eq!(etcd.keys("blocks/"), blocks, "everybody has the block it had");
    for agent in &agents {
        agent.settled(1);
    }
}

/// One that is stopped (a debugger, a frozen machine) while the others come and go, far more than it is sent at once.
#[test]
fn an_agent_that_is_slow_to_listen_misses_nothing() {
    need_etcd!();
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let etcd = Etcd::start(&hosts[1..]);
    let agent = follow(&etcd, hosts[0], "--alive 60");
    agent.settled(0);
    agent.signal(Signal::SIGSTOP);
    let node = |number: u32, last: u32| {
        let (high, low) = (number >> 8, number & 255);
        let record = json!({
            "v": 1, "node": format!("n{number}"), "epoch": 1, "underlay4": format!("198.51.{high}.{low}"), "port": 4789, "vnis": [100],
            "blocks": [format!("10.{}.{}.{}/30", 60 + last, number >> 6, (number & 63) << 2)],
        });
        format!("put /ferrule/blue/nodes/n{number} {:?}", record.to_string())
    };
    // Each of a thousand comes, changes twice, and every other one goes.
    for last in 0..3 {
        etcd.transact((0..1000).map(|number| node(number, last)));
    }
    etcd.transact((0..1000).step_by(2).map(|number| format!("del /ferrule/blue/nodes/n{number}")));
    assert_eq!(etcd.keys("nodes/").len(), 501);
    agent.signal(Signal::SIGCONT);
    let status = agent.settled(500);
    let blocks: Vec<String> = status["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["blocks"][0].as_str().unwrap().to_owned())
        .collect();
    assert!(blocks.iter().all(|block| block.starts_with("10.62.")), "the last word counts: {blocks:?}");
    assert_eq!(sh(hosts[0], "ip route show proto 70 type unicast | grep -c 10.62."), "500\n");
    assert_eq!(sh(hosts[0], "ip route show proto 70 type unicast | grep -c ."), "500\n");
}
