//! Everything that somebody can do to a node by hand is put right, at once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::{Fabric, FabricHost, eventually};

use crate::lab::{Agent, Connected, Probe, bridged, entries, kernel, sh, write_hosts, write_peers};

#[test]
fn damage_of_every_kind_is_repaired() {
    let fabric = Fabric::switched(3);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    // Repair has to come from what the kernel tells: the comparison by the clock is out of reach.
    let options = format!("--peers-file {} --check-interval 3600", file.display());
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::start(host, &options)).collect();
    for agent in &agents {
        agent.settled(2);
    }
    let (h1, agent) = (hosts[0], &agents[0]);
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, hosts[1], "c2");
    c1.until_reached(c2.address, Instant::now());
    let before = entries(h1);

    for (what, line) in [
        ("device deleted", "ip link del vx-blue"),
        ("device down", "ip link set vx-blue down"),
        ("device down and up", "ip link set vx-blue down; ip link set vx-blue up"),
        ("hardware address changed", "ip link set vx-blue address 02:00:00:00:00:01"),
        ("address removed", "ip addr flush dev vx-blue"),
        ("MTU changed", "ip link set vx-blue mtu 900"),
        ("source address changed", "ip link set vx-blue type vxlan id 100 local 192.0.2.99"),
        ("routes flushed", "ip route del 10.40.2.0/24; ip route del 10.40.3.0/24 || true"),
        ("a route elsewhere", "ip route replace blackhole 10.40.2.0/24 proto 70"),
        ("neighbours flushed", "ip neigh flush dev vx-blue nud permanent"),
        (
            "a neighbour altered",
            "ip neigh replace 10.40.2.0 lladdr 02:00:00:00:00:02 dev vx-blue nud permanent",
        ),
        (
            "forwarding entries flushed",
            "bridge fdb show dev vx-blue | while read mac word vtep rest; do bridge fdb del $mac dev vx-blue dst $vtep self; done",
        ),
        (
            "a forwarding entry altered",
            "bridge fdb show dev vx-blue | grep 192.0.2.2 | while read mac rest; do bridge fdb replace $mac dev vx-blue dst 192.0.2.98 self permanent; done",
        ),
        ("nexthops flushed", "ip nexthop flush proto 70"),
        ("firewall flushed", "nft flush ruleset"),
        (
            "peers kept out",
            "nft list sets inet | grep -o 'vteps4-[a-z]*' | while read set; do nft flush set inet ferrule_vxlan $set; done",
        ),
        ("alias removed", "ip link set vx-blue alias ''"),
    ] {
        let repairs = agent.repairs();
        let probe = Probe::start(&c1, c2.address);
        sh(h1, line);
        eventually(&format!("the agent to repair: {what}\n{}", agent.log()), || {
            (agent.repairs() > repairs).then_some(())
        });
        c1.until_reached(c2.address, Instant::now());
        let flow = probe.end();
        let found = agent.status()["drift"]["last"].as_str().unwrap_or_default().to_owned();
        println!(
            "{what:28} longest time without an answer {:>9.1?}, lost {:2} of {}  ({found})",
            flow.gap, flow.lost, flow.sent
        );
        flow.assert_brief(what);
        eventually(&format!("everything as it was after: {what}"), || (entries(h1) == before).then_some(()));
    }
    // Its own last repair is news to it, too; after that nothing happens where nothing happens.
    let checks = || agent.status()["checks"].as_u64().unwrap();
    eventually("the agent to come to rest", || {
        let seen = checks();
        std::thread::sleep(Duration::from_millis(500));
        (checks() == seen).then_some(())
    });
}

/// Containers of a routed network that see one subnet are cut off from other nodes where their bridge does not answer.
#[test]
fn a_bridge_that_answers_for_other_nodes_goes_on_doing_so() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let options = format!("--peers-file {} --subnet 10.40.0.0/16 --check-interval 1", file.display());
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::start(host, &options)).collect();
    for agent in &agents {
        agent.settled(1);
    }
    let [c1, c2] = Connected::pair(&fabric, hosts[0], hosts[1]);
    let seen = sh(&c1.container, "ip -4 route show");
    assert!(seen.contains("10.40.0.0/16 dev eth0"), "{seen}");
    c1.check().unwrap();
    let repairs = agents[0].repairs();
    sh(hosts[0], "sysctl -qw net.ipv4.conf.vb-blue.proxy_arp=0");
    eventually("the agent to repair it", || (agents[0].repairs() > repairs).then_some(()));
    let found = agents[0].status()["drift"]["last"].to_string();
    assert!(found.contains("the bridge vb-blue was one that does not answer for other nodes"), "{found}");
    sh(&c1.container, "ip neigh flush dev eth0");
    c1.until_reached(c2.address, Instant::now());
    c1.check().unwrap();
}

/// A container that is cut off because its link is no port any more, or no port as it was, is connected again.
#[test]
fn containers_are_plugged_in_again() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let agents = bridged(&hosts, "--check-interval 3600");
    let (h1, agent) = (hosts[0], &agents[0]);
    let [c1, c2] = Connected::pair(&fabric, h1, hosts[1]);
    let c3 = Connected::add(&fabric, h1, "c3");
    let ports = || {
        sh(h1, "bridge -d link show master vb-blue | grep -E -o '^[0-9]+: [^ @:]+|(learning|locked) [a-z]+'")
    };
    let ([port, _], [_, mac]) = (c1.interface(2), c1.interface(1));
    let (ports_before, before) = (ports(), entries(h1));

    for (what, line) in [
        ("bridge deleted", "ip link del vb-blue".to_owned()),
        ("link pulled out", format!("ip link set {port} nomaster")),
        ("port unlocked", format!("bridge link set dev {port} locked off")),
        ("port learns", format!("bridge link set dev {port} learning on")),
        ("the entry of its address removed", format!("bridge fdb del {mac} dev {port} master")),
    ] {
        let repairs = agent.repairs();
        sh(h1, &line);
        eventually(&format!("the agent to repair: {what}\n{}", agent.log()), || {
            (agent.repairs() > repairs).then_some(())
        });
        for (from, to) in [(&c1, &c2), (&c1, &c3), (&c2, &c3), (&c3, &c1)] {
            from.until_reached(to.address, Instant::now());
        }
        eventually(&format!("every port as it was after: {what}"), || {
            (entries(h1) == before && ports().lines().count() == ports_before.lines().count()).then_some(())
        });
        for (container, place) in [(&c1, "c1"), (&c3, "c3")] {
            container.check().unwrap_or_else(|failure| panic!("{what}: CHECK of {place}: {failure}"));
        }
    }
}

/// What the kernel tells while nobody listens is thrown away beyond some hundred notifications, the one of the damage among them. That some were
/// lost is told, and is as good.
#[test]
fn damage_is_repaired_when_its_notification_was_lost() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let options = format!("--peers-file {} --check-interval 3600", file.display());
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::start(host, &options)).collect();
    for agent in &agents {
        agent.settled(1);
    }
    let (h1, agent) = (hosts[0], &agents[0]);
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, hosts[1], "c2");
    c1.until_reached(c2.address, Instant::now());

    let repairs = agent.repairs();
    agent.signal(Signal::SIGSTOP);
    // A thousand addresses of a link that is nobody's come and go.
    sh(
        h1,
        "ip link add noise type bridge; for i in $(seq 4); do for j in $(seq 250); do echo addr add 203.0.$i.$j/32 dev noise; done; done | ip -batch -; \
         ip link del noise; ip route del 10.40.2.0/24",
    );
    assert!(!c1.reaches(c2.address, Duration::from_millis(200)), "the damage is real");
    let probe = Probe::start(&c1, c2.address);
    agent.signal(Signal::SIGCONT);
    eventually("the route to be there again", || kernel(h1).contains("10.40.2.0/24").then_some(()));
    c1.until_reached(c2.address, Instant::now());
    probe.end().assert_brief("notifications lost");
    assert!(agent.repairs() > repairs);
    let log = agent.log();
    assert!(log.contains("notifications were lost; comparing everything"), "{log}");
}

/// Routes by the underlay itself go with its link, and the kernel does not bring them back with it.
#[test]
fn routes_without_a_tunnel_survive_a_link_that_flaps() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let file = write_hosts(&hosts);
    let options = format!("--peers-file {} --direct-routing --check-interval 3600", file.display());
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::start(host, &options)).collect();
    for agent in &agents {
        agent.settled(1);
    }
    let h1 = hosts[0];
    let route = || h1.run("ip", &["route", "get", "10.40.2.2"]).stdout;
    assert!(route().contains("via 192.0.2.2 dev eth0"), "{}", route());
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, hosts[1], "c2");
    c1.until_reached(c2.address, Instant::now());

    let probe = Probe::start(&c1, c2.address);
    for _ in 0..3 {
        sh(h1, "ip link set eth0 down; ip link set eth0 up");
        eventually("the route by the underlay", || route().contains("via 192.0.2.2 dev eth0").then_some(()));
        c1.until_reached(c2.address, Instant::now());
    }
    let flow = probe.end();
    println!("link flapped three times: lost {} of {}, longest {:?}", flow.lost, flow.sent, flow.gap);
    flow.assert_brief("a link that flaps");
}

/// With IPv6 underneath, the address goes with the link, too: somebody has to set it again, and nobody has to do more.
#[test]
fn an_ipv6_underlay_that_goes_and_comes_back() {
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    let peers = hosts.iter().zip(["10.40.1.0/24", "10.40.2.0/24"]);
    let peers: Vec<_> = peers.map(|(host, block)| (host.name(), host.ipv6().into(), block)).collect();
    let file = write_peers(&peers);
    let options = format!("--peers-file {} --check-interval 3600", file.display());
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::start(host, &options)).collect();
    for agent in &agents {
        agent.settled(1);
    }
    let h1 = hosts[0];
    let c1 = Connected::add(&fabric, h1, "c1");
    let c2 = Connected::add(&fabric, hosts[1], "c2");
    c1.until_reached(c2.address, Instant::now());
    let before = agents[0].status()["own"].clone();

    sh(h1, "ip link set eth0 down");
    eventually("the agent to miss the address", || {
        agents[0].status()["source"]["reason"].as_str()?.contains("not among its peers").then_some(())
    });
    let probe = Probe::start(&c1, c2.address);
    sh(h1, "ip link set eth0 up; ip addr add 2001:db8::1/64 dev eth0 nodad");
    c1.until_reached(c2.address, Instant::now());
    probe.end().assert_brief("an address that is back");
    eventually("the agent to be content", || {
        let status = agents[0].status();
        (status["source"]["current"] == true && status["own"] == before).then_some(())
    });
}
